"""AMD's certificates: ARK, ASK, ASVK (authorities) and VCEK, VLEK (report-signing keys).

Source: AMD 57230 "VCEK Certificate and KDS Interface Specification" and AMD 58369 for the
VLEK; extension OIDs under 1.3.6.1.4.1.3704.1. Everything read here is a claim until `chain`
has verified the signatures.
"""

from __future__ import annotations

import functools
import hashlib
import re
import warnings
from dataclasses import dataclass
from typing import Final, Literal

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.utils import CryptographyDeprecationWarning
from cryptography.x509.oid import NameOID, SignatureAlgorithmOID

from keymgmt.attestation.refusal import refuse
from keymgmt.attestation.report import PRODUCTS, Product, Tcb

MAX_CERTIFICATE_BYTES: Final = 16 * 1024
MAX_CERTIFICATES: Final = 16
MIN_RSA_BITS: Final = 3072  # AMD's are 4096

_AMD = "1.3.6.1.4.1.3704.1"
PRODUCT_NAME: Final = f"{_AMD}.2"
HARDWARE_ID: Final = f"{_AMD}.4"
CSP_ID: Final = f"{_AMD}.5"
PATCH_LEVELS: Final = {
    "bootloader": f"{_AMD}.3.1",
    "tee": f"{_AMD}.3.2",
    "snp": f"{_AMD}.3.3",
    "microcode": f"{_AMD}.3.8",
}
FMC_LEVEL: Final = f"{_AMD}.3.9"

Signer = Literal["vcek", "vlek"]
_LEAVES: dict[str, Signer] = {"SEV-VCEK": "vcek", "SEV-VLEK": "vlek"}
_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)

# AMD numbers every VCEK 0, which RFC 5280 forbids and the parser remarks upon each time.
warnings.filterwarnings(
    "ignore",
    message="Parsed a serial number which wasn't positive",
    category=CryptographyDeprecationWarning,
    module=r"keymgmt\.attestation\.",
)


@dataclass(frozen=True, slots=True, eq=False)
class Authority:
    """A certificate that may issue others: an ARK (self-issued), ASK or ASVK. Compared by identity."""

    certificate: x509.Certificate
    name: str  # common name, such as SEV-Milan
    key: rsa.RSAPublicKey
    spki_sha256: str  # hex

    @property
    def self_issued(self) -> bool:
        return self.certificate.subject == self.certificate.issuer


@dataclass(frozen=True, slots=True)
class SigningCertificate:
    """A VCEK or VLEK: the key that signs reports, and for what platform it was issued."""

    certificate: x509.Certificate
    signer: Signer
    key: ec.EllipticCurvePublicKey
    product: Product
    tcb: Tcb
    hardware_id: bytes | None  # VCEK: 64 bytes as in CHIP_ID
    csp_id: str | None  # VLEK: the cloud provider


def split_certificates(blobs: list[bytes] | tuple[bytes, ...]) -> list[bytes]:
    """Flatten DER and PEM (bundles too) into distinct DER certificates, in order, within bounds."""
    found: list[bytes] = []
    if len(blobs) > MAX_CERTIFICATES:
        raise refuse("CertificateMalformed", f"more than {MAX_CERTIFICATES} certificates")
    for blob in blobs:
        if len(blob) > MAX_CERTIFICATE_BYTES:
            raise refuse("CertificateMalformed", f"a certificate of {len(blob)} bytes is too large")
        if blob.lstrip().startswith(b"-----BEGIN"):
            parts = _PEM.findall(blob)
            if not parts:
                raise refuse("CertificateMalformed", "PEM text without a certificate")
            found.extend(_load(part).public_bytes(Encoding.DER) for part in parts)
        else:
            found.append(blob)
    distinct = list(dict.fromkeys(found))
    if len(distinct) > MAX_CERTIFICATES:
        raise refuse("CertificateMalformed", f"more than {MAX_CERTIFICATES} certificates")
    return distinct


@functools.lru_cache(maxsize=1024)
def read_certificate(der: bytes) -> Authority | SigningCertificate:
    """Parse one DER certificate and check it against AMD's profile; CertificateMalformed if it fails.

    Profile: X.509 v3, signed by RSA-PSS with SHA-384, no unknown critical extension; a leaf is
    named SEV-VCEK or SEV-VLEK and holds a P-384 key, all others are CAs with an RSA key.
    """
    certificate = _load(der)
    try:
        version, names = certificate.version, certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        extensions = certificate.extensions
        key = certificate.public_key()
        digest = certificate.signature_hash_algorithm
        pss = certificate.signature_algorithm_oid == SignatureAlgorithmOID.RSASSA_PSS
        certificate.issuer.public_bytes()
        _ = (certificate.not_valid_before_utc, certificate.not_valid_after_utc)
        unsigned = der[4 + len(certificate.tbs_certificate_bytes) : -len(certificate.signature) - 5]
    except Exception:  # the parser is lazy and raises many kinds; each means the same here
        raise refuse("CertificateMalformed", "the certificate's fields do not parse") from None
    if version is not x509.Version.v3 or len(names) != 1:
        raise refuse("CertificateMalformed", "not an X.509 v3 certificate with one common name")
    if unsigned not in certificate.tbs_certificate_bytes:  # RFC 5280, 4.1.1.2; nothing else guards it
        raise refuse("CertificateMalformed", "the signature algorithm differs from the signed one")
    if not pss or not isinstance(digest, hashes.SHA384):
        raise refuse("CertificateMalformed", "not signed by RSA-PSS with SHA-384")
    name = str(names[0].value)
    if name in _LEAVES:
        if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
            raise refuse("CertificateMalformed", f"{name} does not hold a P-384 key")
        return _signing(certificate, _LEAVES[name], key, _amd_extensions(extensions))
    if not isinstance(key, rsa.RSAPublicKey) or key.key_size < MIN_RSA_BITS:
        raise refuse("CertificateMalformed", f"{name} does not hold an RSA key of {MIN_RSA_BITS} bits or more")
    _require_authority(name, extensions)
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return Authority(certificate, name, key, hashlib.sha256(spki).hexdigest())


@functools.lru_cache(maxsize=256)
def vouched_for(child: Authority, parent: Authority) -> bool:
    """`signed_by` for authorities, remembered: the same few recur with every host."""
    return signed_by(child.certificate, parent.key)


def signed_by(certificate: x509.Certificate, key: rsa.RSAPublicKey) -> bool:
    """Whether `key` made the certificate's signature, with AMD's parameters and no others."""
    pss = padding.PSS(mgf=padding.MGF1(hashes.SHA384()), salt_length=48)
    try:
        key.verify(certificate.signature, certificate.tbs_certificate_bytes, pss, hashes.SHA384())
    except InvalidSignature:
        return False
    return True


def _load(data: bytes) -> x509.Certificate:
    try:
        if data.startswith(b"-----BEGIN"):
            return x509.load_pem_x509_certificate(data)
        return x509.load_der_x509_certificate(data)
    except Exception:
        raise refuse("CertificateMalformed", "not a DER or PEM certificate") from None


def _amd_extensions(extensions: x509.Extensions) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for extension in extensions:
        if isinstance(extension.value, x509.UnrecognizedExtension):
            if extension.critical and not extension.oid.dotted_string.startswith(_AMD):
                raise refuse("CertificateMalformed", "an unknown critical extension")
            found[extension.oid.dotted_string] = extension.value.value
    return found


def _require_authority(name: str, extensions: x509.Extensions) -> None:
    _amd_extensions(extensions)
    try:
        constraints = extensions.get_extension_for_class(x509.BasicConstraints).value
        usage = extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        raise refuse("CertificateMalformed", f"{name} lacks basic constraints or key usage") from None
    if not constraints.ca or not usage.key_cert_sign:
        raise refuse("CertificateMalformed", f"{name} may not issue certificates")


def _signing(
    certificate: x509.Certificate, signer: Signer, key: ec.EllipticCurvePublicKey, amd: dict[str, bytes]
) -> SigningCertificate:
    if (HARDWARE_ID in amd) == (CSP_ID in amd):
        raise refuse("CertificateMalformed", "a signing certificate names either a chip or a cloud provider")
    if (signer == "vcek") != (HARDWARE_ID in amd):
        raise refuse("CertificateMalformed", f"a {signer.upper()} certificate with the other kind's extension")
    product = _product(_ia5(amd, PRODUCT_NAME))
    levels = {part: _level(amd, oid) for part, oid in PATCH_LEVELS.items()}
    fmc = _level(amd, FMC_LEVEL) if product == "Turin" else None
    return SigningCertificate(
        certificate,
        signer,
        key,
        product,
        Tcb(fmc=fmc, **levels),
        _hardware_id(amd[HARDWARE_ID], product) if signer == "vcek" else None,
        _ia5(amd, CSP_ID) if signer == "vlek" else None,
    )


def _product(name: str) -> Product:
    family = name.partition("-")[0]  # VCEK: "Milan-B0"; VLEK: "Milan"
    for product in PRODUCTS:
        if product == family:
            return product
    raise refuse("ProductUnsupported", f"the certificate is for product {name!r}")


def _der(value: bytes, tag: int) -> bytes:
    """Contents of a definite-length DER value of at most 127 bytes that fills `value` exactly."""
    if len(value) < 2 or value[0] != tag or value[1] > 127 or len(value) != 2 + value[1]:
        raise refuse("CertificateMalformed", "an AMD extension is not the DER value it should be")
    return value[2:]


def _level(amd: dict[str, bytes], oid: str) -> int:
    """A patch level: INTEGER 0 to 255, minimally encoded."""
    if oid not in amd:
        raise refuse("CertificateMalformed", f"extension {oid} is missing")
    body = _der(amd[oid], 0x02)
    number = int.from_bytes(body, "big", signed=True) if body else -1
    minimal = len(body) == 1 or (len(body) == 2 and body[0] == 0 and body[1] >= 0x80)
    if not minimal or not 0 <= number <= 255:
        raise refuse("CertificateMalformed", f"extension {oid} is not an integer from 0 to 255")
    return number


def _ia5(amd: dict[str, bytes], oid: str) -> str:
    if oid not in amd:
        raise refuse("CertificateMalformed", f"extension {oid} is missing")
    body = _der(amd[oid], 0x16)
    if not body or any(byte < 0x20 or byte > 0x7E for byte in body):
        raise refuse("CertificateMalformed", f"extension {oid} is not printable IA5 text")
    return body.decode("ascii")


def _hardware_id(value: bytes, product: Product) -> bytes:
    """The chip's identity as 64 bytes. Older certificates hold it raw, newer ones as OCTET STRING.

    Turin's identities have 8 bytes, followed by zeros in the report's CHIP_ID.
    """
    if len(value) == 64:
        return value
    body = value if product == "Turin" and len(value) == 8 else _der(value, 0x04)
    if len(body) == 64:
        return body
    if product == "Turin" and len(body) == 8:
        return body.ljust(64, b"\0")
    raise refuse("CertificateMalformed", "the hardware identity has a wrong length")
