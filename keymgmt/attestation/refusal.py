"""The one error of this package: evidence that does not convince, with a reason code of its own."""

from __future__ import annotations

from typing import Final

from crds.errors import Unauthenticated

# Every code a verifier of this package may give, with the question that it answers.
REASONS: Final[dict[str, str]] = {
    # The evidence as bytes.
    "EvidenceMalformed": "the KBS evidence is not of the expected JSON form or exceeds its bounds",
    "TeeUnsupported": "no verifier knows this kind of TEE",
    "ReportMalformed": "the report is not 1184 bytes, or a field that must be zero is not",
    "ReportVersionUnsupported": "the report's version is outside 2 to 5",
    "SignatureAlgorithmUnsupported": "the report is not signed by ECDSA P-384 with SHA-384",
    "ReportUnsigned": "the platform masks its chip key, so that the report carries no signature",
    "ProductUnsupported": "the processor is not one whose root is known here",
    "CertificateMalformed": "a certificate does not parse, or lacks what AMD's profile demands",
    # Who signed.
    "SigningKeyMismatch": "the report names another kind of signing key than the certificate at hand",
    "CertificateMissing": "neither the evidence nor the collateral holds the VCEK or VLEK certificate",
    "CertificateChainInvalid": "a certificate is not signed by the one above it",
    "RootUntrusted": "the chain ends in a root that is not pinned here",
    "CertificateNotYetValid": "a certificate's validity begins after the time of verification",
    "CertificateExpired": "a certificate's validity ended before the time of verification",
    "CertificateRevoked": "the issuer revoked a certificate of the chain",
    "RevocationUnknown": "revocation must be known and there is no current, authentic CRL",
    "ProductMismatch": "report and certificate name different processor families",
    "ChipIdMismatch": "the certificate belongs to another chip",
    "TcbMismatch": "the certificate was issued for another TCB than the report states",
    "SignatureInvalid": "the signature over the report does not verify",
    # What it says.
    "NonceMismatch": "REPORT_DATA is not the digest of this session's nonce and key",
    "HostDataMismatch": "HOST_DATA is not the expected init-data digest",
    "InitDataMalformed": "the init-data document is not valid TOML with a known hash algorithm",
    "VmplNotAllowed": "the report was asked for at a privilege level that the policy refuses",
    "DebugAllowed": "the host may debug, that is read, this guest",
    "MigrationAllowed": "a migration agent may move this guest",
    "SmtAllowed": "the guest may share a core with another by SMT, which the policy refuses",
    "GuestPolicyTooWeak": "the guest policy or the platform lacks a protection that is demanded",
    "TcbTooOld": "the platform's security patch levels are below the minimum",
    "FirmwareTooOld": "the SNP firmware's version is below the minimum",
    "GuestSvnTooOld": "the guest's security version number is below the minimum",
    "ProductNotAllowed": "the policy does not accept this processor family",
    "SignerNotAllowed": "the policy does not accept this kind of signing key or cloud provider",
    "AuthorKeyNotAllowed": "the guest's author key is not one of those accepted",
    "IdKeyNotAllowed": "the guest's identity key is not one of those accepted",
    "MeasurementNotAllowed": "the launch measurement is not one of those accepted",
}


class AttestationRefused(Unauthenticated):
    """Evidence was refused. `problem.reason` is one of REASONS; the text holds no evidence bytes."""

    reason = "EvidenceMalformed"

    def __init__(self, what: str, *, reason: str = "", where: str = "", fix: str = "") -> None:
        super().__init__(what, where=where, fix=fix, reason=reason)


def refuse(reason: str, what: str = "", *, where: str = "", fix: str = "") -> AttestationRefused:
    """Build the refusal for `reason`; its standard text is used unless `what` says more."""
    return AttestationRefused(what or REASONS[reason], reason=reason, where=where, fix=fix)
