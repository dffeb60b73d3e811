"""A device's certificates and the way from its signing key to a pinned root.

Five certificates with fixed roles: signing key (firmware, made anew with each firmware) ←
device (boot ROM, one per chip) ← provisioner ← family identity ← root. All hold P-384 keys
and are signed by ECDSA with SHA-384. The signing certificate names its firmware (see `dice`).
"""

from __future__ import annotations

import base64
import functools
import hashlib
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal, TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import Name
from cryptography.x509.oid import NameOID, SignatureAlgorithmOID

from keymgmt.attestation.nvidia.dice import (
    COMPOSITE_DEVICE_ID,
    TCB_INFO,
    DiceIdentity,
    parse_composite_device_id,
    parse_tcb_info,
)
from keymgmt.attestation.refusal import AttestationRefused, refuse

MAX_CHAIN_BYTES: Final = 16 * 1024  # drivers reserve 5 KiB of DER
MAX_CERTIFICATES: Final = 5

Architecture = Literal["HOPPER", "BLACKWELL", "LS10"]
# Beginning of the device certificate's common name → architecture; LS10 is the NVSwitch.
_FAMILIES: Final[dict[str, Architecture]] = {"GH1": "HOPPER", "GB1": "BLACKWELL", "GB2": "BLACKWELL", "LS_10": "LS10"}
SWITCHES: Final = frozenset({"LS10"})

_BEGIN: Final = b"-----BEGIN CERTIFICATE-----"
_END: Final = b"-----END CERTIFICATE-----"
_PEM = re.compile(_BEGIN + rb"[A-Za-z0-9+/=\s]+" + _END)
_KNOWN_CRITICAL = (x509.BasicConstraints, x509.KeyUsage)
T = TypeVar("T", bound=x509.ExtensionType)


@dataclass(frozen=True, eq=False)
class Certificate:
    """A parsed P-384 certificate. Compared by identity; the same few recur with every device."""

    x509: x509.Certificate
    key: ec.EllipticCurvePublicKey
    subject: Name
    issuer: Name
    signed: bytes  # what the signature covers, DER
    common_name: str
    authority: bool
    signs: bool  # key usage digitalSignature
    valid_from: datetime
    valid_until: datetime

    @property
    def spki(self) -> bytes:
        """The public key as SubjectPublicKeyInfo, DER."""
        return self.key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    @functools.cached_property
    def spki_sha256(self) -> str:
        """SHA-256 of the public key (SubjectPublicKeyInfo), hex: how roots are pinned."""
        return hashlib.sha256(self.spki).hexdigest()


@dataclass(frozen=True, slots=True)
class DeviceChain:
    """A chain whose signatures and roles were verified; who is pinned is not said here."""

    certificates: tuple[Certificate, ...]  # signing key first, root last
    architecture: Architecture
    identity: DiceIdentity | None

    @property
    def leaf(self) -> Certificate:
        return self.certificates[0]

    @property
    def device(self) -> Certificate:
        """The chip's own certificate: the same whatever firmware runs."""
        return self.certificates[1]

    @property
    def root(self) -> Certificate:
        return self.certificates[-1]

    @property
    def fwid(self) -> bytes | None:
        """SHA-384 of the firmware that the signing key was certified for, 48 bytes."""
        return None if self.identity is None else self.identity.fwid

    @property
    def ueid(self) -> str:
        """The signing certificate's serial number in decimal, as NVIDIA's tools name a device."""
        return str(self.leaf.x509.serial_number)

    @property
    def hwmodel(self) -> str:
        """Such as "GH100 A01 GSP BROM"."""
        return self.device.common_name

    @property
    def pdi(self) -> str:
        """Permanent device identity, 16 hex digits: the low 8 bytes of the device certificate's serial number."""
        return f"{self.device.x509.serial_number & (1 << 64) - 1:016x}"


def split_chain(data: bytes) -> tuple[bytes, ...]:
    """Certificates of a PEM bundle, as PEM, in order. Raises CertificateMalformed, CertificateMissing."""
    if len(data) > MAX_CHAIN_BYTES:
        raise refuse("CertificateMalformed", f"a chain of {len(data)} bytes is too large", where="certificate")
    found = tuple(_PEM.findall(data))
    if not found:
        raise refuse("CertificateMissing", "the evidence holds no certificate", where="certificate")
    if len(found) > MAX_CERTIFICATES:
        raise refuse("CertificateChainTooLong", f"{len(found)} certificates, at most {MAX_CERTIFICATES}")
    return found


@functools.lru_cache(maxsize=1024)
def read_certificate(pem: bytes) -> Certificate:
    """Parse one certificate (PEM) and check it against the profile. Raises CertificateMalformed."""
    try:
        der = base64.b64decode(b"".join(pem[len(_BEGIN) : -len(_END)].split()), validate=True)
        certificate = x509.load_der_x509_certificate(der)
        key, subject, issuer = certificate.public_key(), certificate.subject, certificate.issuer
        names = subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        extensions, version = certificate.extensions, certificate.version
        algorithm, inner = certificate.signature_algorithm_oid, certificate.tbs_certificate_bytes
        window = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    except Exception:  # the parser is lazy and raises many kinds; each means the same here
        raise _malformed("not a certificate") from None
    if version is not x509.Version.v3 or len(names) != 1:
        raise _malformed("not an X.509 v3 certificate with one common name")
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise _malformed("not a P-384 key")
    outer = der[4 + len(inner) : 4 + len(inner) + 12]  # AlgorithmIdentifier; RFC 5280, 4.1.1.2
    if algorithm != SignatureAlgorithmOID.ECDSA_WITH_SHA384 or outer not in inner:
        raise _malformed("not signed by ECDSA with SHA-384 throughout")
    if any(one.critical and not isinstance(one.value, _KNOWN_CRITICAL) for one in extensions):
        raise _malformed("an unknown critical extension")
    constraints = _extension(extensions, x509.BasicConstraints)
    usage = _extension(extensions, x509.KeyUsage)
    return Certificate(
        certificate,
        key,
        subject,
        issuer,
        inner,
        str(names[0].value),
        authority=bool(constraints and constraints.ca and usage and usage.key_cert_sign),
        signs=bool(
            usage and usage.digital_signature and not usage.key_cert_sign and not (constraints and constraints.ca)
        ),
        valid_from=window[0],
        valid_until=window[1],
    )


@functools.lru_cache(maxsize=1024)
def build_chain(bundle: bytes) -> DeviceChain:
    """Check a chain (PEM, signing key first) but for time and trust. Remembered: it depends on nothing else.

    Raises CertificateMissing, CertificateMalformed, CertificateChainTooLong,
    CertificateUsageInvalid, CertificateChainInvalid, FirmwareIdMismatch, DeviceUnsupported.
    """
    parsed = tuple(read_certificate(pem) for pem in split_chain(bundle))
    if len(parsed) < 2:
        raise refuse("CertificateMissing", "there is no certificate of a device's signing key", where="certificate")
    if not parsed[0].signs:
        raise refuse(
            "CertificateUsageInvalid", "the first certificate is not one of a signing key", where="certificate"
        )
    for child, parent in zip(parsed, (*parsed[1:], parsed[-1]), strict=True):
        if not parent.authority:
            raise refuse("CertificateUsageInvalid", f"{parent.common_name} may not issue certificates")
        if child.issuer != parent.subject or not signed_by(child, parent):
            raise refuse(
                "CertificateChainInvalid",
                f"{child.common_name} was not issued by {parent.common_name}",
                where="certificate",
                fix="send the whole chain, signing key first",
            )
    if len(parsed) != MAX_CERTIFICATES:
        raise refuse("CertificateChainInvalid", f"{len(parsed)} certificates instead of {MAX_CERTIFICATES}")
    architecture = next((of for prefix, of in _FAMILIES.items() if parsed[1].common_name.startswith(prefix)), None)
    if architecture is None:
        raise refuse("DeviceUnsupported", f"device {parsed[1].common_name!r} is not known", where="certificate")
    return DeviceChain(parsed, architecture, _identity(parsed[0], parsed[1]))


@functools.lru_cache(maxsize=1024)
def signed_by(child: Certificate, parent: Certificate) -> bool:
    """Whether the parent's key made the child's signature; remembered per pair."""
    try:
        parent.key.verify(child.x509.signature, child.signed, ec.ECDSA(hashes.SHA384()))
    except InvalidSignature:
        return False
    return True


def check_validity(chain: DeviceChain, now: datetime) -> None:
    """Raise CertificateNotYetValid or CertificateExpired unless all of the chain holds at `now`."""
    for one in chain.certificates:
        if now < one.valid_from:
            raise refuse("CertificateNotYetValid", f"valid from {one.valid_from} on", where=one.common_name)
        if now > one.valid_until:
            raise refuse("CertificateExpired", f"valid until {one.valid_until}", where=one.common_name)


def _identity(leaf: Certificate, device: Certificate) -> DiceIdentity | None:
    """The certified firmware. Where the identity names the device's key, that must be the issuer's."""
    for oid, parse in ((COMPOSITE_DEVICE_ID, parse_composite_device_id), (TCB_INFO, parse_tcb_info)):
        try:
            value = leaf.x509.extensions.get_extension_for_oid(x509.ObjectIdentifier(oid)).value
        except x509.ExtensionNotFound:
            continue
        identity = parse(value.value if isinstance(value, x509.UnrecognizedExtension) else b"")
        if identity.device_spki is not None and identity.device_spki != device.spki:
            raise refuse("FirmwareIdMismatch", "the DICE identity names another device's key", where="certificate")
        return identity
    return None


def _extension(extensions: x509.Extensions, kind: type[T]) -> T | None:
    try:
        return extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _malformed(what: str) -> AttestationRefused:
    return refuse("CertificateMalformed", what, where="certificate")
