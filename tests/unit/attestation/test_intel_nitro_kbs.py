"""TDX, SGX and Nitro evidence through the key service's appraisal, by the TEE names of the KBS protocol."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from crds.errors import InvalidInput
from keymgmt.attestation import AttestationRefused, init_data_digest
from keymgmt.attestation.collateral.cache import CollateralCache
from keymgmt.attestation.collateral.pieces import Piece
from keymgmt.attestation.eventlog import parse_log, replay
from keymgmt.attestation.intel.boot_log import SHA384
from keymgmt.broker.appraisal import Appraised, Appraiser, AttestRequest, rule_claims
from keymgmt.broker.challenge import SUPPORTED_TEES
from keymgmt.config import Attestation, IntelTcb, NitroAppraisal, SgxAppraisal, TdxAppraisal
from keymgmt.policy.errors import PolicyInvalid
from keymgmt.policy.rule import compile_rule, evaluate
from tests.unit.attestation.conftest import SHARED
from tests.unit.attestation.intel_vendor import FMSPC, NOW, IntelVendor, Levels, enclave_body, td_body
from tests.unit.attestation.nitro_vendor import NitroVendor

INIT_DATA = 'version = "0.1.0"\nalgorithm = "sha384"\n[data]\n"a" = "b"\n'
NONCE = base64.b64encode(bytes(32)).decode()
KEY = {"kty": "EC", "crv": "P-256", "alg": "ECDH-ES+A256KW", "x": "AA", "y": "AA"}


@pytest.fixture(scope="module")
def intel() -> IntelVendor:
    return IntelVendor.create()


@pytest.fixture(scope="module")
def nitro() -> NitroVendor:
    return NitroVendor.create(NOW)


@pytest.fixture
def config(tmp_path: Path, intel: IntelVendor, nitro: NitroVendor) -> Attestation:
    """Both vendors as local roots, and Intel's collateral for both TEEs in the cache."""
    (tmp_path / "our-intel.der").write_bytes(intel.root_der)
    (tmp_path / "our-aws.pem").write_bytes(nitro.path[0].certificate.public_bytes(Encoding.PEM))
    cache = CollateralCache(tmp_path / "cache", intel.anchors)
    for tee in ("tdx", "sgx"):
        cache.put(Piece(f"intel/{tee}/{FMSPC}/platform", intel.collateral(tee), NOW))
    return Attestation(
        collateral_cache=tmp_path / "cache",
        intel_roots=(tmp_path / "our-intel.der",),
        nitro_roots=(tmp_path / "our-aws.pem",),
    )


def request(evidence: object, init_data: str | None = None) -> AttestRequest:
    body: dict[str, Any] = {
        "runtime-data": {"nonce": NONCE, "tee-pubkey": KEY},
        "tee-evidence": {"primary_evidence": evidence, "additional_evidence": ""},
    }
    if init_data is not None:
        body["init-data"] = {"format": "toml", "body": init_data}
    return AttestRequest.parse(json.dumps(body).encode(), 1 << 20)


BOUND = request({}).report_data()


def quoted(data: bytes) -> dict[str, Any]:
    return {"quote": base64.b64encode(data).decode(), "cc_eventlog": None}


def documented(data: bytes) -> dict[str, str]:
    return {"document": base64.b64encode(data).decode()}


def reason_of(call: Callable[[], object]) -> str:
    with pytest.raises(AttestationRefused) as caught:
        call()
    return caught.value.problem.reason


def test_each_tee_is_appraised_by_its_name(config: Attestation, intel: IntelVendor, nitro: NitroVendor) -> None:
    appraiser = Appraiser(config)
    evidence = {
        "tdx": quoted(intel.quote(td_body(report_data=BOUND))),
        "sgx": quoted(intel.quote(enclave_body(report_data=BOUND), 3)),
        "nitro": documented(nitro.document(nonce=BOUND)),
    }
    roots = {"tdx": "local:our-intel", "sgx": "local:our-intel", "nitro": "local:our-aws"}
    assert set(evidence) < set(SUPPORTED_TEES)
    for tee, sent in evidence.items():
        appraised = appraiser.appraise(tee, request(sent), NOW)
        claims = rule_claims(appraised.submod)
        assert claims["tee"] == tee
        assert claims["root"] == roots[tee]
        assert claims[tee]["report_data"].startswith(BOUND.hex())
        for other in set(evidence) - {tee}:
            assert reason_of(lambda sent=sent, other=other: appraiser.appraise(other, request(sent), NOW)) in {
                "TeeMismatch",
                "EvidenceMalformed",
            }
    assert {"local:our-intel", "local:our-aws", "intel", "aws", "amd"} <= set(appraiser.anchors)


def test_evidence_answers_the_challenge_and_the_key(
    config: Attestation, intel: IntelVendor, nitro: NitroVendor
) -> None:
    appraiser = Appraiser(config)
    for tee, sent in (
        ("tdx", quoted(intel.quote(td_body()))),
        ("sgx", quoted(intel.quote(enclave_body(), 3))),
        ("nitro", documented(nitro.document())),
    ):
        assert reason_of(lambda tee=tee, sent=sent: appraiser.appraise(tee, request(sent), NOW)) == "NonceMismatch"


def test_init_data_is_bound_where_the_tee_has_a_field(
    config: Attestation, intel: IntelVendor, nitro: NitroVendor
) -> None:
    appraiser, digest = Appraiser(config), init_data_digest(INIT_DATA)
    td = quoted(intel.quote(td_body(report_data=BOUND, config_id=digest)))
    told = rule_claims(appraiser.appraise("tdx", request(td, INIT_DATA), NOW).submod)
    assert told["init_data"] == digest.hex()
    enclave = quoted(intel.quote(enclave_body(report_data=BOUND, config_id=digest, flags=0x85), 3))
    told = rule_claims(appraiser.appraise("sgx", request(enclave, INIT_DATA), NOW).submod)
    assert told["init_data"] == digest.ljust(64, b"\0").hex()
    for tee, sent, reason in (
        ("tdx", quoted(intel.quote(td_body(report_data=BOUND))), "HostDataMismatch"),
        ("sgx", quoted(intel.quote(enclave_body(report_data=BOUND), 3)), "HostDataMismatch"),
        ("nitro", documented(nitro.document(nonce=BOUND)), "InitDataUnsupported"),
    ):
        sent_with = request(sent, INIT_DATA)
        assert reason_of(lambda tee=tee, sent_with=sent_with: appraiser.appraise(tee, sent_with, NOW)) == reason


@pytest.mark.parametrize("name", ["CCEL_data_ovmf", "CCEL_data_grub", "CCEL_data_grub_gke"])
def test_an_event_log_is_believed_as_far_as_the_rtmrs_bear_it_out(
    config: Attestation, intel: IntelVendor, name: str
) -> None:
    log = (SHARED / "vectors" / "eventlog" / name).read_bytes()
    replayed = replay(parse_log(log), SHA384)
    rtmrs = [replayed.get(index, bytes(48)) for index in range(1, 5)]
    appraiser = Appraiser(config)

    def appraise(registers: list[bytes], log: bytes) -> dict[str, Any]:
        sent = quoted(intel.quote(td_body(report_data=BOUND, rtmrs=registers)))
        sent["cc_eventlog"] = base64.b64encode(log).decode()
        told = rule_claims(appraiser.appraise("tdx", request(sent), NOW).submod)["tdx"]
        assert isinstance(told, dict)
        return told

    boot = appraise(rtmrs, log)["boot"]
    assert boot["secure_boot_proven"]
    assert len(boot["kernel_cmdline"]) == 1
    assert len(boot["initrd"]) == 1
    assert len(json.dumps(boot)) < 8192  # it travels in the token
    for wrong in ([bytes(48), *rtmrs[1:]], [*rtmrs[:3], b"\1" * 48]):
        assert reason_of(lambda wrong=wrong: appraise(wrong, log)) == "EventLogMismatch"
    assert reason_of(lambda: appraise(rtmrs, log[:200])) == "EventLogMalformed"
    rule = f"claims.tdx.mrtd == '{'11' * 48}' && claims.init_data == '{'00' * 48}' && claims.tdx.boot.kernel_cmdline[0].digest == '{boot['kernel_cmdline'][0]['digest']}'"
    claims = {"tdx": appraise(rtmrs, log), "init_data": "00" * 48}
    assert evaluate(rule, {"claims": claims, "request": {}, "now": NOW}).allowed


def test_collateral_is_taken_up_while_the_service_runs(config: Attestation, intel: IntelVendor, tmp_path: Path) -> None:
    empty = config.model_copy(update={"collateral_cache": tmp_path / "later"})
    appraiser = Appraiser(empty)
    sent = request(quoted(intel.quote(td_body(report_data=BOUND))))
    assert reason_of(lambda: appraiser.appraise("tdx", sent, NOW)) == "CollateralMissing"
    cache = CollateralCache(tmp_path / "later", intel.anchors)
    cache.put(Piece(f"intel/tdx/{FMSPC}/platform", intel.collateral(), NOW))
    assert isinstance(appraiser.appraise("tdx", sent, NOW), Appraised)
    month = NOW + timedelta(days=31)
    assert reason_of(lambda: appraiser.appraise("tdx", sent, month)) == "CollateralExpired"
    fresh = Levels(issued=month - timedelta(days=1), expires=month + timedelta(days=29))
    cache.put(Piece(f"intel/tdx/{FMSPC}/platform", intel.collateral("tdx", fresh), month))
    assert isinstance(appraiser.appraise("tdx", sent, month), Appraised)
    (tmp_path / "later" / "intel" / "tdx" / FMSPC / "platform.json").write_bytes(b"{}")
    cache.put(Piece(f"intel/sgx/{FMSPC}/platform", intel.collateral("sgx"), NOW))
    assert reason_of(lambda: appraiser.appraise("tdx", sent, month)) == "CollateralMissing"


def test_without_a_cache_and_without_trust_nothing_is_accepted(intel: IntelVendor, nitro: NitroVendor) -> None:
    sent = request(quoted(intel.quote(td_body(report_data=BOUND))))
    assert reason_of(lambda: Appraiser(Attestation()).appraise("tdx", sent, NOW)) == "RootUntrusted"
    nobody = Appraiser(Attestation(trust_amd=False, trust_intel=False, trust_aws_nitro=False))
    assert not {"amd", "intel", "aws"} & set(nobody.anchors)
    document = request(documented(nitro.document(nonce=BOUND)))
    assert reason_of(lambda: nobody.appraise("nitro", document, NOW)) == "RootUntrusted"
    assert reason_of(lambda: nobody.appraise("sample", document, NOW)) == "TeeUnsupported"


@pytest.mark.parametrize(
    ("change", "tee", "reason"),
    [
        ({"tdx": TdxAppraisal(minimum_evaluation_number=19)}, "tdx", "CollateralRolledBack"),
        ({"tdx": TdxAppraisal(maximum_collateral_age_days=0.5)}, "tdx", "CollateralTooOld"),
        ({"tdx": TdxAppraisal(seam_measurements=("00" * 48,))}, "tdx", "MeasurementNotAllowed"),
        ({"tdx": TdxAppraisal(accepted_statuses=("OutOfDate",))}, "tdx", "TcbStatusNotAllowed"),
        ({"sgx": SgxAppraisal(signers=("00" * 32,))}, "sgx", "EnclaveSignerNotAllowed"),
        ({"nitro": NitroAppraisal(max_age_seconds=1)}, "nitro", "DocumentTooOld"),
    ],
)
def test_what_the_configuration_demands(
    config: Attestation, intel: IntelVendor, nitro: NitroVendor, change: dict[str, Any], tee: str, reason: str
) -> None:
    appraiser = Appraiser(config.model_copy(update=change))
    evidence = {
        "tdx": quoted(intel.quote(td_body(report_data=BOUND))),
        "sgx": quoted(intel.quote(enclave_body(report_data=BOUND), 3)),
        "nitro": documented(nitro.document(nonce=BOUND)),
    }
    now = NOW + timedelta(seconds=2)
    assert reason_of(lambda: appraiser.appraise(tee, request(evidence[tee]), now)) == reason


def test_configuration_is_checked() -> None:
    with pytest.raises(ValueError, match="pattern"):
        IntelTcb(accepted_advisories=("SA-1",))
    with pytest.raises(ValueError, match="UpToDate"):
        IntelTcb.model_validate({"acceptedStatuses": ["Revoked"]})
    with pytest.raises(InvalidInput, match="48 bytes"):
        Appraiser(Attestation(tdx=TdxAppraisal(seam_measurements=("00",))))
    with pytest.raises(InvalidInput, match="not a certificate"):
        Appraiser(Attestation(nitro_roots=(Path("/nowhere"),)))


@pytest.mark.parametrize(
    ("tee", "evidence"),
    [
        ("tdx", None),
        ("tdx", {}),
        ("tdx", {"quote": 7}),
        ("tdx", {"quote": "!"}),
        ("tdx", {"quote": "A" * 60000}),
        ("sgx", {"quote": "AAAA", "surplus": 1}),
        ("nitro", {"document": "AAAA", "surplus": 1}),
        ("nitro", {"document": "A" * 60000}),
        ("nitro", {"document": "!"}),
        ("nitro", []),
    ],
)
def test_malformed_evidence(config: Attestation, tee: str, evidence: object) -> None:
    assert reason_of(lambda: Appraiser(config).appraise(tee, request(evidence), NOW)) == "EvidenceMalformed"


@pytest.mark.parametrize(
    ("rule", "claims", "allowed"),
    [
        ("claims.tdx.mrtd == 'aa' && claims.init_data == 'bb'", {"tdx": {"mrtd": "aa"}, "init_data": "bb"}, True),
        (
            "claims.tdx.mrtd == 'aa' && claims.init_data == 'bb'",
            {"snp": {"measurement": "aa"}, "init_data": "bb"},
            False,
        ),
        ("claims.sgx.mrsigner == 'aa' && claims.init_data == ''", {"sgx": {"mrsigner": "aa"}, "init_data": ""}, True),
        ("claims.nitro.pcr0 == 'aa' && claims.init_data == ''", {"nitro": {"pcr0": "aa"}, "init_data": ""}, True),
        ("claims.nitro.pcr0 == 'aa' && claims.init_data == ''", {"nitro": {"pcr0": "ab"}, "init_data": ""}, False),
    ],
)
def test_release_rules_of_other_tees(rule: str, claims: dict[str, Any], allowed: bool) -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    variables = {"claims": claims, "request": {"namespace": "a", "name": "b"}, "now": now}
    assert evaluate(rule, variables).allowed is allowed


@pytest.mark.parametrize(
    "rule",
    [
        "claims.tdx.rtmr1 == 'aa' && claims.init_data == 'bb'",
        "claims.tdx.mrtd == 'aa'",
        "claims.tdx.mrtd != '' && claims.init_data != ''",
        "claims.tee == 'nitro' && claims.init_data == '' || claims.nitro.pcr0 == 'aa'",
        "claims.sgx.tcb_status == 'UpToDate' && claims.init_data == '' || claims.sgx.mrenclave == 'aa'",
    ],
)
def test_rules_that_name_no_measurement_or_let_anybody_in(rule: str) -> None:
    with pytest.raises(PolicyInvalid):
        compile_rule(rule)
