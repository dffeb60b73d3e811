"""What a verifier demands of every SNP guest before any release policy is looked at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from keymgmt.attestation.refusal import refuse
from keymgmt.attestation.report import PRODUCTS, Product, SnpReport, Tcb


@dataclass(frozen=True, slots=True)
class SnpPolicy:
    """Appraisal policy for reports; the defaults are those of production.

    `minimum_tcb` holds for every product, `minimum_tcb_of` adds to it per product, since
    microcode levels of different products cannot be compared. Digests and measurements are
    48 raw bytes; None means that the field is not looked at here.
    """

    allow_debug: bool = False
    allow_migration: bool = False
    allow_smt: bool = True
    allowed_vmpls: frozenset[int] = frozenset({0})
    allow_masked_chip_id: bool = False
    products: frozenset[str] = frozenset(PRODUCTS)
    signers: frozenset[str] = frozenset({"vcek", "vlek"})
    csp_ids: frozenset[str] | None = None  # CSP_ID of the VLEK certificate
    minimum_tcb: Tcb = field(default_factory=Tcb)
    minimum_tcb_of: Mapping[str, Tcb] = field(default_factory=dict)
    minimum_launch_tcb: Tcb = field(default_factory=Tcb)
    minimum_firmware: tuple[int, int, int] = (0, 0, 0)  # committed firmware: major, minor, build
    minimum_guest_svn: int = 0
    minimum_report_version: int = 2
    # Names of GuestPolicy flags that must be set, such as "single_socket", "ciphertext_hiding".
    required_guest_policy: frozenset[str] = frozenset()
    require_alias_check: bool = False
    require_crl: bool = False
    author_keys: frozenset[bytes] | None = None
    id_keys: frozenset[bytes] | None = None
    measurements: frozenset[bytes] | None = None
    host_data: bytes | None = None  # 32 bytes


def appraise(report: SnpReport, product: Product, policy: SnpPolicy) -> None:
    """Hold an authentic report against the policy. Raises the refusal of the first demand it misses."""
    if report.policy.debug and not policy.allow_debug:
        raise refuse("DebugAllowed", where="policy.DEBUG", fix="launch the guest with guest policy bit 19 clear")
    if report.policy.migrate_ma and not policy.allow_migration:
        raise refuse("MigrationAllowed", where="policy.MIGRATE_MA", fix="launch with guest policy bit 18 clear")
    if report.policy.smt and not policy.allow_smt:
        raise refuse("SmtAllowed", where="policy.SMT", fix="launch with guest policy bit 16 clear")
    if report.vmpl not in policy.allowed_vmpls:
        raise refuse("VmplNotAllowed", f"VMPL {report.vmpl} is not accepted", where="vmpl")
    if product not in policy.products:
        raise refuse("ProductNotAllowed", f"{product} is not accepted", where="cpuid")
    if report.version < policy.minimum_report_version:
        raise refuse("ReportVersionUnsupported", f"version {report.version} is older than the policy accepts")
    _appraise_levels(report, product, policy)
    _appraise_protections(report, policy)
    _appraise_identity(report, policy)


def _appraise_levels(report: SnpReport, product: Product, policy: SnpPolicy) -> None:
    reported = Tcb.decode(report.reported_tcb, product)
    for minimum in (policy.minimum_tcb, policy.minimum_tcb_of.get(product, Tcb())):
        if not reported.reaches(minimum):
            raise refuse(
                "TcbTooOld",
                f"reported TCB {reported.as_dict()} is below {minimum.as_dict()}",
                where="reported_tcb",
                fix="update the host's firmware and microcode",
            )
    launch = Tcb.decode(report.launch_tcb, product)
    if not launch.reaches(policy.minimum_launch_tcb):
        raise refuse(
            "TcbTooOld",
            f"launch TCB {launch.as_dict()} is below {policy.minimum_launch_tcb.as_dict()}",
            where="launch_tcb",
            fix="start the guest again on the updated host",
        )
    if report.committed_firmware.ordinal < policy.minimum_firmware:
        raise refuse("FirmwareTooOld", f"committed firmware is {report.committed_firmware}", where="committed")
    if report.guest_svn < policy.minimum_guest_svn:
        raise refuse("GuestSvnTooOld", f"guest SVN is {report.guest_svn}", where="guest_svn")


def _appraise_protections(report: SnpReport, policy: SnpPolicy) -> None:
    flags = report.policy.as_dict()
    missing = sorted(name for name in policy.required_guest_policy if not flags.get(name, False))
    if missing:
        raise refuse("GuestPolicyTooWeak", f"guest policy lacks {', '.join(missing)}", where="policy")
    if policy.require_alias_check and not (report.version >= 3 and report.platform.alias_check_complete):
        raise refuse("GuestPolicyTooWeak", "the platform did not complete its alias check", where="platform_info")


def _appraise_identity(report: SnpReport, policy: SnpPolicy) -> None:
    author = report.author_key_digest if report.author_key_enabled else None
    if policy.author_keys is not None and author not in policy.author_keys:
        raise refuse("AuthorKeyNotAllowed", where="author_key_digest")
    if policy.id_keys is not None and report.id_key_digest not in policy.id_keys:
        raise refuse("IdKeyNotAllowed", where="id_key_digest")
    if policy.measurements is not None and report.measurement not in policy.measurements:
        raise refuse("MeasurementNotAllowed", where="measurement")
    if policy.host_data is not None and report.host_data != policy.host_data:
        raise refuse("HostDataMismatch", where="host_data")
