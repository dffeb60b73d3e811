"""The verdicts of shared/vectors/MANIFEST.md for every row of amd/, at pinned times."""

from __future__ import annotations

import base64
import hashlib
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keymgmt.attestation import AttestationRefused, SnpClaims, SnpPolicy, TrustRoots, verify_snp
from keymgmt.attestation.azure import parse_hcl_report
from keymgmt.attestation.certificates import SigningCertificate, read_certificate
from tests.unit.attestation.conftest import PINNED, chain, vector

ROOTS = TrustRoots.builtin_amd()
REPORT, VCEK = vector("trustee-test-report.bin"), vector("trustee-test-vcek.der")
MILAN, GENOA = chain("milan"), chain("genoa")


def check(
    report: bytes,
    leaf: bytes,
    *authorities: bytes,
    policy: SnpPolicy | None = None,
    now: datetime = PINNED,
    report_data: bytes | None = None,
    roots: TrustRoots = ROOTS,
) -> SnpClaims:
    return verify_snp(report, [leaf, *authorities], roots, policy or SnpPolicy(), now, report_data)


def refusal(*arguments: bytes, **options: Any) -> str:
    with pytest.raises(AttestationRefused) as caught:
        check(*arguments, **options)
    return caught.value.problem.reason


def increment(data: bytes, position: int) -> bytes:
    changed = bytearray(data)
    changed[position] = (changed[position] + 1) % 256
    return bytes(changed)


def test_milan_v2_vcek() -> None:
    claims = check(REPORT, VCEK, MILAN["ask"], MILAN["ark"])
    assert claims.report.measurement.hex().startswith("a1f3930413247bb3")
    assert (claims.report.version, claims.product, claims.signer, claims.root) == (2, "Milan", "vcek", "amd")
    assert not claims.report.policy.debug
    assert claims.report.vmpl == 0
    assert claims.tcb.as_dict() == {"bootloader": 3, "tee": 0, "snp": 8, "microcode": 115}


def test_genoa_v3_vcek() -> None:
    claims = check(vector("snp-genoa-v3-report.bin"), vector("snp-genoa-v3-vcek.der"), *genoa_authorities())
    assert claims.report.measurement.hex().startswith("6a6519d757e68c2e")
    assert (claims.report.version, claims.product) == (3, "Genoa")
    assert not claims.report.policy.debug
    assert claims.report.vmpl == 0


def test_milan_v3_vlek_is_valid_at_a_pinned_time_and_refused_by_vmpl() -> None:
    report, vlek = vector("trustee-test-vlek-report.bin"), vector("trustee-test-vlek.der")
    authorities = (MILAN["asvk"], MILAN["ark"])
    claims = check(report, vlek, *authorities, policy=SnpPolicy(allowed_vmpls=frozenset({1})))
    assert claims.signer == "vlek"
    assert claims.csp_id == "CN=cc-us-east-2.amazonaws.com"
    assert claims.report.chip_id == bytes(64)
    assert claims.report.vmpl == 1
    assert refusal(report, vlek, *authorities) == "VmplNotAllowed"
    after = datetime(2025, 12, 11, tzinfo=UTC)
    assert refusal(report, vlek, *authorities, now=after) == "CertificateExpired"


def test_debug_guest_is_authentic_and_refused() -> None:
    report, vcek = vector("gosev-debug-allowed-report.bin"), vector("gosev-debug-allowed-vcek.der")
    authorities = (MILAN["ask"], MILAN["ark"])
    assert refusal(report, vcek, *authorities) == "DebugAllowed"
    claims = check(report, vcek, *authorities, policy=SnpPolicy(allow_debug=True))
    assert claims.report.policy.raw == 0xB0000
    assert claims.as_ear_submod()["ear.status"] == "contraindicated"


def genoa_authorities() -> tuple[bytes, bytes]:
    return GENOA["ask"], GENOA["ark"]


def azure(name: str) -> tuple[bytes, bytes]:
    """HCL report and VCEK (DER or PEM) of one of Azure's evidence files."""
    document = json.loads(vector(f"azure/{name}"))
    if "report" in document:
        return bytes(document["report"]), document["vcek"].encode()
    encoded = [document[field].replace("-", "+").replace("_", "/") for field in ("hcl_report", "vcek")]
    hcl, vcek = (base64.b64decode(text + "=" * (-len(text) % 4)) for text in encoded)
    return hcl, vcek


@pytest.mark.parametrize("name", ["evidence-genoa.json", "evidence-v0.json", "evidence-v1.json", "evidence-v2.json"])
def test_azure_evidence(name: str) -> None:
    data, vcek = azure(name)
    hcl = parse_hcl_report(data)
    assert hcl.snp_report == data[32 : 32 + 1184]
    product = "genoa" if "genoa" in name else "milan"
    claims = check(hcl.snp_report, vcek, chain(product)["ask"], chain(product)["ark"])
    hcl.check_binding(claims.report.report_data)
    assert hashlib.sha256(hcl.runtime_data).digest() == claims.report.report_data[:32]
    assert json.loads(hcl.runtime_data)["keys"][0]["kid"] == "HCLAkPub"


def test_azure_hcl_report_with_pem_bundle() -> None:
    hcl = parse_hcl_report(vector("azure/hcl-report.bin"))
    claims = check(hcl.snp_report, vector("azure/vcek.pem"))  # the bundle holds the whole chain
    hcl.check_binding(claims.report.report_data)
    assert claims.root == "amd"


def test_azure_runtime_data_must_match() -> None:
    data = vector("azure/hcl-report.bin")
    hcl = parse_hcl_report(increment(data, 32 + 1184 + 20 + 30))
    with pytest.raises(AttestationRefused) as caught:
        hcl.check_binding(hcl.snp_report[0x50:0x90])
    assert caught.value.problem.reason == "NonceMismatch"


@pytest.mark.parametrize("encoding", ["legacy", "new"])
def test_hardware_id_encodings_parse_and_the_unsigned_certificates_are_refused(encoding: str) -> None:
    leaf = vector(f"trustee-test-vcek-invalid-{encoding}.der")
    parsed = read_certificate(leaf)
    assert isinstance(parsed, SigningCertificate)
    assert parsed.hardware_id == bytes(range(64))
    # As it comes: another chip. Made to fit its chip and TCB: no issuer ever signed it.
    assert refusal(REPORT, leaf, MILAN["ask"], MILAN["ark"]) == "CertificateChainInvalid"
    fitting = bytearray(REPORT)
    fitting[0x180:0x188] = parsed.tcb.encode("Milan")
    fitting[0x1A0:0x1E0] = bytes(range(64))
    assert refusal(bytes(fitting), leaf, MILAN["ask"], MILAN["ark"]) == "CertificateChainInvalid"


def test_swapped_vceks_are_refused() -> None:
    authorities = (MILAN["ask"], MILAN["ark"])
    assert refusal(REPORT, vector("gosev-debug-allowed-vcek.der"), *authorities) == "ChipIdMismatch"
    assert refusal(vector("gosev-debug-allowed-report.bin"), VCEK, *authorities) == "ChipIdMismatch"
    genoa = vector("snp-genoa-v3-vcek.der")
    assert refusal(REPORT, genoa, *authorities) == "CertificateChainInvalid"  # no Genoa ASK at hand
    assert refusal(REPORT, genoa, *genoa_authorities()) == "ChipIdMismatch"
    assert refusal(REPORT, vector("trustee-test-vlek.der"), *authorities) == "SigningKeyMismatch"


def test_listed_mutations_are_refused() -> None:
    authorities = (MILAN["ask"], MILAN["ark"])
    assert refusal(increment(REPORT, 42), VCEK, *authorities) == "SignatureInvalid"
    assert refusal(increment(REPORT, 384), VCEK, *authorities) == "TcbMismatch"
    assert refusal(REPORT, increment(VCEK, 42), *authorities) in {"CertificateMalformed", "CertificateChainInvalid"}


def test_ask_and_asvk_swapped_are_refused() -> None:
    assert refusal(REPORT, VCEK, MILAN["asvk"], MILAN["ark"]) == "CertificateChainInvalid"
    report, vlek = vector("trustee-test-vlek-report.bin"), vector("trustee-test-vlek.der")
    policy = SnpPolicy(allowed_vmpls=frozenset({1}))
    assert refusal(report, vlek, MILAN["ask"], MILAN["ark"], policy=policy) == "CertificateChainInvalid"


def test_a_wrong_supplied_intermediate_is_not_silently_replaced(tmp_path: Any) -> None:
    (tmp_path / "milan.pem").write_bytes(vector("milan_ask_ark_asvk.pem"))
    roots = TrustRoots.builtin_amd(tmp_path)
    assert check(REPORT, VCEK, roots=roots).root == "amd"  # the leaf alone, the rest from collateral
    assert refusal(REPORT, VCEK, MILAN["asvk"], roots=roots) == "CertificateChainInvalid"


def test_missing_collateral_is_refused() -> None:
    assert refusal(REPORT, VCEK) == "CertificateChainInvalid"
    assert refusal(REPORT, VCEK, MILAN["ask"]) == "CertificateChainInvalid"


def test_a_root_that_is_not_pinned_is_refused() -> None:
    assert refusal(REPORT, VCEK, MILAN["ask"], MILAN["ark"], roots=TrustRoots()) == "RootUntrusted"


def test_time_is_what_is_given() -> None:
    authorities = (MILAN["ask"], MILAN["ark"])
    early, late = datetime(2023, 1, 24, 17, tzinfo=UTC), datetime(2030, 1, 24, 18, tzinfo=UTC)
    assert refusal(REPORT, VCEK, *authorities, now=early) == "CertificateNotYetValid"
    assert refusal(REPORT, VCEK, *authorities, now=late) == "CertificateExpired"


def test_nonce_must_match() -> None:
    authorities = (MILAN["ask"], MILAN["ark"])
    stated = REPORT[0x50:0x90]
    assert check(REPORT, VCEK, *authorities, report_data=stated).report.report_data == stated
    assert check(REPORT, VCEK, *authorities, report_data=stated.rstrip(b"\0")).signer == "vcek"
    assert refusal(REPORT, VCEK, *authorities, report_data=b"\x01" * 64) == "NonceMismatch"
    assert refusal(REPORT, VCEK, *authorities, report_data=b"") == "NonceMismatch"


@given(st.integers(0, 1184 * 8 - 1))
@settings(max_examples=250, deadline=None)
def test_every_bit_flip_of_a_report_is_refused(position: int) -> None:
    flipped = bytearray(REPORT)
    flipped[position // 8] ^= 1 << position % 8
    assert refusal(bytes(flipped), VCEK, MILAN["ask"], MILAN["ark"])


@given(st.integers(0, len(VCEK) * 8 - 1))
@settings(max_examples=250, deadline=None)
def test_every_bit_flip_of_a_vcek_is_refused(position: int) -> None:
    flipped = bytearray(VCEK)
    flipped[position // 8] ^= 1 << position % 8
    assert refusal(REPORT, bytes(flipped), MILAN["ask"], MILAN["ark"])
