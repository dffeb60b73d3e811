"""What a verifier demands of every TD and enclave before any release policy is looked at.

Debugging, profiling, migration and a missing SEPT_VE_DISABLE are refused whatever the policy:
each lets the host see or steer the guest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from keymgmt.attestation.collateral.freshness import FreshnessPolicy
from keymgmt.attestation.intel.dcap import TcbVerdict
from keymgmt.attestation.intel.quote import EnclaveReport, TdReport
from keymgmt.attestation.refusal import refuse

# TDATTRIBUTES (Intel TDX Module ABI specification): bits 0 to 7 are the TD-under-debug group.
TD_UNDER_DEBUG: Final = 0xFF
TD_LASS: Final = 1 << 27
TD_SEPT_VE_DISABLE: Final = 1 << 28
TD_MIGRATABLE: Final = 1 << 29
TD_PKS: Final = 1 << 30
TD_KEY_LOCKER: Final = 1 << 31
TD_PERFMON: Final = 1 << 63
TD_ACCEPTED: Final = TD_LASS | TD_SEPT_VE_DISABLE | TD_PKS | TD_KEY_LOCKER | TD_PERFMON

# ATTRIBUTES.FLAGS of an enclave (Intel SDM volume 3D, SECS).
SGX_INIT: Final = 1 << 0
SGX_DEBUG: Final = 1 << 1
SGX_MODE64: Final = 1 << 2
SGX_CET: Final = 1 << 6
SGX_KSS: Final = 1 << 7
SGX_AEX_NOTIFY: Final = 1 << 10
SGX_ACCEPTED: Final = SGX_INIT | SGX_MODE64 | SGX_CET | SGX_KSS | SGX_AEX_NOTIFY


@dataclass(frozen=True, slots=True)
class TcbPolicy:
    """Which TCB statuses and advisories (INTEL-SA-…) are accepted; the defaults are those of production.

    Accepting a status other than UpToDate means to name its advisories too: one that Intel
    publishes later is refused until somebody has looked at it. None accepts any advisory.
    """

    statuses: frozenset[str] = frozenset({"UpToDate"})
    advisories: frozenset[str] | None = frozenset()
    freshness: FreshnessPolicy = field(default_factory=FreshnessPolicy)
    allow_smt: bool = True


@dataclass(frozen=True, slots=True)
class TdxPolicy:
    """Appraisal policy for TDs. Registers are 48 raw bytes; None or a missing key is not looked at here."""

    tcb: TcbPolicy = field(default_factory=TcbPolicy)
    accepted_attributes: int = TD_ACCEPTED
    accepted_xfam: int | None = None  # bits outside it are refused
    measurements: frozenset[bytes] | None = None  # MRTD
    rtmrs: Mapping[int, frozenset[bytes]] = field(default_factory=dict)
    seam_measurements: frozenset[bytes] | None = None  # MRSEAM
    config_id: bytes | None = None  # MRCONFIGID, where init data is bound


@dataclass(frozen=True, slots=True)
class SgxPolicy:
    """Appraisal policy for enclaves. Measurements are 32 raw bytes; None is not looked at here."""

    tcb: TcbPolicy = field(default_factory=TcbPolicy)
    accepted_flags: int = SGX_ACCEPTED
    accepted_xfrm: int | None = None
    measurements: frozenset[bytes] | None = None  # MRENCLAVE
    signers: frozenset[bytes] | None = None  # MRSIGNER
    product_ids: frozenset[int] | None = None
    minimum_isv_svn: int = 0
    config_id: bytes | None = None  # 64 bytes; needs an enclave with KSS


def check_td_protections(body: TdReport, accepted: int) -> None:
    """Refuse a TD that its host may debug, profile, migrate, or surprise by #VE; attributes not accepted."""
    if body.attributes & TD_UNDER_DEBUG:
        raise refuse("DebugAllowed", where="td_attributes", fix="launch the TD without DEBUG and profiling")
    if body.attributes & TD_MIGRATABLE or (body.mr_service_td is not None and any(body.mr_service_td)):
        raise refuse("MigrationAllowed", where="td_attributes", fix="launch the TD without MIGRATABLE")
    if not body.attributes & TD_SEPT_VE_DISABLE:
        raise refuse("SeptVeEnabled", where="td_attributes", fix="launch the TD with SEPT_VE_DISABLE")
    if unknown := body.attributes & ~accepted:
        raise refuse("AttributesNotAllowed", f"bits {unknown:#x} are not accepted", where="td_attributes")


def check_enclave_protections(body: EnclaveReport, accepted: int) -> None:
    """Refuse an enclave that can be debugged, was never initialised, or has flags not accepted."""
    if body.flags & SGX_DEBUG:
        raise refuse("DebugAllowed", where="attributes", fix="build and sign the enclave without DEBUG")
    if not body.flags & SGX_INIT:
        raise refuse("EnclaveNotInitialised", where="attributes")
    if unknown := body.flags & ~accepted:
        raise refuse("AttributesNotAllowed", f"flags {unknown:#x} are not accepted", where="attributes")


def appraise_tcb(verdict: TcbVerdict, policy: TcbPolicy, smt_enabled: bool | None) -> None:
    """Hold the platform's TCB against the policy. `smt_enabled` is None where the PCK does not tell."""
    if verdict.status not in policy.statuses:
        raise refuse(
            "TcbStatusNotAllowed",
            f"the platform is {verdict.status}; {', '.join(verdict.advisories) or 'no advisories named'}",
            where="tcb",
            fix="update the host's firmware and microcode",
        )
    if policy.advisories is not None:
        open_ones = sorted(set(verdict.advisories) - policy.advisories)
        if open_ones:
            raise refuse("AdvisoryNotAllowed", f"{', '.join(open_ones)} not accepted", where="tcb")
    if smt_enabled and not policy.allow_smt:
        raise refuse("SmtAllowed", where="pck", fix="switch SMT off in the host's BIOS")


def appraise_td(body: TdReport, policy: TdxPolicy) -> None:
    """Hold an authentic TD report against the policy."""
    if policy.accepted_xfam is not None and (unknown := body.xfam & ~policy.accepted_xfam):
        raise refuse("XfamNotAllowed", f"bits {unknown:#x} are not accepted", where="xfam")
    if policy.seam_measurements is not None and body.mr_seam not in policy.seam_measurements:
        raise refuse("MeasurementNotAllowed", "the TDX module is not one of those accepted", where="mr_seam")
    if policy.measurements is not None and body.mr_td not in policy.measurements:
        raise refuse("MeasurementNotAllowed", where="mr_td")
    for index in sorted(policy.rtmrs):
        if body.rtmrs[index] not in policy.rtmrs[index]:
            raise refuse("MeasurementNotAllowed", f"RTMR{index} is not one of those accepted", where=f"rtmr{index}")
    if policy.config_id is not None and body.mr_config_id != policy.config_id:
        raise refuse("HostDataMismatch", "MRCONFIGID is not the expected init-data digest", where="mr_config_id")


def appraise_enclave(body: EnclaveReport, policy: SgxPolicy) -> None:
    """Hold an authentic enclave report against the policy."""
    if policy.accepted_xfrm is not None and (unknown := body.xfrm & ~policy.accepted_xfrm):
        raise refuse("XfamNotAllowed", f"bits {unknown:#x} are not accepted", where="xfrm")
    if policy.measurements is not None and body.mr_enclave not in policy.measurements:
        raise refuse("MeasurementNotAllowed", where="mr_enclave")
    if policy.signers is not None and body.mr_signer not in policy.signers:
        raise refuse("EnclaveSignerNotAllowed", where="mr_signer")
    if policy.product_ids is not None and body.isv_prod_id not in policy.product_ids:
        raise refuse("EnclaveSignerNotAllowed", f"product id {body.isv_prod_id} is not accepted", where="isv_prod_id")
    if body.isv_svn < policy.minimum_isv_svn:
        raise refuse("EnclaveSvnTooOld", f"ISV SVN is {body.isv_svn}", where="isv_svn")
    if policy.config_id is not None and body.config_id != policy.config_id:
        raise refuse("HostDataMismatch", "CONFIGID is not the expected init-data digest", where="config_id")
