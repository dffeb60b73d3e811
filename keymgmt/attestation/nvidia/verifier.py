"""The verifier of one NVIDIA device: report, certificates, policy and time in; claims or a refusal out.

Pure: no clock, no network, no state but the memory of verified certificate chains.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from crds.errors import InvalidInput
from keymgmt.attestation import ear
from keymgmt.attestation.nvidia.certificates import (
    SWITCHES,
    Architecture,
    DeviceChain,
    build_chain,
    check_validity,
)
from keymgmt.attestation.nvidia.endorsements import NvidiaEndorsements
from keymgmt.attestation.nvidia.opaque import OpaqueData, parse_opaque
from keymgmt.attestation.nvidia.policy import NvidiaPolicy, appraise
from keymgmt.attestation.nvidia.reference import compare
from keymgmt.attestation.nvidia.revocation import check_revocation
from keymgmt.attestation.nvidia.spdm import NONCE_BYTES, MeasurementReport, parse_report
from keymgmt.attestation.refusal import refuse

NVIDIA_OEM_ID: Final = "5703"  # IANA private enterprise number


@dataclass(frozen=True, slots=True)
class NvidiaClaims:
    """What an accepted report proves about one device."""

    architecture: Architecture
    chain: DeviceChain
    report: MeasurementReport
    opaque: OpaqueData
    root: str
    measurements_known: bool  # compared with reference values, all equal

    @property
    def device_class(self) -> str:
        return "switch" if self.architecture in SWITCHES else "gpu"

    @property
    def device_key(self) -> str:
        """SHA-256 of the chip's own public key: one device, whatever firmware it runs."""
        return self.chain.device.spki_sha256

    @property
    def pdi(self) -> str:
        """Permanent device identity, 16 hex digits, as other devices name this one."""
        return self.chain.pdi

    def measurements(self) -> dict[str, str]:
        """Measurements by SPDM index, hex."""
        return {str(index): value.hex() for index, value in self.report.measurements.items()}

    def as_dict(self) -> dict[str, Any]:
        """Claims as release rules and tokens see them (`claims.gpus[i]`), under EAT's and NVIDIA's names.

        Measurements are given by the digest of their record, for a token must stay small;
        `measres` says what comparing them with the reference values gave.
        """
        opaque = self.opaque
        known = self.measurements_known
        claims: dict[str, Any] = {
            "class": self.device_class,
            "arch": self.architecture,
            "hwmodel": self.chain.hwmodel,
            "ueid": self.chain.ueid,
            "oemid": NVIDIA_OEM_ID,
            "pdi": self.pdi,
            "device_key": self.device_key,
            "driver_version": opaque.driver_version,
            "vbios_version": opaque.vbios_version,
            "fwid": (self.chain.fwid or b"").hex(),
            "measurements_digest": hashlib.sha384(self.report.record).hexdigest(),
            "measres": "success" if known else "none",
            # As NVIDIA's verifier says: nothing but golden measurements shows that debugging is off.
            "secboot": known,
            "dbgstat": "disabled" if known else "unknown",
            "mode": opaque.mode or "",
            "protected_pcie": bool(opaque.protected_pcie),
            "root": self.root,
        }
        if opaque.switch:
            return claims | {"gpu_pdis": list(opaque.gpu_pdis)}
        return claims | {"switch_pdis": list(opaque.pdis)}

    def as_ear_submod(self) -> dict[str, Any]:
        """The EAR submod (`gpu0`, `switch0`): status, trustworthiness vector, policy id, `nvidia`, `root`."""
        vector = ear.device_vector(measurements_known=self.measurements_known)
        return {
            "ear.status": ear.status(vector),
            "ear.trustworthiness-vector": vector,
            "ear.appraisal-policy-id": ear.NVIDIA_POLICY_ID,
            "nvidia": self.as_dict(),
            "root": self.root,
        }


def verify_device(
    report: bytes,
    certificates: bytes,
    architecture: str,
    endorsements: NvidiaEndorsements,
    policy: NvidiaPolicy,
    now: datetime,
    expected_nonce: bytes | None,
) -> NvidiaClaims:
    """Verify one device's report and appraise it.

    `report`: SPDM request and response; `certificates`: PEM bundle, signing key first, root
    last; `architecture`: what the evidence calls the device (HOPPER, BLACKWELL, LS10);
    `expected_nonce`: at most 32 bytes are compared, as SPDM's nonce has no more. `now` must
    be aware of its zone. Raises AttestationRefused; see refusal.REASONS.
    """
    if now.tzinfo is None:
        raise InvalidInput("the time of verification has no zone", where="now")
    parsed = parse_report(report)
    chain = build_chain(certificates)
    label = endorsements.roots.get(chain.root.spki_sha256)
    if label is None:
        raise refuse("RootUntrusted", f"{chain.root.common_name} with SPKI SHA-256 {chain.root.spki_sha256}")
    if architecture.upper() != chain.architecture:
        raise refuse("ArchitectureMismatch", f"{architecture!r} stated, {chain.architecture} certified", where="arch")
    opaque = parse_opaque(parsed.opaque, switch=chain.architecture in SWITCHES)
    check_validity(chain, now)
    _verify_signature(parsed, chain.leaf.key)
    if expected_nonce is not None and not hmac.compare_digest(
        parsed.nonce, expected_nonce[:NONCE_BYTES].ljust(NONCE_BYTES, b"\0")
    ):
        raise refuse("NonceMismatch", "the report answers another nonce", where="nonce", fix="answer this challenge")
    _check_identity(chain, opaque, policy)
    check_revocation(chain, endorsements.ocsp_responses, endorsements.ocsp_responders, now, policy.require_revocation)
    appraise(chain.architecture, opaque, policy)
    known = compare(
        parsed.measurements, chain.architecture, opaque, endorsements.reference, policy.require_reference_values
    )
    return NvidiaClaims(chain.architecture, chain, parsed, opaque, label, known)


def _verify_signature(report: MeasurementReport, key: ec.EllipticCurvePublicKey) -> None:
    if not report.r or not report.s:
        raise refuse("SignatureInvalid")
    try:
        key.verify(encode_dss_signature(report.r, report.s), report.signed, ec.ECDSA(hashes.SHA384()))
    except InvalidSignature:
        raise refuse("SignatureInvalid") from None


def _check_identity(chain: DeviceChain, opaque: OpaqueData, policy: NvidiaPolicy) -> None:
    """What the report says of the device must be what its certificates say."""
    if opaque.fwid is None:
        if policy.require_fwid and not opaque.switch:
            raise refuse("FirmwareIdMismatch", "the report states no firmware identity", where="fwid")
    elif chain.fwid is None or not hmac.compare_digest(opaque.fwid, chain.fwid):
        raise refuse("FirmwareIdMismatch", "the report's firmware is not the certified one", where="fwid")
    if chain.identity is not None and chain.identity.debug:
        raise refuse("DebugAllowed", "the device booted with debugging or recovery on", where="certificate")
    if opaque.switch and opaque.pdis != (chain.pdi,):
        raise refuse("DeviceIdentityMismatch", "the switch states another PDI than its certificate", where="pdi")
