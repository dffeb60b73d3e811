"""The verdicts of shared/vectors/MANIFEST.md for every row of nvidia/, at a pinned time."""

from __future__ import annotations

import base64
import hashlib
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import ocsp
from hypothesis import given, settings
from hypothesis import strategies as st

from keymgmt.attestation import AttestationRefused
from keymgmt.attestation.nvidia import (
    NVIDIA_DEVICE_ROOT,
    NvidiaClaims,
    NvidiaEndorsements,
    NvidiaPolicy,
    parse_evidence,
    parse_opaque,
    parse_report,
    verify_device,
)
from tests.unit.attestation.conftest import SHARED
from tests.unit.attestation.nvidia_vendor import delegate, ocsp_answer, spki

NVIDIA = SHARED / "vectors" / "nvidia"
PINNED = datetime(2025, 8, 1, tzinfo=UTC)
NONCE = bytes.fromhex("931d8dd0add203ac3d8b4fbde75e115278eefcdceac5b87671a748f32364dfcb")
# There are no reference values (RIM) among the vectors.
POLICY = NvidiaPolicy(require_reference_values=False)


def report(name: str) -> bytes:
    return bytes.fromhex((NVIDIA / name).read_text().strip())


def chain(name: str) -> bytes:
    return (NVIDIA / name).read_bytes()


HOPPER, CASE1 = report("hopperAttestationReport.txt"), chain("hopper_cert_chain_case1.txt")


def check(
    data: bytes,
    certificates: bytes,
    arch: str = "HOPPER",
    nonce: bytes | None = None,
    now: datetime = PINNED,
    endorsements: NvidiaEndorsements | None = None,
    policy: NvidiaPolicy = POLICY,
) -> NvidiaClaims:
    return verify_device(data, certificates, arch, endorsements or NvidiaEndorsements(), policy, now, nonce)


def refusal(*arguments: Any, **options: Any) -> str:
    with pytest.raises(AttestationRefused) as caught:
        check(*arguments, **options)
    return caught.value.problem.reason


def test_hopper_report_and_chain() -> None:
    claims = check(HOPPER, CASE1, nonce=NONCE)
    said = claims.as_dict()
    assert (claims.root, claims.device_class, said["arch"]) == ("nvidia", "gpu", "HOPPER")
    # What NVIDIA's own service (NRAS) said of this very evidence.
    assert said["ueid"] == "478176379286082186618948445787393647364802107249"
    assert said["hwmodel"] == "GH100 A01 GSP BROM"
    assert (said["driver_version"], said["vbios_version"]) == ("550.90.07", "96.00.9f.00.01")
    assert said["oemid"] == "5703"
    assert said["measres"] == "none"
    assert said["dbgstat"] == "unknown"
    assert said["pdi"] == "431d480fe5e87274"  # of the device certificate's serial number


def test_hopper_claims_are_those_of_trustee() -> None:
    expected = json.loads((NVIDIA / "hopperAttestationReport-claims.txt").read_text())
    parsed = parse_report(HOPPER)
    assert parse_opaque(parsed.opaque, switch=False).as_config() == expected["config"]
    assert check(HOPPER, CASE1).measurements() == expected["measurements"]


def test_the_signing_certificate_of_the_vectors_is_the_first_of_the_chain() -> None:
    alone = x509.load_pem_x509_certificate((NVIDIA / "hopper_signing_cert.pem").read_bytes())
    assert check(HOPPER, CASE1).chain.leaf.x509 == alone


def test_coco_report_with_a_trailing_byte() -> None:
    data = report("hopper_coco_report1.txt")
    nonce = bytes.fromhex("87d8e24ab336adafe228d49e83d745f6dba4ae505372b6a5704820856b343fece279b616efefc2aa")
    claims = check(data, chain("hopper_coco_certs1.txt"), nonce=nonce)  # SPDM takes the first 32 bytes
    assert claims.as_dict()["mode"] == "SPT"
    assert check(data[:-1], chain("hopper_coco_certs1.txt")).opaque == claims.opaque
    assert refusal(data[:-1] + b"\x01", chain("hopper_coco_certs1.txt")) == "SpdmMalformed"
    assert refusal(data + bytes(8), chain("hopper_coco_certs1.txt")) == "SpdmMalformed"


def test_further_reports_of_the_sdk() -> None:
    old = check(report("sdk/hopperAttestationReport.txt"), chain("sdk/hopperCertChain.txt"))
    assert old.opaque.fwid is None  # a driver too old to state its firmware's identity
    assert old.chain.fwid is not None
    strict = NvidiaPolicy(require_reference_values=False, require_fwid=True)
    pair = (report("sdk/hopperAttestationReport.txt"), chain("sdk/hopperCertChain.txt"))
    assert refusal(*pair, policy=strict) == "FirmwareIdMismatch"
    # Named "Expired" by the SDK; its certificates end in the year 9999 as all others.
    expired = (report("sdk/hopperAttestationReportExpired.txt"), chain("sdk/hopperCertChainExpired.txt"))
    assert check(*expired, nonce=NONCE).as_dict()["driver_version"] == "570.124.03"
    assert refusal(*expired, now=datetime(2020, 1, 1, tzinfo=UTC)) == "CertificateNotYetValid"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("case2", "CertificateMissing"),  # the root alone
        ("case3", "CertificateChainInvalid"),  # the provisioner is left out
        ("case4", "CertificateUsageInvalid"),  # the signing key's certificate is left out
    ],
)
def test_broken_chains_are_refused_each_for_its_reason(name: str, reason: str) -> None:
    assert refusal(HOPPER, chain(f"hopper_cert_chain_{name}.txt")) == reason


def test_invalid_signature_is_refused() -> None:
    bad = report("sdk/hopperAttestationReportInvalidSignature.txt")
    evidence = device("sdk/hopper_evidence.json")
    for certificates in (CASE1, evidence[1]):
        assert refusal(bad, certificates) == "SignatureInvalid"
    assert parse_opaque(parse_report(bad).opaque, switch=False).driver_version == "560.00"


def device(name: str) -> tuple[bytes, bytes, str]:
    (found,) = parse_evidence(json.loads((NVIDIA / name).read_text()))
    return found.report, found.certificates, found.architecture


def test_hopper_evidence_of_the_sdk() -> None:
    nonce = bytes.fromhex("e97b23a1718095a0e9e35edca810768c70a6a5a389b705e753b197912bc11576")
    said = check(*device("sdk/hopper_evidence.json"), nonce).as_dict()
    assert (said["driver_version"], said["mode"], said["protected_pcie"]) == ("590.12", "PPCIE", True)
    assert len(said["switch_pdis"]) == 4
    assert "9ae3beba9e673275" in said["switch_pdis"]  # reversed: as the switch itself would write it


def test_switch_evidence() -> None:
    claims = check(*device("sdk/switch_evidence_ls10.json"), NONCE)
    said = claims.as_dict()
    assert (claims.device_class, said["arch"], said["vbios_version"]) == ("switch", "LS10", "96.10.55.00.01")
    assert said["ueid"] == "694931143880983876767046803400974855445978836716"  # as NRAS says
    assert said["hwmodel"] == "LS_10 A01 FSP BROM"
    assert claims.opaque.pdis == (said["pdi"],) == ("203eb31ad9ed0008",)
    assert len(said["gpu_pdis"]) == 7


def test_a_certificate_on_hold_is_refused_when_revocation_is_consulted() -> None:
    data, certificates, arch = device("sdk/hopper_evidence_cert_hold.json")
    claims = check(data, certificates, arch, NONCE)  # the signature is good
    held, issuer = (one.x509 for one in claims.chain.certificates[1:3])
    key, responder = delegate("somebody", ec.generate_private_key(ec.SECP384R1()))
    pinned = frozenset({hashlib.sha256(spki(key)).hexdigest()})
    on_hold = ocsp_answer(
        held,
        issuer,
        key,
        responder,
        status=ocsp.OCSPCertStatus.REVOKED,
        reason=x509.ReasonFlags.certificate_hold,
        at=PINNED,
    )
    consulted = NvidiaEndorsements(ocsp_responses=(on_hold,), ocsp_responders=pinned)
    assert refusal(data, certificates, arch, endorsements=consulted) == "CertificateOnHold"
    good = NvidiaEndorsements(
        ocsp_responses=(ocsp_answer(held, issuer, key, responder, at=PINNED),), ocsp_responders=pinned
    )
    assert check(data, certificates, arch, endorsements=good).root == "nvidia"
    # An answer about one device says nothing of another.
    assert check(HOPPER, CASE1, endorsements=consulted).root == "nvidia"
    # Nobody entitled the responder: its answer counts for nothing.
    assert check(data, certificates, arch, endorsements=NvidiaEndorsements(ocsp_responses=(on_hold,))).root == "nvidia"
    required = NvidiaPolicy(require_reference_values=False, require_revocation=True)
    assert refusal(data, certificates, arch, endorsements=good, policy=required) == "RevocationUnknown"


def test_reference_values_are_demanded_by_default() -> None:
    assert refusal(HOPPER, CASE1, policy=NvidiaPolicy()) == "ReferenceValueMissing"


def test_the_pinned_root_is_the_one_of_the_vectors() -> None:
    root = check(HOPPER, CASE1).chain.root
    assert root.spki_sha256 == NVIDIA_DEVICE_ROOT
    assert root.x509.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) == root.spki
    assert refusal(HOPPER, CASE1, endorsements=NvidiaEndorsements(roots={})) == "RootUntrusted"


def test_another_nonce_chain_or_architecture_is_refused() -> None:
    assert refusal(HOPPER, CASE1, nonce=bytes(32)) == "NonceMismatch"
    assert refusal(HOPPER, CASE1, nonce=b"") == "NonceMismatch"
    assert refusal(HOPPER, chain("hopper_coco_certs1.txt")) == "SignatureInvalid"
    assert refusal(HOPPER, CASE1, "BLACKWELL") == "ArchitectureMismatch"
    assert refusal(HOPPER, CASE1, "LS10") == "ArchitectureMismatch"


@given(st.integers(0, len(HOPPER) * 8 - 1))
@settings(max_examples=50, deadline=None)
def test_every_bit_flip_of_a_report_is_refused(position: int) -> None:
    flipped = bytearray(HOPPER)
    flipped[position // 8] ^= 1 << position % 8
    assert refusal(bytes(flipped), CASE1)


@given(st.integers(0, 4), st.integers(0, 12000))
@settings(max_examples=50, deadline=None)
def test_every_bit_flip_of_a_certificate_is_refused(number: int, position: int) -> None:
    ders = [x509.load_pem_x509_certificate(one).public_bytes(Encoding.DER) for one in PEMS]
    flipped = bytearray(ders[number])
    at = position % (len(flipped) * 8)
    flipped[at // 8] ^= 1 << at % 8
    ders[number] = bytes(flipped)
    assert refusal(HOPPER, b"".join(pem(der) for der in ders))


def pem(der: bytes) -> bytes:
    return b"-----BEGIN CERTIFICATE-----\n" + base64.encodebytes(der) + b"-----END CERTIFICATE-----\n"


PEMS = [part + b"-----END CERTIFICATE-----\n" for part in CASE1.split(b"-----END CERTIFICATE-----") if b"BEGIN" in part]
