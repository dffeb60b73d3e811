"""Azure's confidential VMs: an SNP report that vouches for a vTPM's key, and that TPM's quote.

Forms (Trustee, verifier `az_snp_vtpm`): version 0 `{"quote": {message, pcrs, signature},
"report", "vcek"}` with arrays of numbers and PEM; 1 and 2 `{"version", "tpm_quote": {message,
pcrs, signature}, "hcl_report", "vcek"}` with hex and base64url. Version 2 also states the
nonce in the runtime data's `user-data`.

The proof: AMD's key signs the SNP report; REPORT_DATA is SHA-256 of the runtime data; that
names the attestation key (`HCLAkPub`); the key signs the quote; the quote holds the nonce.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import rsa

from crds.errors import KekkaiError
from keymgmt import strict_json
from keymgmt.attestation import ear
from keymgmt.attestation.azure import MAX_HCL_BYTES, HclReport, parse_hcl_report
from keymgmt.attestation.policy import SnpPolicy
from keymgmt.attestation.refusal import AttestationRefused, refuse
from keymgmt.attestation.roots import TrustRoots
from keymgmt.attestation.snp import SnpClaims, verify_snp
from keymgmt.attestation.vtpm.attest import ALG_RSASSA, MAX_ATTEST_BYTES, MAX_PCRS, Signature
from keymgmt.attestation.vtpm.quote import MIN_RSA_BITS, PcrPolicy, QuotedPcrs, verify_quote

INIT_DATA_PCR: Final = 8
ATTESTATION_KEY_ID: Final = "HCLAkPub"
_MAX_VCEK_BYTES: Final = 16 * 1024


@dataclass(frozen=True, slots=True)
class AzureEvidence:
    """Evidence as bytes. `pcrs`: values of PCR 0, 1, … of the SHA-256 bank."""

    version: int
    hcl_report: bytes
    vcek: bytes  # DER or PEM
    message: bytes
    signature: bytes  # RSASSA with SHA-256, without TPM framing
    pcrs: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class AzureClaims:
    """What accepted evidence proves: the SNP guest below, the PCRs of its vTPM above."""

    snp: SnpClaims
    quoted: QuotedPcrs
    runtime_data: dict[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """Claims under `claims.vtpm`: `pcr0` to `pcr23` in hex, and the SNP guest's under `snp`.

        They stand apart from `claims.snp`, because its measurement is that of the paravisor
        only: a rule written for a guest that SNP itself measured must not match.
        """
        return {
            **{f"pcr{index}": value.hex() for index, value in sorted(self.quoted.pcrs.items())},
            "snp": self.snp.as_dict(),
            "nonce": self.quoted.quote.extra_data.hex(),
            "reset_count": self.quoted.quote.reset_count,
            "restart_count": self.quoted.quote.restart_count,
            "firmware_version": f"{self.quoted.quote.firmware_version:016x}",
            "secure_boot": _vm_flag(self.runtime_data, "secure-boot"),
            "tpm_enabled": _vm_flag(self.runtime_data, "tpm-enabled"),
        }

    def as_ear_submod(self) -> dict[str, Any]:
        """The EAR submod (`cpu0`). PCRs were compared with no reference values: executables say nothing."""
        vector = ear.snp_vector(debug=self.snp.report.policy.debug, measurement_known=False)
        return {
            "ear.status": ear.status(vector),
            "ear.trustworthiness-vector": vector,
            "ear.appraisal-policy-id": ear.AZURE_CVM_POLICY_ID,
            "vtpm": self.as_dict(),
            "root": self.snp.root,
        }


def parse_azure_evidence(document: object) -> AzureEvidence:
    """Read any of the three JSON forms. Raises EvidenceMalformed."""
    evidence = _object(document, "primary_evidence")
    version = evidence.get("version", 0)
    if isinstance(version, bool) or version not in (0, 1, 2):
        raise _malformed("version is 0, 1 or 2", "version")
    quote = _object(evidence.get("tpm_quote" if version else "quote"), "tpm_quote" if version else "quote")
    pcrs = quote.get("pcrs")
    if not isinstance(pcrs, list) or not 1 <= len(pcrs) <= MAX_PCRS:
        raise _malformed(f"1 to {MAX_PCRS} PCR values are expected", "pcrs")
    if version:
        hcl, vcek = (_base64url(evidence.get(name), name) for name in ("hcl_report", "vcek"))
    else:
        text = evidence.get("vcek")
        if not isinstance(text, str) or len(text) > _MAX_VCEK_BYTES or not text.isascii():
            raise _malformed("a PEM certificate is expected", "vcek")
        hcl, vcek = _numbers(evidence.get("report"), MAX_HCL_BYTES, "report"), text.encode()
    read = _hex if version else _numbers
    return AzureEvidence(
        version,
        hcl,
        vcek,
        read(quote.get("message"), MAX_ATTEST_BYTES, "message"),
        read(quote.get("signature"), 512, "signature"),
        tuple(read(value, 32, f"pcrs[{index}]") for index, value in enumerate(pcrs)),
    )


def verify_azure_cvm(
    evidence: AzureEvidence,
    authorities: Sequence[bytes],
    roots: TrustRoots,
    policy: SnpPolicy,
    pcr_policy: PcrPolicy,
    now: datetime,
    expected_nonce: bytes | None,
    init_data_digest: bytes | None = None,
) -> AzureClaims:
    """Verify an Azure confidential VM.

    `authorities`: ASK and ARK beside those in `roots`; `expected_nonce`: compared with the
    quote's qualifying data and, from version 2 on, the runtime data's `user-data`.
    `init_data_digest` must be what PCR 8 was extended with, once (HOST_DATA is the
    paravisor's, so that `policy.host_data` is not looked at). Raises AttestationRefused.
    """
    hcl = parse_hcl_report(evidence.hcl_report)
    # The paravisor runs at VMPL 0 and asks for the report; the guest itself has no device for it.
    claims = verify_snp(
        hcl.snp_report, [evidence.vcek, *authorities], roots, replace(policy, host_data=None), now, None
    )
    hcl.check_binding(claims.report.report_data)
    runtime = _runtime_data(hcl)
    if init_data_digest is not None:
        extended = hashlib.sha256(bytes(32) + init_data_digest[:32].ljust(32, b"\0")).digest()
        pcr_policy = replace(pcr_policy, accepted={**pcr_policy.accepted, INIT_DATA_PCR: frozenset({extended})})
    quoted = verify_quote(
        evidence.message,
        Signature(ALG_RSASSA, "sha256", raw=evidence.signature),
        attestation_key(runtime),
        dict(enumerate(evidence.pcrs)),
        expected_nonce,
        pcr_policy,
    )
    if expected_nonce is not None and evidence.version >= 2:
        stated = str(runtime.get("user-data", "")).lower()
        if not hmac.compare_digest(stated.encode(), expected_nonce.ljust(64, b"\0").hex().encode()):
            raise refuse("NonceMismatch", "the runtime data states another nonce", where="user-data")
    return AzureClaims(claims, quoted, runtime)


def attestation_key(runtime: dict[str, Any]) -> rsa.RSAPublicKey:
    """The vTPM's attestation key out of runtime data: an RSA JWK with key id HCLAkPub. Raises QuoteKeyMissing."""
    keys = runtime.get("keys")
    found = [
        one
        for one in (keys if isinstance(keys, list) else [])
        if isinstance(one, dict) and one.get("kid") == ATTESTATION_KEY_ID and one.get("kty") == "RSA"
    ]
    if len(found) != 1:
        raise refuse("QuoteKeyMissing", where="keys")
    try:
        modulus, exponent = (_base64url(found[0].get(name), name) for name in ("n", "e"))
        key = rsa.RSAPublicNumbers(int.from_bytes(exponent, "big"), int.from_bytes(modulus, "big")).public_key()
    except (ValueError, AttestationRefused):
        raise refuse("QuoteKeyMissing", "HCLAkPub is not an RSA key", where="keys") from None
    if not MIN_RSA_BITS <= key.key_size <= 4096:
        raise refuse("QuoteKeyMissing", f"HCLAkPub has {key.key_size} bits", where="keys")
    return key


def _runtime_data(hcl: HclReport) -> dict[str, Any]:
    try:
        return strict_json.parse_object(hcl.runtime_data, limit=MAX_HCL_BYTES, where="runtime_data")
    except KekkaiError:
        raise _malformed("the runtime data is not a JSON object", "runtime_data") from None


def _vm_flag(runtime: dict[str, Any], name: str) -> bool:
    configuration = runtime.get("vm-configuration")
    return isinstance(configuration, dict) and configuration.get(name) is True


def _malformed(what: str, where: str) -> AttestationRefused:
    return refuse("EvidenceMalformed", what, where=where)


def _object(value: object, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _malformed("expected a JSON object", where)
    return value


def _numbers(value: object, limit: int, where: str) -> bytes:
    if not isinstance(value, list) or not 1 <= len(value) <= limit:
        raise _malformed(f"an array of at most {limit} numbers is expected", where)
    try:
        return bytes(value)
    except (TypeError, ValueError):
        raise _malformed("numbers from 0 to 255 are expected", where) from None


def _hex(value: object, limit: int, where: str) -> bytes:
    if not isinstance(value, str) or not 1 <= len(value) <= 2 * limit:
        raise _malformed(f"at most {limit} bytes in hex are expected", where)
    try:
        return bytes.fromhex(value)
    except ValueError:
        raise _malformed("not hexadecimal", where) from None


def _base64url(value: object, where: str) -> bytes:
    if not isinstance(value, str) or not 1 <= len(value) <= 2 * MAX_HCL_BYTES:
        raise _malformed("base64url is expected", where)
    try:
        return base64.b64decode(value.rstrip("=") + "=" * (-len(value.rstrip("=")) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise _malformed("not valid base64url", where) from None
