"""KBS evidence: the serde JSON of Trustee's SNP attester, in and out, and hostile input."""

from __future__ import annotations

import base64
import json
import random
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st

from crds.errors import KekkaiError
from keymgmt.attestation import (
    AttestationRefused,
    SnpPolicy,
    Tcb,
    TrustRoots,
    host_data_of,
    init_data_digest,
    parse_kbs_evidence,
    parse_report,
    snp_evidence,
    verify_snp,
)
from keymgmt.attestation.azure import parse_hcl_report
from keymgmt.attestation.certificates import read_certificate, split_certificates
from local.hardware.snp.report import ReportFields, sign_report
from tests.unit.attestation.conftest import PINNED, chain, vector

GENOA_REPORT, GENOA_VCEK = vector("snp-genoa-v3-report.bin"), vector("snp-genoa-v3-vcek.der")


def refusal(tee: str, evidence: object) -> str:
    with pytest.raises(AttestationRefused) as caught:
        parse_kbs_evidence(tee, evidence)
    return caught.value.problem.reason


@pytest.mark.parametrize(
    "name",
    [
        "trustee-test-report.bin",
        "trustee-test-vlek-report.bin",
        "snp-genoa-v3-report.bin",
        "gosev-debug-allowed-report.bin",
    ],
)
def test_real_reports_survive_the_json_form(name: str) -> None:
    report = vector(name)
    evidence = json.loads(json.dumps(snp_evidence(report, [("VCEK", b"\x30\x00")])))
    assert parse_kbs_evidence("snp", evidence).report == report
    assert parse_kbs_evidence("snp", evidence).certificates == (b"\x30\x00",)


@pytest.mark.parametrize("version", [2, 3, 4, 5])
@pytest.mark.parametrize("product", ["Genoa", "Turin"])
def test_made_reports_survive_the_json_form(version: int, product: Any) -> None:
    chip = bytes(range(1, 9)).ljust(64, b"\0") if product == "Turin" else bytes(range(64))
    tcb = Tcb(fmc=9, bootloader=1, tee=2, snp=3, microcode=4)
    fields = ReportFields(bytes(64), bytes(48), version=version, product=product, chip_id=chip, tcb=tcb)
    report = sign_report(fields, ec.generate_private_key(ec.SECP384R1()))
    assert parse_kbs_evidence("snp", snp_evidence(report, [])).report == report


def test_the_json_has_the_field_names_of_the_sev_crate() -> None:
    """Names and shapes as in Trustee's own sample (attestation-service/tests/e2e/evidence.json)."""
    stated = snp_evidence(GENOA_REPORT, [("VCEK", GENOA_VCEK)])
    report = stated["attestation_report"]
    assert (report["version"], report["policy"], report["sig_algo"], report["plat_info"]) == (3, 196608, 1, 37)
    assert report["current_tcb"] == {"fmc": None, "bootloader": 10, "tee": 0, "snp": 23, "microcode": 25}
    assert report["current"] == {"major": 1, "minor": 55, "build": 40}
    assert (report["cpuid_fam_id"], report["cpuid_mod_id"], report["cpuid_step"]) == (25, 160, 2)
    assert {name: len(part) for name, part in report["signature"].items()} == {"r": 72, "s": 72}
    assert report["launch_mit_vector"] is None
    assert stated["cert_chain"] == [{"cert_type": "VCEK", "data": list(GENOA_VCEK)}]


def test_evidence_verifies_from_end_to_end() -> None:
    genoa = chain("genoa")
    evidence = parse_kbs_evidence("snp", snp_evidence(GENOA_REPORT, [("VCEK", GENOA_VCEK)]))
    certificates = [*evidence.certificates, genoa["ask"], genoa["ark"]]
    claims = verify_snp(evidence.report, certificates, TrustRoots.builtin_amd(), SnpPolicy(), PINNED, None)
    assert claims.product == "Genoa"


def test_base64_form() -> None:
    encode = lambda data: base64.b64encode(data).decode()  # noqa: E731
    entry = {"cert_type": "VCEK", "data": encode(GENOA_VCEK)}
    evidence = parse_kbs_evidence("snp", {"attestation_report": encode(GENOA_REPORT), "cert_chain": [entry]})
    assert evidence.report == GENOA_REPORT
    assert evidence.certificates == (GENOA_VCEK,)


def test_entries_that_are_no_certificates_are_passed_over() -> None:
    evidence = snp_evidence(GENOA_REPORT, [])
    evidence["cert_chain"] = [
        {"cert_type": "CRL", "data": [1]},
        {"cert_type": {"OTHER": "ecae0c0f-9502-43b1-afa2-0ae2e0d565b6"}, "data": [1]},
        {"cert_type": "Empty", "data": []},
    ]
    # dicts are unhashable: a vendor entry must not crash the look-up
    assert parse_kbs_evidence("snp", evidence).certificates == ()


@pytest.mark.parametrize("tee", ["sample", "tdx", "", "SNP"])
def test_other_tees_are_refused(tee: str) -> None:
    assert refusal(tee, {}) == "TeeUnsupported"


def spoil(path: str, value: object) -> dict[str, Any]:
    evidence = json.loads(json.dumps(snp_evidence(GENOA_REPORT, [("VCEK", GENOA_VCEK)])))
    *parents, last = path.split(".")
    place = evidence
    for name in parents:
        place = place[name]
    place[last] = value
    return dict(evidence)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("attestation_report", None),
        ("attestation_report", []),
        ("attestation_report", "not base64!"),
        ("attestation_report", "A" * 100_000),
        ("attestation_report.version", "3"),
        ("attestation_report.version", True),
        ("attestation_report.version", -1),
        ("attestation_report.version", 1 << 32),
        ("attestation_report.policy", 1 << 64),
        ("attestation_report.measurement", [0] * 47),
        ("attestation_report.measurement", [0] * 47 + [256]),
        ("attestation_report.measurement", [0] * 47 + ["x"]),
        ("attestation_report.reported_tcb", {"bootloader": 1}),
        ("attestation_report.reported_tcb", None),
        ("attestation_report.current", [1, 2, 3]),
        ("attestation_report.signature", {"r": [0] * 72}),
        ("attestation_report.cpuid_fam_id", None),
        ("cert_chain", {}),
        ("cert_chain", [{}] * 9),
        ("cert_chain", [[]]),
        ("cert_chain", [{"cert_type": "VCEK", "data": None}]),
        ("cert_chain", [{"cert_type": "VCEK", "data": [0] * 20_000}]),
        ("cert_chain", [{"cert_type": "VCEK", "data": "A" * 40_000}]),
    ],
)
def test_malformed_evidence(path: str, value: object) -> None:
    assert refusal("snp", spoil(path, value)) in {"EvidenceMalformed", "ReportMalformed"}


@pytest.mark.parametrize("evidence", [None, [], "x", 7, {}])
def test_evidence_must_be_an_object(evidence: object) -> None:
    assert refusal("snp", evidence) == "EvidenceMalformed"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
FIELDS = st.sampled_from(sorted(snp_evidence(GENOA_REPORT, [])["attestation_report"]))


@given(FIELDS, JSON)
@settings(max_examples=200, deadline=None)
def test_any_json_in_any_field_ends_in_evidence_or_a_refusal(name: str, value: object) -> None:
    evidence = snp_evidence(GENOA_REPORT, [])
    evidence["attestation_report"][name] = value
    try:
        size = len(parse_kbs_evidence("snp", evidence).report)
    except AttestationRefused:
        return
    assert size == 1184


@pytest.mark.parametrize("seed", range(4))
def test_parsers_of_bytes_end_in_a_value_or_a_typed_error(seed: int) -> None:
    """Random, cut, spliced and flipped input to each parser of outside bytes."""
    rng = random.Random(seed)
    samples = [GENOA_REPORT, GENOA_VCEK, vector("azure/hcl-report.bin"), chain("milan")["ask"]]
    refused = 0
    for _ in range(300):
        data = bytearray(rng.choice(samples)) if rng.random() < 0.8 else bytearray(rng.randbytes(rng.randrange(2000)))
        for _ in range(rng.randrange(6)):
            if data:
                data[rng.randrange(len(data))] = rng.randrange(256)
        if rng.random() < 0.3:
            del data[rng.randrange(len(data) + 1) :]
        for parse in (parse_report, read_certificate, lambda raw: split_certificates([raw]), parse_hcl_report):
            try:
                parse(bytes(data))
            except KekkaiError:
                refused += 1
    assert refused > 100


TOML = 'version = "0.1.0"\nalgorithm = "sha384"\n[data]\n"policy.rego" = "x"\n'


def test_init_data_digest() -> None:
    import hashlib

    digest = init_data_digest(TOML)
    assert digest == hashlib.sha384(TOML.encode()).digest()
    assert host_data_of(digest) == digest[:32]
    assert host_data_of(b"\x01" * 20) == b"\x01" * 20 + bytes(12)
    assert (
        init_data_digest(TOML.replace("sha384", "sha256"))
        == hashlib.sha256(TOML.replace("sha384", "sha256").encode()).digest()
    )


@pytest.mark.parametrize("body", ["", "version = 1", 'algorithm = "md5"', "[[[", "x" * 300_000, "a = [" * 5000])
def test_malformed_init_data(body: str) -> None:
    with pytest.raises(AttestationRefused) as caught:
        init_data_digest(body)
    assert caught.value.problem.reason == "InitDataMalformed"
