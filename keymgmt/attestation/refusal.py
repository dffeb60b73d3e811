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
    # NVIDIA devices (SPDM measurements).
    "SpdmMalformed": "the SPDM request and response are not of the form of DSP0274, or exceed their bounds",
    "SpdmVersionUnsupported": "the SPDM messages are not of version 1.1 or do not ask for a signature over everything",
    "DeviceUnsupported": "the device's architecture is not one that is verified here",
    "ArchitectureMismatch": "the evidence names another architecture than the device's certificate",
    "CertificateUsageInvalid": "a certificate is used for what its constraints and key usage do not allow",
    "CertificateChainTooLong": "the chain has more certificates than a device's chain may have",
    "CertificateOnHold": "the issuer has put a certificate of the chain on hold",
    "FirmwareIdMismatch": "report and certificate state different firmware, or the certificate is another device's",
    "DeviceIdentityMismatch": "the device states another identity than its certificate",
    "MeasurementMismatch": "a measurement is not the one that its reference values state",
    "ReferenceValueMissing": "reference values are demanded and none match this driver and firmware",
    "DriverNotAllowed": "the policy does not accept this driver or firmware version",
    "DeviceModeNotAllowed": "the device is in a protection mode that the policy refuses",
    # Several devices in one request.
    "DeviceDuplicated": "the same device was presented twice",
    "DeviceCountExceeded": "more devices are presented than one request may have",
    "TopologyMismatch": "the devices do not state the links that devices of one machine have",
    # TPM quotes.
    "QuoteMalformed": "the quote (TPMS_ATTEST or DCAP) is not of its stated layout, or exceeds its bounds",
    "QuoteSignatureUnsupported": "the quote's signature scheme is not RSASSA, RSAPSS or ECDSA with SHA-2",
    "QuoteKeyMissing": "the runtime data holds no attestation key HCLAkPub that can be used",
    "PcrDigestMismatch": "the PCR values sent are not those that the quote vouches for",
    "PcrSelectionInvalid": "the quote does not cover the PCRs that are needed",
    "PcrNotAllowed": "a PCR's value is not one of those accepted",
    # Results of other verifiers.
    "EarMalformed": "the attestation result is not an EAR of a known profile",
    "EarExpired": "the attestation result is not valid at the time of verification",
    # Event logs.
    "EventLogMalformed": "the event log is not a TCG crypto-agile log, or exceeds its bounds",
    "EventLogAlgorithmUnsupported": "the event log lacks digests of the algorithm that is needed",
    "EventLogMismatch": "replaying the event log does not give the measured register",
    # Intel TDX and SGX.
    "QuoteVersionUnsupported": "the quote's version is not 3, 4 or 5",
    "TeeMismatch": "the evidence is of another TEE than the session was opened for",
    "QuotingEnclaveInvalid": "the quoting enclave's report or identity does not verify",
    "TdxModuleUnknown": "the TDX module's version, signer or attributes are not those that Intel's TCB info states",
    "TcbLevelUnmatched": "the platform is below every TCB level that Intel's TCB info knows",
    "TcbStatusNotAllowed": "the policy does not accept the platform's TCB status",
    "TcbRevoked": "Intel revoked the platform's or the quoting enclave's TCB level",
    "AdvisoryNotAllowed": "a security advisory holds for the platform that the policy does not accept",
    "SeptVeEnabled": "the TD does not set SEPT_VE_DISABLE, so that its host may inject #VE by removing pages",
    "AttributesNotAllowed": "an attribute of the TD or enclave is set that the policy or the TEE does not know",
    "XfamNotAllowed": "the TD or enclave uses extended processor features that the policy does not accept",
    "EnclaveNotInitialised": "the enclave's INIT attribute is not set",
    "EnclaveSignerNotAllowed": "MRSIGNER or the product id is not one of those accepted",
    "EnclaveSvnTooOld": "the enclave's security version number is below the minimum",
    # Collateral: what vendors publish about their platforms.
    "CollateralMissing": "no collateral for this platform is at hand",
    "CollateralMalformed": "a piece of collateral does not parse or exceeds its bounds",
    "CollateralInvalid": "a piece of collateral is not signed by the vendor",
    "CollateralMismatch": "the collateral was issued for another platform or TEE",
    "CollateralNotYetValid": "the collateral was issued after the time of verification",
    "CollateralExpired": "the collateral's next update was due before the time of verification",
    "CollateralTooOld": "the collateral was issued longer ago than the policy accepts",
    "CollateralRolledBack": "the collateral's evaluation number or issue time is behind the least accepted",
    "CrlExpired": "a revocation list's next update was due before the time of verification",
    # AWS Nitro.
    "DocumentMalformed": "the document is not the COSE_Sign1 and map that AWS describes, or exceeds its bounds",
    "DocumentTooOld": "the document was made longer ago than the policy accepts",
    "DocumentFromFuture": "the document was made after the time of verification",
    "PublicKeyMismatch": "the document's public_key is not the expected key",
    "UserDataMismatch": "the document's user_data is not what was expected",
    "InitDataUnsupported": "this TEE has no field that binds init data to the launch",
}


class AttestationRefused(Unauthenticated):
    """Evidence was refused. `problem.reason` is one of REASONS; the text holds no evidence bytes."""

    reason = "EvidenceMalformed"

    def __init__(self, what: str, *, reason: str = "", where: str = "", fix: str = "") -> None:
        super().__init__(what, where=where, fix=fix, reason=reason)


def refuse(reason: str, what: str = "", *, where: str = "", fix: str = "") -> AttestationRefused:
    """Build the refusal for `reason`; its standard text is used unless `what` says more."""
    return AttestationRefused(what or REASONS[reason], reason=reason, where=where, fix=fix)
