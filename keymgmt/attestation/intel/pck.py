"""The PCK certificate chain of a quote, and for which platform its leaf was issued.

Source: Intel "Intel SGX PCK Certificate and Certificate Revocation List Profile
Specification"; extensions under 1.2.840.113741.1.13.1. What is read here is a claim until
dcap-qvl has verified the chain's signatures.
"""

from __future__ import annotations

import functools
import hashlib
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

import dcap_qvl
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from keymgmt.attestation.intel.dcap import guarded
from keymgmt.attestation.refusal import AttestationRefused, refuse

# SHA-256 of the Intel SGX Root CA certificate (DER), as published at
# https://certificates.trustedservices.intel.com/IntelSGXRootCA.der.
INTEL_ROOT: Final = "44a0196b2b99f889b8e149e95b807a350e7424964399e885a7cbb8ccfab674d3"
CACHED_CHAINS: Final = 1024
_CONFIGURATION: Final = "1.2.840.113741.1.13.1.7"
_FLAGS: Final = {"dynamic_platform": "1", "cached_keys": "2", "smt_enabled": "3"}
_PEM: Final = re.compile(rb"-----BEGIN CERTIFICATE-----\n[A-Za-z0-9+/=\n]{1,8192}-----END CERTIFICATE-----\n", re.ASCII)

Ca = Literal["platform", "processor"]
_CAS: Final[dict[str, Ca]] = {"Intel SGX PCK Platform CA": "platform", "Intel SGX PCK Processor CA": "processor"}


@dataclass(frozen=True, slots=True)
class PckChain:
    """Leaf, intermediate and root of a quote. `fmspc` (12) and `pce_id` (4) are upper-case hex digits."""

    fmspc: str
    pce_id: str
    ca: Ca
    ppid: bytes
    platform_instance_id: bytes | None
    configuration: dict[str, bool]  # of multi-package platforms; empty elsewhere
    root_der: bytes
    root_sha256: str  # of the DER, hex
    valid_from: datetime
    valid_until: datetime

    def check_validity(self, now: datetime) -> None:
        """Raise CertificateNotYetValid or CertificateExpired unless the whole chain holds at `now`."""
        if now < self.valid_from:
            raise refuse("CertificateNotYetValid", f"the chain is valid from {self.valid_from} on", where="PCK")
        if now > self.valid_until:
            raise refuse("CertificateExpired", f"the chain was valid until {self.valid_until}", where="PCK")


@functools.lru_cache(maxsize=CACHED_CHAINS)
def read_pck_chain(chain: bytes) -> PckChain:
    """Read certification data of type 5: three certificates in PEM, leaf first, one NUL after them allowed.

    Only the canonical PEM is taken, so that no bit of a quote is free of meaning. Raises
    CertificateMalformed and CertificateChainInvalid. Remembered by content: hosts repeat theirs.
    """
    text = chain.removesuffix(b"\0")
    parts = _PEM.findall(text)
    if len(parts) != 3 or b"".join(parts) != text:
        raise refuse("CertificateMalformed", "the PCK chain is not three certificates in PEM", where="PCK")
    try:
        certificates = [x509.load_pem_x509_certificate(part) for part in parts]
        canonical = [one.public_bytes(Encoding.PEM) for one in certificates]
        names = [one.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value for one in certificates]
        extension = guarded(lambda: dcap_qvl.parse_pck_extension_from_pem(parts[0]), _no_extension)
        fmspc, pce_id = bytes(extension.fmspc), bytes(extension.pce_id)
        ppid, instance = bytes(extension.ppid), extension.platform_instance_id
        configuration = {name: _flag(extension, number) for name, number in _FLAGS.items()}
    except AttestationRefused:
        raise
    except Exception:  # both parsers raise what they like on foreign bytes
        raise refuse("CertificateMalformed", "the PCK chain does not parse", where="PCK") from None
    if canonical != parts:
        raise refuse("CertificateMalformed", "the PCK chain is not canonical PEM", where="PCK")
    if (ca := _CAS.get(str(names[1]))) is None:
        raise refuse("CertificateChainInvalid", "the PCK certificate's issuer is not an Intel SGX PCK CA", where="PCK")
    root_der = certificates[2].public_bytes(Encoding.DER)
    return PckChain(
        fmspc=fmspc.hex().upper(),
        pce_id=pce_id.hex().upper(),
        ca=ca,
        ppid=ppid,
        platform_instance_id=None if instance is None else bytes(instance),
        configuration={name: value for name, value in configuration.items() if value is not None},
        root_der=root_der,
        root_sha256=hashlib.sha256(root_der).hexdigest(),
        valid_from=max(one.not_valid_before_utc for one in certificates),
        valid_until=min(one.not_valid_after_utc for one in certificates),
    )


def _no_extension(_: str) -> AttestationRefused:
    return refuse("CertificateMalformed", "the leaf lacks Intel's extension", where="PCK")


def _flag(extension: dcap_qvl.PckExtension, number: str) -> bool | None:
    value = extension.get_value(f"{_CONFIGURATION}.{number}")
    return None if value is None else any(bytes(value))
