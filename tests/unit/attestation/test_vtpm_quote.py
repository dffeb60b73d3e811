"""TPM quotes made here: each signature scheme, selections, and bytes that are no quote."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from hypothesis import given, settings
from hypothesis import strategies as st

from keymgmt.attestation import AttestationRefused
from keymgmt.attestation.vtpm import PcrPolicy, parse_quote, parse_signature, verify_quote
from keymgmt.attestation.vtpm.attest import ALG_ECDSA, ALG_RSAPSS, ALG_RSASSA

RSA_KEY = rsa.generate_private_key(65537, 2048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())
NONCE = bytes(range(48))
PCRS = {index: hashlib.sha256(bytes([index])).digest() for index in range(24)}
SHA256 = 0x000B


def number(value: int, size: int = 2) -> bytes:
    return value.to_bytes(size, "big")


def sized(data: bytes) -> bytes:
    return number(len(data)) + data


def message(
    *,
    magic: int = 0xFF544347,
    kind: int = 0x8018,
    nonce: bytes = NONCE,
    selections: tuple[tuple[int, bytes], ...] = ((SHA256, b"\x81\x00\x02"),),  # PCR 0, 7, 17
    digest: bytes | None = None,
    safe: int = 1,
) -> bytes:
    if digest is None:
        digest = hashlib.sha256(PCRS[0] + PCRS[7] + PCRS[17]).digest()
    head = number(magic, 4) + number(kind) + sized(b"\x00\x0b" + bytes(32)) + sized(nonce)
    clock = number(1000, 8) + number(3, 4) + number(1, 4) + number(safe, 1) + number(7, 8)
    chosen = b"".join(number(bank) + number(len(bits), 1) + bits for bank, bits in selections)
    return head + clock + number(len(selections), 4) + chosen + sized(digest)


def signature(data: bytes, algorithm: int = ALG_RSASSA) -> bytes:
    """A TPMT_SIGNATURE with SHA-256."""
    head = number(algorithm) + number(SHA256)
    if algorithm == ALG_ECDSA:
        r, s = decode_dss_signature(EC_KEY.sign(data, ec.ECDSA(hashes.SHA256())))
        return head + sized(r.to_bytes(32, "big")) + sized(s.to_bytes(32, "big"))
    scheme: Any = padding.PKCS1v15()
    if algorithm == ALG_RSAPSS:
        scheme = padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=32)
    return head + sized(RSA_KEY.sign(data, scheme, hashes.SHA256()))


def check(data: bytes, algorithm: int = ALG_RSASSA, **options: Any) -> Any:
    key: Any = (EC_KEY if algorithm == ALG_ECDSA else RSA_KEY).public_key()
    return verify_quote(
        data,
        parse_signature(options.pop("signature", None) or signature(data, algorithm)),
        options.pop("key", key),
        options.pop("pcrs", PCRS),
        options.pop("nonce", NONCE),
        options.pop("policy", PcrPolicy()),
    )


def refusal(*arguments: Any, **options: Any) -> str:
    with pytest.raises(AttestationRefused) as caught:
        check(*arguments, **options)
    return caught.value.problem.reason


@pytest.mark.parametrize("algorithm", [ALG_RSASSA, ALG_RSAPSS, ALG_ECDSA])
def test_each_signature_scheme(algorithm: int) -> None:
    proven = check(message(), algorithm)
    assert set(proven.pcrs) == {0, 7, 17}  # what was sent beside them is not proven
    assert proven.quote.safe
    other = message(nonce=b"other")
    assert refusal(other, algorithm, signature=signature(message(), algorithm), nonce=b"other") == "SignatureInvalid"


def test_a_scheme_that_is_not_the_keys_is_refused() -> None:
    assert refusal(message(), ALG_RSASSA, key=EC_KEY.public_key()) == "QuoteSignatureUnsupported"
    assert refusal(message(), ALG_ECDSA, key=RSA_KEY.public_key()) == "QuoteSignatureUnsupported"
    small = rsa.generate_private_key(65537, 1024).public_key()
    assert refusal(message(), key=small) == "QuoteSignatureUnsupported"
    zero = number(ALG_ECDSA) + number(SHA256) + sized(bytes(32)) + sized(bytes(32))
    assert refusal(message(), ALG_ECDSA, signature=zero) == "SignatureInvalid"


def test_nonce_pcrs_and_selection() -> None:
    assert refusal(message(), nonce=b"") == "NonceMismatch"
    assert check(message(nonce=b""), nonce=None).quote.extra_data == b""
    assert refusal(message(), pcrs={**PCRS, 7: bytes(32)}) == "PcrDigestMismatch"
    assert refusal(message(), pcrs={**PCRS, 7: bytes(20)}) == "PcrDigestMismatch"
    assert refusal(message(), pcrs={0: PCRS[0], 7: PCRS[7]}) == "PcrDigestMismatch"
    assert refusal(message(digest=b"")) == "PcrDigestMismatch"
    sha1_too = ((SHA256, b"\x81\x00\x02"), (0x0004, b"\x81\x00\x00"))
    assert refusal(message(selections=sha1_too)) == "PcrSelectionInvalid"
    assert refusal(message(selections=((0x000C, b"\x81\x00\x02"),))) == "PcrSelectionInvalid"
    assert refusal(message(), policy=PcrPolicy(required=frozenset({8}))) == "PcrSelectionInvalid"
    accepted = PcrPolicy(accepted={7: frozenset({PCRS[7]})})
    assert check(message(), policy=accepted).pcrs[7] == PCRS[7]
    # A quote over no PCR at all would prove nothing of what is demanded.
    empty = message(selections=((SHA256, b"\x00\x00\x00"),), digest=hashlib.sha256(b"").digest())
    assert refusal(empty, policy=accepted) == "PcrSelectionInvalid"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        message()[:-1],
        message() + b"\0",
        message(magic=0x54434700),
        message(kind=0x8017),  # a key's certification
        message(safe=2),
        message(nonce=bytes(67)),
        message(selections=()),
        message(selections=((SHA256, b"\x01"),) * 2),
        message(selections=((SHA256, b"\x01"),) * 5),
        message(selections=((0x0099, b"\x01"),)),
        message(selections=((SHA256, b""),)),
        message(selections=((SHA256, bytes(5)),)),
        message(digest=bytes(65)),
        bytes(4096),
    ],
)
def test_bytes_that_are_no_quote_are_refused(data: bytes) -> None:
    with pytest.raises(AttestationRefused) as caught:
        parse_quote(data)
    assert caught.value.problem.reason == "QuoteMalformed"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "QuoteMalformed"),
        (number(ALG_RSASSA) + number(0x0004) + sized(bytes(256)), "QuoteSignatureUnsupported"),  # SHA-1
        (number(0x0005) + number(SHA256) + sized(bytes(32)), "QuoteSignatureUnsupported"),  # HMAC
        (signature(message()) + b"\0", "QuoteMalformed"),
        (signature(message())[:-1], "QuoteMalformed"),
        (number(ALG_RSASSA) + number(SHA256) + sized(bytes(600)), "QuoteMalformed"),
        (number(ALG_ECDSA) + number(SHA256) + sized(bytes(67)) + sized(b""), "QuoteMalformed"),
        (bytes(2000), "QuoteMalformed"),
    ],
)
def test_bytes_that_are_no_signature_are_refused(data: bytes, reason: str) -> None:
    with pytest.raises(AttestationRefused) as caught:
        parse_signature(data)
    assert caught.value.problem.reason == reason


@given(st.binary(max_size=300))
@settings(max_examples=120, deadline=None)
def test_random_bytes_end_in_a_typed_error(data: bytes) -> None:
    for parse, head in ((parse_quote, b"\xffTCG\x80\x18"), (parse_signature, b"\x00\x14\x00\x0b")):
        try:
            parse(head + data)
        except AttestationRefused as error:
            assert error.problem.reason in {"QuoteMalformed", "QuoteSignatureUnsupported"}  # noqa: PT017
