"""TDX and SGX under every demand, with evidence of a vendor of our own: each fault has its own reason."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

from crds.errors import InvalidInput
from keymgmt.attestation import AttestationRefused
from keymgmt.attestation.collateral.freshness import FreshnessPolicy
from keymgmt.attestation.intel import (
    IntelCollateral,
    SgxPolicy,
    TcbPolicy,
    TdxClaims,
    TdxPolicy,
    verify_sgx,
    verify_tdx,
)
from tests.unit.attestation.intel_vendor import (
    CPU_SVN,
    FMSPC,
    NOW,
    REPORT_DATA,
    IntelVendor,
    Levels,
    enclave_body,
    issue,
    sgx_extension,
    sign,
    td_body,
)

DEBUG, MIGRATABLE, SEPT, PERFMON = 1 << 0, 1 << 29, 1 << 28, 1 << 63


@pytest.fixture(scope="module")
def vendor() -> IntelVendor:
    return IntelVendor.create()


def reason_of(call: Callable[[], object]) -> str:
    with pytest.raises(AttestationRefused) as caught:
        call()
    return caught.value.problem.reason


@dataclass
class Trial:
    """Verifies quotes of the vendor under a policy and levels; the shorthand of this file."""

    vendor: IntelVendor

    def tdx(
        self, body: bytes, policy: TdxPolicy | None = None, levels: Levels | None = None, version: int = 4
    ) -> TdxClaims:
        found = IntelCollateral.parse(self.vendor.collateral("tdx", levels or Levels())).authenticate(
            self.vendor.anchors
        )
        return verify_tdx(
            self.vendor.quote(body, version), found, policy or TdxPolicy(), NOW, REPORT_DATA, self.vendor.anchors
        )

    def sgx(self, body: bytes, policy: SgxPolicy | None = None) -> dict[str, Any]:
        found = IntelCollateral.parse(self.vendor.collateral("sgx")).authenticate(self.vendor.anchors)
        return verify_sgx(
            self.vendor.quote(body, 3), found, policy or SgxPolicy(), NOW, REPORT_DATA, self.vendor.anchors
        ).as_dict()


@pytest.fixture(scope="module")
def trial(vendor: IntelVendor) -> Trial:
    return Trial(vendor)


def test_all_three_versions_verify(trial: Trial) -> None:
    assert trial.tdx(td_body()).as_dict()["root"] == "local:test"
    later = trial.tdx(td_body(service_td=b""), version=5).as_dict()
    assert later["quote_version"] == 5
    assert later["mr_service_td"] == "00" * 48
    assert trial.tdx(td_body(), version=5).as_dict()["mrtd"] == "11" * 48
    assert trial.sgx(enclave_body())["mrsigner"] == "55" * 32


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (td_body(attributes=SEPT | DEBUG), "DebugAllowed"),
        (td_body(attributes=SEPT | 1 << 5), "DebugAllowed"),  # performance profiling by the host
        (td_body(attributes=SEPT | MIGRATABLE), "MigrationAllowed"),
        (td_body(service_td=b"\1"), "MigrationAllowed"),
        (td_body(attributes=0), "SeptVeEnabled"),
        (td_body(attributes=SEPT | 1 << 40), "AttributesNotAllowed"),
        (td_body(report_data=b"another"), "NonceMismatch"),
    ],
)
def test_td_protections_hold_whatever_the_policy(trial: Trial, body: bytes, reason: str) -> None:
    assert reason_of(lambda: trial.tdx(body, version=5)) == reason


@pytest.mark.parametrize("attributes", [SEPT | DEBUG, SEPT | 1 << 5, SEPT | MIGRATABLE, 0])
def test_dcap_refuses_these_tds_as_well(vendor: IntelVendor, attributes: int) -> None:
    """The protections do not hang on our own check alone, and both give the same reason."""
    from keymgmt.attestation.intel.dcap import judge

    found = IntelCollateral.parse(vendor.collateral())
    data = vendor.quote(td_body(attributes=attributes))
    told = reason_of(lambda: judge(data, found.native, vendor.root_der, NOW))
    assert told in {"DebugAllowed", "MigrationAllowed", "SeptVeEnabled"}
    assert told == reason_of(lambda: verify_tdx(data, found, TdxPolicy(), NOW, None, vendor.anchors))


def test_policy_of_attributes_and_features(trial: Trial) -> None:
    performance = td_body(attributes=SEPT | PERFMON)
    assert trial.tdx(performance).as_dict()["attributes"] == "0000001000000080"
    assert reason_of(lambda: trial.tdx(performance, TdxPolicy(accepted_attributes=SEPT))) == "AttributesNotAllowed"
    assert reason_of(lambda: trial.tdx(td_body(xfam=0x600E7), TdxPolicy(accepted_xfam=0xFF))) == "XfamNotAllowed"
    assert trial.tdx(td_body(), TdxPolicy(accepted_xfam=0xFF)).as_dict()["xfam"] == "e700000000000000"


def test_reference_values_of_a_td(trial: Trial) -> None:
    known = TdxPolicy(measurements=frozenset({b"\x11" * 48}), rtmrs={1: frozenset({b"\x31" * 48})})
    submod = trial.tdx(td_body(), known).as_ear_submod()
    assert submod["ear.trustworthiness-vector"]["executables"] == 2
    for policy, reason in (
        (TdxPolicy(measurements=frozenset({bytes(48)})), "MeasurementNotAllowed"),
        (TdxPolicy(rtmrs={1: frozenset({bytes(48)})}), "MeasurementNotAllowed"),
        (TdxPolicy(seam_measurements=frozenset()), "MeasurementNotAllowed"),
        (TdxPolicy(config_id=b"\1" * 48), "HostDataMismatch"),
    ):
        assert reason_of(lambda policy=policy: trial.tdx(td_body(), policy)) == reason
    bound = td_body(config_id=b"\1" * 48)
    assert trial.tdx(bound, TdxPolicy(config_id=b"\1" * 48)).as_dict()["mr_config_id"] == "01" * 48


@pytest.mark.parametrize(
    ("levels", "reason"),
    [
        (Levels(status="SWHardeningNeeded", advisories=("INTEL-SA-00334",)), "TcbStatusNotAllowed"),
        (Levels(status="ConfigurationNeeded"), "TcbStatusNotAllowed"),
        (Levels(status="OutOfDate"), "TcbStatusNotAllowed"),
        (Levels(qe_status="OutOfDate"), "TcbStatusNotAllowed"),
        (Levels(status="Revoked"), "TcbRevoked"),
        (Levels(qe_status="Revoked"), "TcbRevoked"),
        (Levels(advisories=("INTEL-SA-00001",)), "AdvisoryNotAllowed"),
        (Levels(minimum=bytes((4,)) + CPU_SVN[1:]), "TcbLevelUnmatched"),
        (Levels(issued=NOW + timedelta(hours=1)), "CollateralNotYetValid"),
        (Levels(issued=NOW - timedelta(days=40), expires=NOW - timedelta(days=10)), "CollateralExpired"),
        (Levels(issued=NOW - timedelta(days=200), expires=NOW - timedelta(days=101)), "CrlExpired"),
        (Levels(fmspc="00A06D080000"), "CollateralMismatch"),
    ],
)
def test_what_the_vendor_says_of_the_platform(trial: Trial, levels: Levels, reason: str) -> None:
    assert reason_of(lambda: trial.tdx(td_body(), levels=levels)) == reason


def test_statuses_and_advisories_are_accepted_by_name_only(trial: Trial) -> None:
    levels = Levels(status="SWHardeningNeeded", advisories=("INTEL-SA-00334", "INTEL-SA-00615"))
    accepted = TcbPolicy(statuses=frozenset({"UpToDate", "SWHardeningNeeded"}), advisories=frozenset(levels.advisories))
    submod = trial.tdx(td_body(), TdxPolicy(tcb=accepted), levels).as_ear_submod()
    assert submod["ear.status"] == "warning"
    assert submod["tdx"]["advisories"] == ["INTEL-SA-00334", "INTEL-SA-00615"]
    fewer = dataclasses.replace(accepted, advisories=frozenset({"INTEL-SA-00334"}))
    assert reason_of(lambda: trial.tdx(td_body(), TdxPolicy(tcb=fewer), levels)) == "AdvisoryNotAllowed"


def test_freshness_demands(trial: Trial) -> None:
    for freshness, reason in (
        (FreshnessPolicy(max_age=timedelta(hours=12)), "CollateralTooOld"),
        (FreshnessPolicy(minimum_sequence=19), "CollateralRolledBack"),
        (FreshnessPolicy(not_issued_before=NOW), "CollateralRolledBack"),
    ):
        policy = TdxPolicy(tcb=TcbPolicy(freshness=freshness))
        assert reason_of(lambda policy=policy: trial.tdx(td_body(), policy)) == reason
    satisfied = FreshnessPolicy(timedelta(days=2), 18, NOW - timedelta(days=3))
    assert trial.tdx(td_body(), TdxPolicy(tcb=TcbPolicy(freshness=satisfied))).platform.tcb.status == "UpToDate"


def test_revoked_certificates(vendor: IntelVendor) -> None:
    data = vendor.quote(td_body())
    for kind, holder in (("pck", vendor.pck), ("root", vendor.pck_ca), ("root", vendor.tcb_signer)):
        revoking = vendor.revoking(**{kind: [holder.certificate.serial_number]})
        found = IntelCollateral.parse(revoking.collateral()).authenticate(vendor.anchors)
        told = reason_of(lambda found=found: verify_tdx(data, found, TdxPolicy(), NOW, None, vendor.anchors))
        assert told == "CertificateRevoked"


def test_roots_that_are_not_pinned(vendor: IntelVendor) -> None:
    found = IntelCollateral.parse(vendor.collateral())
    assert reason_of(lambda: found.authenticate()) == "RootUntrusted"
    data = vendor.quote(td_body())
    good = found.authenticate(vendor.anchors)
    assert reason_of(lambda: verify_tdx(data, good, TdxPolicy(), NOW, None)) == "RootUntrusted"
    other = IntelVendor.create()
    both = {**vendor.anchors, **{digest: "local:other" for digest in other.anchors}}
    # Trusting two roots, the collateral of one says nothing of the other's platforms.
    foreign = IntelCollateral.parse(other.collateral()).authenticate(both)
    assert reason_of(lambda: verify_tdx(data, foreign, TdxPolicy(), NOW, None, both)) == "CollateralInvalid"


def test_certificates_of_another_issuer(vendor: IntelVendor) -> None:
    found = IntelCollateral.parse(vendor.collateral()).authenticate(vendor.anchors)
    extension = sgx_extension(bytes.fromhex(FMSPC), smt=False)
    forged = issue("Intel SGX PCK Certificate", IntelVendor.create().pck_ca, ca=False, extension=extension)
    data = vendor.quote(td_body(), pck=forged)
    told = reason_of(lambda: verify_tdx(data, found, TdxPolicy(), NOW, None, vendor.anchors))
    assert told == "CertificateChainInvalid"
    bare = issue("Intel SGX PCK Certificate", vendor.pck_ca, ca=False)
    data = vendor.quote(td_body(), pck=bare)
    assert reason_of(lambda: verify_tdx(data, found, TdxPolicy(), NOW, None, vendor.anchors)) == "CertificateMalformed"
    expired = issue(
        "Intel SGX PCK Certificate",
        vendor.pck_ca,
        ca=False,
        extension=extension,
        lifetime=(NOW - timedelta(days=9), NOW - timedelta(days=1)),
    )
    data = vendor.quote(td_body(), pck=expired)
    assert reason_of(lambda: verify_tdx(data, found, TdxPolicy(), NOW, None, vendor.anchors)) == "CertificateExpired"


def test_smt_where_the_certificate_tells() -> None:
    shared = IntelVendor.create(smt=True)
    found = IntelCollateral.parse(shared.collateral()).authenticate(shared.anchors)
    data, policy = shared.quote(td_body()), TdxPolicy(tcb=TcbPolicy(allow_smt=False))
    assert verify_tdx(data, found, TdxPolicy(), NOW, None, shared.anchors).as_dict()["platform"]["smt_enabled"] is True
    assert reason_of(lambda: verify_tdx(data, found, policy, NOW, None, shared.anchors)) == "SmtAllowed"


def test_an_old_quoting_enclave_matches_no_level(vendor: IntelVendor) -> None:
    found = IntelCollateral.parse(vendor.collateral()).authenticate(vendor.anchors)
    data = vendor.quote(td_body(), qe_isv_svn=3)
    told = reason_of(lambda: verify_tdx(data, found, TdxPolicy(), NOW, None, vendor.anchors))
    assert told == "TcbLevelUnmatched"


@pytest.mark.parametrize(
    ("part", "old", "new", "reason"),
    [
        ("qe_identity", '"mrsigner":"DC9E2A', '"mrsigner":"DC9E2B', "QuotingEnclaveInvalid"),
        ("qe_identity", '"isvprodid":2', '"isvprodid":3', "QuotingEnclaveInvalid"),
        ("qe_identity", '"miscselect":"00000000"', '"miscselect":"00000001"', "QuotingEnclaveInvalid"),
        ("qe_identity", '"attributes":"1100', '"attributes":"3100', "QuotingEnclaveInvalid"),
        ("tcb_info", '"id":"TDX_01"', '"id":"TDX_02"', "TdxModuleUnknown"),
        ("tcb_info", '"tcb":{"isvsvn":5}', '"tcb":{"isvsvn":6}', "TcbLevelUnmatched"),
        ("tcb_info", '"mrsigner":"00', '"mrsigner":"01', "TdxModuleUnknown"),
        ("tcb_info", '"pceId":"0000"', '"pceId":"0001"', "CollateralMismatch"),
    ],
)
def test_signed_collateral_that_knows_another_enclave_or_module(
    vendor: IntelVendor, part: str, old: str, new: str, reason: str
) -> None:
    document = json.loads(vendor.collateral())
    text = document[part].replace(old, new)
    assert text != document[part]
    changes = {part: text, f"{part}_signature": sign(vendor.tcb_signer.key, text.encode()).hex()}
    found = IntelCollateral.parse(json.dumps({**document, **changes}).encode()).authenticate(vendor.anchors)
    data = vendor.quote(td_body())
    assert reason_of(lambda: verify_tdx(data, found, TdxPolicy(), NOW, None, vendor.anchors)) == reason


@pytest.mark.parametrize(
    ("body", "policy", "reason"),
    [
        (enclave_body(flags=0x7), SgxPolicy(), "DebugAllowed"),
        (enclave_body(flags=0x4), SgxPolicy(), "EnclaveNotInitialised"),
        (enclave_body(flags=0x15), SgxPolicy(), "AttributesNotAllowed"),
        (enclave_body(report_data=b"x"), SgxPolicy(), "NonceMismatch"),
        (enclave_body(), SgxPolicy(measurements=frozenset()), "MeasurementNotAllowed"),
        (enclave_body(), SgxPolicy(signers=frozenset({bytes(32)})), "EnclaveSignerNotAllowed"),
        (enclave_body(), SgxPolicy(product_ids=frozenset({8})), "EnclaveSignerNotAllowed"),
        (enclave_body(), SgxPolicy(minimum_isv_svn=4), "EnclaveSvnTooOld"),
        (enclave_body(), SgxPolicy(config_id=b"\1" * 64), "HostDataMismatch"),
        (enclave_body(xfrm=0x600E7), SgxPolicy(accepted_xfrm=0xFF), "XfamNotAllowed"),
    ],
)
def test_demands_on_enclaves(trial: Trial, body: bytes, policy: SgxPolicy, reason: str) -> None:
    assert reason_of(lambda: trial.sgx(body, policy)) == reason


def test_an_enclave_that_meets_them(trial: Trial) -> None:
    policy = SgxPolicy(
        measurements=frozenset({b"\x44" * 32}),
        signers=frozenset({b"\x55" * 32}),
        product_ids=frozenset({7}),
        minimum_isv_svn=3,
        accepted_xfrm=0xFF,
    )
    assert trial.sgx(enclave_body(), policy)["isv_svn"] == 3


def test_a_time_without_a_zone_is_a_mistake_of_the_caller(vendor: IntelVendor) -> None:
    found = IntelCollateral.parse(vendor.collateral()).authenticate(vendor.anchors)
    with pytest.raises(InvalidInput, match="zone"):
        verify_tdx(vendor.quote(td_body()), found, TdxPolicy(), NOW.replace(tzinfo=None), None, vendor.anchors)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda data: data[:100], "QuoteMalformed"),
        (lambda data: b"", "QuoteMalformed"),
        (lambda data: data + b"\1", "QuoteMalformed"),
        (lambda data: data + bytes(40000), "QuoteMalformed"),
        (lambda data: b"\6\0" + data[2:], "QuoteVersionUnsupported"),
        (lambda data: data[:2] + b"\3\0" + data[4:], "SignatureAlgorithmUnsupported"),
        (lambda data: b"\3\0" + data[2:], "QuoteMalformed"),
        (lambda data: data[:4] + b"\x82" + data[5:], "QuoteMalformed"),
        (lambda data: data[:632] + b"\xff\xff\xff\xff" + data[636:], "QuoteMalformed"),
        (lambda data: data[:764] + b"\5\0" + data[766:], "CertificateMissing"),
    ],
)
def test_malformed_quotes(vendor: IntelVendor, change: Callable[[bytes], bytes], reason: str) -> None:
    found = IntelCollateral.parse(vendor.collateral()).authenticate(vendor.anchors)
    data = change(vendor.quote(td_body()))
    assert reason_of(lambda: verify_tdx(data, found, TdxPolicy(), NOW, None, vendor.anchors)) == reason


def test_padding_of_zeros_after_the_quote_is_taken(vendor: IntelVendor, trial: Trial) -> None:
    found = IntelCollateral.parse(vendor.collateral()).authenticate(vendor.anchors)
    data = vendor.quote(td_body()) + bytes(3000)
    assert verify_tdx(data, found, TdxPolicy(), NOW, REPORT_DATA, vendor.anchors).report.report_data[:48] == REPORT_DATA


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"tcb_info": 7}, "CollateralMalformed"),
        ({"tcb_info": "[]"}, "CollateralMalformed"),
        ({"pck_crl": "zz"}, "CollateralMalformed"),
        ({"pck_crl": "00"}, "CollateralMalformed"),
        ({"surplus": "x"}, "CollateralMalformed"),
        ({"tcb_info": '{"id":"TDX","id":"SGX"}'}, "CollateralMalformed"),
        ({"tcb_info": '{"id":"TDX","version":2}'}, "CollateralMalformed"),
        ({"qe_identity": '{"id":"QE","version":2}'}, "CollateralMismatch"),
    ],
)
def test_malformed_collateral(vendor: IntelVendor, changes: dict[str, Any], reason: str) -> None:
    assert reason_of(lambda: IntelCollateral.parse(vendor.collateral(**changes))) == reason
