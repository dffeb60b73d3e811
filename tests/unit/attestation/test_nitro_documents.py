"""Nitro attestation documents: the real ones at their own times, and every fault with its own reason."""

from __future__ import annotations

import hashlib
import io
import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import cbor2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from crds.errors import InvalidInput
from keymgmt.attestation import REASONS, AttestationRefused
from keymgmt.attestation.nitro import AWS_ROOT_G1, NitroPolicy, parse_document, verify_nitro
from tests.unit.attestation.conftest import SHARED
from tests.unit.attestation.nitro_vendor import NOW, NitroVendor, link

NITRO = SHARED / "vectors" / "nitro"


def real(name: str) -> bytes:
    """The document inside a vector: its makers put a length before it and their own data after it."""
    stream = io.BytesIO((NITRO / name).read_bytes())
    stream.seek(4)
    cbor2.CBORDecoder(stream, read_size=1).decode()
    return stream.getvalue()[4 : stream.tell()]


@pytest.fixture(scope="module")
def vendor() -> NitroVendor:
    return NitroVendor.create()


def reason_of(call: Callable[[], object]) -> str:
    with pytest.raises(AttestationRefused) as caught:
        call()
    assert caught.value.problem.reason in REASONS
    return caught.value.problem.reason


def test_the_pinned_root_is_awss() -> None:
    root = x509.load_pem_x509_certificate((NITRO / "AWS_NitroEnclaves_Root-G1.pem").read_bytes())
    assert hashlib.sha256(root.public_bytes(Encoding.DER)).hexdigest() == AWS_ROOT_G1


def test_real_document_is_valid_at_its_own_time() -> None:
    data = real("nitro_attestation.bin")
    made = parse_document(data).time
    assert made.date().isoformat() == "2025-12-25"
    claims = verify_nitro(data, NitroPolicy(), made + timedelta(seconds=10), expected_nonce=None)
    told = claims.as_dict()
    assert told["module_id"] == "i-0827e799ec9232d44-enc019b55a68bd2ed4b"
    assert [told[f"pcr{index}"][:8] for index in (0, 1, 2, 4)] == ["5cb70295", "0343b056", "743ea12d", "7b3574ad"]
    assert told["pcr8"] == "00" * 48
    assert told["root"] == "aws"
    assert told["nonce"] == ""
    assert claims.as_ear_submod()["ear.status"] == "affirming"


@pytest.mark.parametrize(
    ("when", "reason"),
    [
        (lambda made: made + timedelta(minutes=6), "DocumentTooOld"),
        (lambda made: made + timedelta(hours=4), "CertificateExpired"),
        (lambda made: datetime.now(UTC), "CertificateExpired"),
        (lambda made: made - timedelta(minutes=2), "CertificateNotYetValid"),
    ],
)
def test_real_document_at_other_times(when: Callable[[datetime], datetime], reason: str) -> None:
    data = real("nitro_attestation.bin")
    now = when(parse_document(data).time)
    assert reason_of(lambda: verify_nitro(data, NitroPolicy(), now, expected_nonce=None)) == reason


def test_real_debug_enclave_is_authentic_and_refused() -> None:
    data = real("nitro_attestation_dbg.bin")
    now = parse_document(data).time + timedelta(seconds=10)
    assert reason_of(lambda: verify_nitro(data, NitroPolicy(), now, expected_nonce=None)) == "DebugAllowed"


def test_real_document_without_a_nonce_answers_no_challenge() -> None:
    data = real("nitro_attestation.bin")
    now = parse_document(data).time
    assert reason_of(lambda: verify_nitro(data, NitroPolicy(), now, expected_nonce=bytes(48))) == "NonceMismatch"


def test_the_vector_as_a_whole_is_no_document() -> None:
    data = (NITRO / "nitro_attestation.bin").read_bytes()
    assert reason_of(lambda: parse_document(data)) == "DocumentMalformed"
    assert reason_of(lambda: parse_document(data[4:])) == "DocumentMalformed"


def test_no_flipped_bit_of_the_real_document_is_accepted() -> None:
    data, rng = real("nitro_attestation.bin"), random.Random(11)
    now = parse_document(data).time
    accepted = []
    for position in [*range(0, 40), *range(40, len(data), 13), *range(len(data) - 100, len(data), 3)]:
        changed = bytearray(data)
        changed[position] ^= 1 << rng.randrange(8)
        try:
            verify_nitro(bytes(changed), NitroPolicy(), now, expected_nonce=None)
        except AttestationRefused:
            continue
        accepted.append(position)
    assert accepted == []


def verify(vendor: NitroVendor, data: bytes, policy: NitroPolicy | None = None, **expected: Any) -> dict[str, Any]:
    expected = {"expected_nonce": b"challenge", **expected}
    return verify_nitro(data, policy or NitroPolicy(), NOW, anchors=vendor.anchors, **expected).as_dict()


def test_own_vendor(vendor: NitroVendor) -> None:
    told = verify(
        vendor,
        vendor.document(public_key=b"key", user_data=b"data"),
        NitroPolicy(pcrs={0: frozenset({b"\1" * 48}), 8: frozenset({b"\x09" * 48})}),
        expected_public_key=b"key",
        expected_user_data=b"data",
    )
    assert told["root"] == "local:test"
    assert told["public_key"] == b"key".hex()
    assert told["report_data"] == b"challenge".hex()


@pytest.mark.parametrize(
    ("changes", "expected", "reason"),
    [
        ({"nonce": b"other"}, {}, "NonceMismatch"),
        ({"nonce": None}, {}, "NonceMismatch"),
        ({"nonce": ...}, {}, "NonceMismatch"),
        ({}, {"expected_public_key": b"key"}, "PublicKeyMismatch"),
        ({"public_key": b"other"}, {"expected_public_key": b"key"}, "PublicKeyMismatch"),
        ({"user_data": b"other"}, {"expected_user_data": b"data"}, "UserDataMismatch"),
        ({"timestamp": int((NOW + timedelta(minutes=2)).timestamp() * 1000)}, {}, "DocumentFromFuture"),
        ({"timestamp": int((NOW - timedelta(minutes=6)).timestamp() * 1000)}, {}, "DocumentTooOld"),
        ({"pcrs": {0: bytes(48), 1: bytes(48)}}, {}, "DebugAllowed"),
    ],
)
def test_what_a_document_says(
    vendor: NitroVendor, changes: dict[str, Any], expected: dict[str, bytes], reason: str
) -> None:
    assert reason_of(lambda: verify(vendor, vendor.document(**changes), **expected)) == reason


@pytest.mark.parametrize("policy", [NitroPolicy(pcrs={2: frozenset({bytes(48)})}), NitroPolicy(pcrs={20: frozenset()})])
def test_registers_that_are_not_accepted(vendor: NitroVendor, policy: NitroPolicy) -> None:
    assert reason_of(lambda: verify(vendor, vendor.document(), policy)) == "PcrNotAllowed"


@pytest.mark.parametrize(
    "changes",
    [
        {"digest": "SHA256"},
        {"module_id": ""},
        {"module_id": 7},
        {"module_id": ...},
        {"timestamp": -1},
        {"timestamp": True},
        {"timestamp": 1 << 60},
        {"pcrs": {}},
        {"pcrs": {1: bytes(48)}},
        {"pcrs": {0: bytes(32)}},
        {"pcrs": {0: b"\1" * 48, 32: bytes(48)}},
        {"pcrs": {0: b"\1" * 48, "1": bytes(48)}},
        {"cabundle": []},
        {"cabundle": [b"x" * 1025]},
        {"cabundle": [b"x"] * 9},
        {"certificate": b""},
        {"nonce": b"x" * 513},
        {"public_key": "text"},
        {"user_data": b"x" * 513},
        {"surplus": 1},
        {"nonce": [[[[]]]]},
    ],
)
def test_members_out_of_bounds(vendor: NitroVendor, changes: dict[str, Any]) -> None:
    assert reason_of(lambda: verify(vendor, vendor.document(**changes))) == "DocumentMalformed"


def test_a_key_that_occurs_twice(vendor: NitroVendor) -> None:
    payload = bytearray(cbor2.dumps(vendor.members()))
    payload[0] += 1  # one more pair in the map
    twice = bytes(payload) + cbor2.dumps("nonce") + cbor2.dumps(b"challenge")
    assert reason_of(lambda: verify(vendor, vendor.sign(twice))) == "DocumentMalformed"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda data: data + b"\0", "DocumentMalformed"),
        (lambda data: b"\xd2" + data, "DocumentMalformed"),  # tagged: another spelling of the same
        (lambda data: data[:-1], "DocumentMalformed"),
        (lambda data: b"", "DocumentMalformed"),
        (lambda data: data + bytes(20000), "DocumentMalformed"),
        (lambda data: b"\x9f" + data[1:] + b"\xff", "DocumentMalformed"),  # of indefinite length
        (lambda data: data[:6] + b"\xa1\1\2" + data[7:], "DocumentMalformed"),  # an unprotected header
        (lambda data: data[:5] + b"\x26" + data[7:], "DocumentMalformed"),
    ],
)
def test_envelopes(vendor: NitroVendor, change: Callable[[bytes], bytes], reason: str) -> None:
    assert reason_of(lambda: verify(vendor, change(vendor.document()))) == reason


def test_another_algorithm_and_another_key(vendor: NitroVendor) -> None:
    payload = cbor2.dumps(vendor.members())
    es512 = vendor.sign(payload, protected=cbor2.dumps({1: -36}))
    assert reason_of(lambda: verify(vendor, es512)) == "SignatureAlgorithmUnsupported"
    other = vendor.document(ec.generate_private_key(ec.SECP384R1()))
    assert reason_of(lambda: verify(vendor, other)) == "SignatureInvalid"


def test_chains(vendor: NitroVendor) -> None:
    root, zone, instance = vendor.path
    enclave = vendor.enclave
    stranger = link("stranger", None)
    small = link("small", zone, path_length=0, curve=ec.SECP256R1())
    leaf_of_leaf = link("enclave", enclave, ca=False)
    mute = link("instance", zone, path_length=0, cert_sign=False)
    deep = link("deeper", instance, path_length=0)
    for path, leaf, reason in (
        ([stranger, zone, instance], enclave, "CertificateChainInvalid"),
        ([root, instance], enclave, "CertificateChainInvalid"),
        ([zone, instance], enclave, "RootUntrusted"),
        ([root, zone, small], link("enclave", small, ca=False), "CertificateMalformed"),
        ([root, zone, instance, enclave], leaf_of_leaf, "CertificateChainInvalid"),
        ([root, zone, mute], link("enclave", mute, ca=False), "CertificateChainInvalid"),
        ([root, zone, instance, deep], link("enclave", deep, ca=False), "CertificateChainInvalid"),
        ([root, zone], instance, "CertificateChainInvalid"),
    ):
        forged = NitroVendor(path, leaf)
        assert reason_of(lambda forged=forged: verify(vendor, forged.document())) == reason
    data = vendor.document(certificate=b"\x30\x00")
    assert reason_of(lambda: verify(vendor, data)) == "CertificateMalformed"


def test_the_builtin_root_alone_is_trusted(vendor: NitroVendor) -> None:
    data = vendor.document()
    assert reason_of(lambda: verify_nitro(data, NitroPolicy(), NOW, expected_nonce=None)) == "RootUntrusted"


def test_a_time_without_a_zone_is_a_mistake_of_the_caller(vendor: NitroVendor) -> None:
    with pytest.raises(InvalidInput, match="zone"):
        verify_nitro(vendor.document(), NitroPolicy(), NOW.replace(tzinfo=None), expected_nonce=None)
