"""The TDX and SGX verifiers: a quote, collateral, trusted roots, a policy and a time in; claims or a refusal out."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from crds.errors import InvalidInput
from keymgmt.attestation import ear
from keymgmt.attestation.intel.boot_log import boot_of
from keymgmt.attestation.intel.dcap import TcbVerdict, judge
from keymgmt.attestation.intel.endorsements import (
    BUILTIN_ANCHORS,
    CollateralSource,
    IntelAnchors,
    IntelCollateral,
)
from keymgmt.attestation.intel.pck import PckChain, read_pck_chain
from keymgmt.attestation.intel.policy import (
    SGX_DEBUG,
    TD_SEPT_VE_DISABLE,
    TD_UNDER_DEBUG,
    SgxPolicy,
    TcbPolicy,
    TdxPolicy,
    appraise_enclave,
    appraise_tcb,
    appraise_td,
    check_enclave_protections,
    check_td_protections,
)
from keymgmt.attestation.intel.quote import EnclaveReport, Quote, TdReport, Tee, parse_quote
from keymgmt.attestation.refusal import refuse

TDX_POLICY_ID: Final = "urn:kekkai:appraisal:intel-tdx:v1"
SGX_POLICY_ID: Final = "urn:kekkai:appraisal:intel-sgx:v1"


@dataclass(frozen=True, slots=True)
class PlatformClaims:
    """What the quote's signatures and the collateral prove of the platform, for TDs and enclaves alike."""

    quote_version: int
    tcb: TcbVerdict
    pck: PckChain
    collateral: IntelCollateral
    root: str  # "intel" or "local:<name>"

    def as_dict(self) -> dict[str, Any]:
        """Claim form; bytes in lower-case hex."""
        instance = self.pck.platform_instance_id
        return {
            "tcb_status": self.tcb.status,
            "advisories": list(self.tcb.advisories),
            "tcb_evaluation_number": self.collateral.tcb_info.sequence,
            "fmspc": self.pck.fmspc.lower(),
            "pce_id": self.pck.pce_id.lower(),
            "pck_ca": self.pck.ca,
            "ppid": self.pck.ppid.hex(),
            "platform_instance_id": "" if instance is None else instance.hex(),
            "platform": dict(self.pck.configuration),
            "quote_version": self.quote_version,
            "root": self.root,
        }

    def vector(self, measurement_known: bool) -> dict[str, int]:
        """The EAR trustworthiness vector."""
        status = self.tcb.status
        return ear.tee_vector(
            measurement_known=measurement_known,
            up_to_date=status == "UpToDate",
            configured="Configuration" not in status and "Relaunch" not in status,
        )


@dataclass(frozen=True, slots=True)
class TdxClaims:
    """What an accepted TD quote proves. `as_dict` gives the claim form."""

    report: TdReport
    platform: PlatformClaims
    measurement_known: bool  # the policy listed MRTDs and this is one of them
    boot: Mapping[str, Any] | None = None  # of the event log, where one was sent; see boot_log

    def as_dict(self) -> dict[str, Any]:
        """Claims as CEL rules and tokens see them (`claims.tdx`); bytes and bit sets in lower-case hex."""
        body = self.report
        claims: dict[str, Any] = {
            "mrtd": body.mr_td.hex(),
            **{f"rtmr{index}": value.hex() for index, value in enumerate(body.rtmrs)},
            "mr_config_id": body.mr_config_id.hex(),
            "mr_owner": body.mr_owner.hex(),
            "mr_owner_config": body.mr_owner_config.hex(),
            "mr_seam": body.mr_seam.hex(),
            "mr_signer_seam": body.mr_signer_seam.hex(),
            "report_data": body.report_data.hex(),
            "attributes": body.attributes.to_bytes(8, "little").hex(),
            "debug": bool(body.attributes & TD_UNDER_DEBUG),
            "sept_ve_disable": bool(body.attributes & TD_SEPT_VE_DISABLE),
            "xfam": body.xfam.to_bytes(8, "little").hex(),
            "tee_tcb_svn": body.tee_tcb_svn.hex(),
            **self.platform.as_dict(),
        }
        if body.tee_tcb_svn2 is not None and body.mr_service_td is not None:
            claims |= {"tee_tcb_svn2": body.tee_tcb_svn2.hex(), "mr_service_td": body.mr_service_td.hex()}
        return claims if self.boot is None else {**claims, "boot": dict(self.boot)}

    def as_ear_submod(self) -> dict[str, Any]:
        """The EAR submod (`cpu0`): status, trustworthiness vector, policy id, and `tdx`, `root` claims."""
        return _submod("tdx", self.as_dict(), self.platform.vector(self.measurement_known), TDX_POLICY_ID)


@dataclass(frozen=True, slots=True)
class SgxClaims:
    """What an accepted enclave quote proves. `as_dict` gives the claim form."""

    report: EnclaveReport
    platform: PlatformClaims
    measurement_known: bool  # the policy listed MRENCLAVEs or MRSIGNERs, and this is one of them

    def as_dict(self) -> dict[str, Any]:
        """Claims as CEL rules and tokens see them (`claims.sgx`); bytes and bit sets in lower-case hex."""
        body = self.report
        return {
            "mrenclave": body.mr_enclave.hex(),
            "mrsigner": body.mr_signer.hex(),
            "isv_prod_id": body.isv_prod_id,
            "isv_svn": body.isv_svn,
            "config_id": body.config_id.hex(),
            "config_svn": body.config_svn,
            "isv_ext_prod_id": body.isv_ext_prod_id.hex(),
            "isv_family_id": body.isv_family_id.hex(),
            "report_data": body.report_data.hex(),
            "attributes": body.flags.to_bytes(8, "little").hex(),
            "debug": bool(body.flags & SGX_DEBUG),
            "xfrm": body.xfrm.to_bytes(8, "little").hex(),
            "misc_select": body.misc_select,
            "cpu_svn": body.cpu_svn.hex(),
            **self.platform.as_dict(),
        }

    def as_ear_submod(self) -> dict[str, Any]:
        """The EAR submod (`cpu0`): status, trustworthiness vector, policy id, and `sgx`, `root` claims."""
        return _submod("sgx", self.as_dict(), self.platform.vector(self.measurement_known), SGX_POLICY_ID)


def verify_tdx(
    quote: bytes,
    collateral: CollateralSource,
    policy: TdxPolicy,
    now: datetime,
    expected_report_data: bytes | None,
    anchors: IntelAnchors = BUILTIN_ANCHORS,
    event_log: bytes | None = None,
) -> TdxClaims:
    """Verify a TD quote (versions 4 and 5) and appraise it, and its CCEL event log if given.

    `collateral` must have been authenticated under the quote's root. `now` must be aware of its
    zone. `expected_report_data` (at most 64 bytes, padded with zeros) is compared when given.
    Raises AttestationRefused; see refusal.REASONS. Checks that cost little and name the fault
    better come first; no claim leaves this function unless all have passed.
    """
    parsed = _parse(quote, "tdx", now)
    body = parsed.body
    assert isinstance(body, TdReport)
    check_td_protections(body, policy.accepted_attributes)
    platform = _platform(parsed, collateral, policy.tcb, now, anchors)
    _check_report_data(body.report_data, expected_report_data)
    appraise_td(body, policy)
    boot = None if event_log is None else boot_of(event_log, body)
    return TdxClaims(body, platform, policy.measurements is not None, boot)


def verify_sgx(
    quote: bytes,
    collateral: CollateralSource,
    policy: SgxPolicy,
    now: datetime,
    expected_report_data: bytes | None,
    anchors: IntelAnchors = BUILTIN_ANCHORS,
) -> SgxClaims:
    """Verify an enclave's quote (version 3) and appraise it; otherwise as `verify_tdx`."""
    parsed = _parse(quote, "sgx", now)
    body = parsed.body
    assert isinstance(body, EnclaveReport)
    check_enclave_protections(body, policy.accepted_flags)
    platform = _platform(parsed, collateral, policy.tcb, now, anchors)
    _check_report_data(body.report_data, expected_report_data)
    appraise_enclave(body, policy)
    return SgxClaims(body, platform, policy.measurements is not None or policy.signers is not None)


def _parse(quote: bytes, tee: Tee, now: datetime) -> Quote:
    if now.tzinfo is None:
        raise InvalidInput("the time of verification has no zone", where="now")
    parsed = parse_quote(quote)
    if parsed.tee != tee:
        raise refuse("TeeMismatch", f"a quote of {parsed.tee} where {tee} is expected", where="quote.tee_type")
    return parsed


def _platform(
    quote: Quote, source: CollateralSource, policy: TcbPolicy, now: datetime, anchors: Mapping[str, str]
) -> PlatformClaims:
    pck = read_pck_chain(quote.pck_chain)
    root = anchors.get(pck.root_sha256)
    if root is None:
        raise refuse("RootUntrusted", f"root with SHA-256 {pck.root_sha256} is not pinned", where="PCK")
    pck.check_validity(now)
    collateral = source.for_platform(quote.tee, pck.fmspc, pck.ca)
    if collateral.pce_id != pck.pce_id:  # dcap-qvl compares the FMSPC alone
        raise refuse("CollateralMismatch", f"PCE id {pck.pce_id}, collateral {collateral.pce_id}", where="pce_id")
    if collateral.root != root:
        raise refuse("CollateralInvalid", "the collateral was not authenticated under the quote's root", where="root")
    collateral.check_freshness(now, policy.freshness)
    verdict = judge(quote.raw, collateral.native, pck.root_der, now)
    appraise_tcb(verdict, policy, pck.configuration.get("smt_enabled"))
    return PlatformClaims(quote.version, verdict, pck, collateral, root)


def _check_report_data(stated: bytes, expected: bytes | None) -> None:
    if expected is not None and not hmac.compare_digest(stated, expected.ljust(64, b"\0")):
        raise refuse("NonceMismatch", where="report_data", fix="answer the challenge of this session")


def _submod(tee: Tee, claims: dict[str, Any], vector: dict[str, int], policy_id: str) -> dict[str, Any]:
    return {
        "ear.status": ear.status(vector),
        "ear.trustworthiness-vector": vector,
        "ear.appraisal-policy-id": policy_id,
        tee: claims,
        "root": claims["root"],
    }
