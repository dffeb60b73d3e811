"""The SEV-SNP verifier: a report, its certificates, a policy and a time in; claims or a refusal out.

Pure: no clock, no network, no state but the memory of verified chains in TrustRoots.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from crds.errors import InvalidInput
from keymgmt.attestation import ear
from keymgmt.attestation.certificates import Signer, SigningCertificate
from keymgmt.attestation.chain import check_revocation, check_validity
from keymgmt.attestation.policy import SnpPolicy, appraise
from keymgmt.attestation.refusal import refuse
from keymgmt.attestation.report import ECDSA_P384_SHA384, Product, SnpReport, Tcb, parse_report
from keymgmt.attestation.roots import TrustRoots


@dataclass(frozen=True, slots=True)
class SnpClaims:
    """What an accepted report proves. Byte fields are raw; `as_dict` gives the claim form."""

    report: SnpReport
    product: Product
    signer: Signer
    root: str  # "amd" or "local:<name>"
    csp_id: str | None
    measurement_known: bool  # the policy listed measurements and this is one of them

    @property
    def tcb(self) -> Tcb:
        """The TCB that the signing key is bound to."""
        return Tcb.decode(self.report.reported_tcb, self.product)

    def as_dict(self) -> dict[str, Any]:
        """Claims as CEL rules and tokens see them (`claims.snp`); bytes in lower-case hex."""
        report = self.report
        claims: dict[str, Any] = {
            "measurement": report.measurement.hex(),
            "host_data": report.host_data.hex(),
            "report_data": report.report_data.hex(),
            "vmpl": report.vmpl,
            "debug": report.policy.debug,
            "migrate_ma": report.policy.migrate_ma,
            "smt": report.policy.smt,
            "policy": report.policy.as_dict(),
            "platform": report.platform.as_dict(),
            "tcb": self.tcb.as_dict(),
            "launch_tcb": Tcb.decode(report.launch_tcb, self.product).as_dict(),
            "committed_tcb": Tcb.decode(report.committed_tcb, self.product).as_dict(),
            "firmware": str(report.committed_firmware),
            "guest_svn": report.guest_svn,
            "family_id": report.family_id.hex(),
            "image_id": report.image_id.hex(),
            "id_key_digest": report.id_key_digest.hex(),
            "author_key_digest": report.author_key_digest.hex() if report.author_key_enabled else "",
            "report_id": report.report_id.hex(),
            "chip_id": report.chip_id.hex(),
            "product": self.product,
            "report_version": report.version,
            "signer": self.signer,
            "root": self.root,
        }
        return claims if self.csp_id is None else {**claims, "csp_id": self.csp_id}

    def as_ear_submod(self) -> dict[str, Any]:
        """The EAR submod (`cpu0`): status, trustworthiness vector, policy id, and `snp`, `root` claims."""
        vector = ear.snp_vector(debug=self.report.policy.debug, measurement_known=self.measurement_known)
        return {
            "ear.status": ear.status(vector),
            "ear.trustworthiness-vector": vector,
            "ear.appraisal-policy-id": ear.SNP_POLICY_ID,
            "snp": self.as_dict(),
            "root": self.root,
        }


def verify_snp(
    report: bytes,
    certificates: Sequence[bytes],
    roots: TrustRoots,
    policy: SnpPolicy,
    now: datetime,
    expected_report_data: bytes | None,
) -> SnpClaims:
    """Verify a raw report (1184 bytes) and appraise it.

    `certificates`: VCEK or VLEK and optionally ASK/ASVK and ARK, each DER or PEM, in any
    order. `now` must be aware of its zone. `expected_report_data` (at most 64 bytes, padded
    with zeros) is compared when given. Raises AttestationRefused; see refusal.REASONS.

    Comparisons of report and certificate come before the signatures: they cost little and
    name the fault better. No claim leaves this function unless all checks passed.
    """
    if now.tzinfo is None:
        raise InvalidInput("the time of verification has no zone", where="now")
    parsed = parse_report(report)
    if parsed.signature_algorithm != ECDSA_P384_SHA384:
        raise refuse("SignatureAlgorithmUnsupported")
    if parsed.chip_key_masked or parsed.signing_key == 7:
        raise refuse("ReportUnsigned", fix="let the host clear MASK_CHIP_KEY")
    chain = roots.chain_for(parsed, certificates)
    product = parsed.product or chain.leaf.product
    _match(parsed, chain.leaf, product, policy)
    check_validity(chain, now)
    check_revocation(chain, roots.crls, now, policy.require_crl)
    _verify_signature(parsed, chain.leaf.key)
    if expected_report_data is not None and not hmac.compare_digest(
        parsed.report_data, expected_report_data.ljust(64, b"\0")
    ):
        raise refuse("NonceMismatch", where="report_data", fix="answer the challenge of this session")
    if chain.leaf.signer not in policy.signers:
        raise refuse("SignerNotAllowed", f"{chain.leaf.signer} is not accepted", where="key_info")
    if chain.leaf.signer == "vlek" and policy.csp_ids is not None and chain.leaf.csp_id not in policy.csp_ids:
        raise refuse("SignerNotAllowed", f"cloud provider {chain.leaf.csp_id} is not accepted", where="csp_id")
    appraise(parsed, product, policy)
    return SnpClaims(
        report=parsed,
        product=product,
        signer=chain.leaf.signer,
        root=chain.root_label,
        csp_id=chain.leaf.csp_id,
        measurement_known=policy.measurements is not None,
    )


def _match(report: SnpReport, leaf: SigningCertificate, product: Product, policy: SnpPolicy) -> None:
    """The certificate must have been issued for this product, this TCB and (VCEK) this chip."""
    if leaf.product != product:
        raise refuse("ProductMismatch", f"report: {product}, certificate: {leaf.product}", where="cpuid")
    if leaf.hardware_id is not None and leaf.hardware_id != report.chip_id:
        masked = not any(report.chip_id)
        if not (masked and policy.allow_masked_chip_id):
            fix = "let the host clear MASK_CHIP_ID" if masked else "send the VCEK of this host"
            raise refuse("ChipIdMismatch", where="chip_id", fix=fix)
    reported = Tcb.decode(report.reported_tcb, product)
    if reported != leaf.tcb:
        raise refuse(
            "TcbMismatch",
            f"report: {reported.as_dict()}, certificate: {leaf.tcb.as_dict()}",
            where="reported_tcb",
            fix="fetch the VCEK for the present TCB",
        )


def _verify_signature(report: SnpReport, key: ec.EllipticCurvePublicKey) -> None:
    if not report.r or not report.s:
        raise refuse("SignatureInvalid")
    try:
        key.verify(encode_dss_signature(report.r, report.s), report.signed, ec.ECDSA(hashes.SHA384()))
    except InvalidSignature:
        raise refuse("SignatureInvalid") from None
