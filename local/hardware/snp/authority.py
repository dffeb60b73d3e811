"""The emulated vendor: a root (ARK), its intermediates (ASK, ASVK), and what they issue.

The certificates follow AMD 57230 (RSA-PSS with SHA-384, extensions under
1.3.6.1.4.1.3704.1), but name another organisation. Two or three RSA-4096 keys are made once
per data folder and kept there.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID, ObjectIdentifier

from keymgmt.attestation.certificates import CSP_ID, FMC_LEVEL, HARDWARE_ID, PATCH_LEVELS, PRODUCT_NAME
from keymgmt.attestation.report import Product, Tcb

ORGANIZATION = "Kekkai Emulated Hardware"
KEY_BITS = 4096
_PSS = padding.PSS(mgf=padding.MGF1(hashes.SHA384()), salt_length=48)


@dataclass(frozen=True, slots=True)
class Issuer:
    """A certificate authority with its private key."""

    certificate: x509.Certificate
    key: rsa.RSAPrivateKey

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)

    def revocation_list(self, serials: list[int], now: datetime, days: int = 30) -> x509.CertificateRevocationList:
        """A revocation list current from `now` for `days` days."""
        builder = x509.CertificateRevocationListBuilder().issuer_name(self.certificate.subject)
        builder = builder.last_update(now).next_update(now + timedelta(days=days))
        for serial in serials:
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now).build()
            builder = builder.add_revoked_certificate(entry)
        return builder.sign(self.key, hashes.SHA384(), rsa_padding=_PSS)


@dataclass(frozen=True, slots=True)
class Authority:
    """The vendor's keys for one product. `asvk` exists only where VLEKs are wanted."""

    product: Product
    ark: Issuer
    ask: Issuer
    asvk: Issuer | None = None

    @classmethod
    def create(
        cls,
        product: Product = "Genoa",
        *,
        bits: int = KEY_BITS,
        now: datetime | None = None,
        with_vlek: bool = False,
    ) -> Authority:
        """Make new keys and certificates valid for 25 years from `now`. Takes seconds (RSA-4096)."""
        start = now or datetime.now(UTC) - timedelta(minutes=5)
        ark = _issuer(f"ARK-{product}", None, bits, start)
        ask = _issuer(f"SEV-{product}", ark, bits, start)
        return cls(product, ark, ask, _issuer(f"SEV-VLEK-{product}", ark, bits, start) if with_vlek else None)

    @classmethod
    def load_or_create(cls, folder: Path, product: Product = "Genoa") -> Authority:
        """The authority kept in `folder` (mode 0700), made there on the first call by any process."""
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with (folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (folder / "ask.key").exists():
                made = cls.create(product)
                for name, issuer in (("ark", made.ark), ("ask", made.ask)):
                    _store(folder, name, issuer)
                return made
            return cls(product, _restore(folder, "ark"), _restore(folder, "ask"))

    def issue_vcek(
        self,
        key: ec.EllipticCurvePublicKey,
        tcb: Tcb,
        hardware_id: bytes,
        *,
        now: datetime | None = None,
        days: int = 7 * 365,
        octet_string: bool = False,
    ) -> x509.Certificate:
        """A VCEK certificate for a chip at a TCB. `octet_string` selects the newer encoding of hwID."""
        value = b"\x04" + bytes((len(hardware_id),)) + hardware_id if octet_string else hardware_id
        suffix = {"Milan": "-B0", "Genoa": "-B1", "Turin": "-B0"}[self.product]
        return self._issue(self.ask, "SEV-VCEK", key, tcb, f"{self.product}{suffix}", (HARDWARE_ID, value), now, days)

    def issue_vlek(
        self,
        key: ec.EllipticCurvePublicKey,
        tcb: Tcb,
        csp_id: str,
        *,
        now: datetime | None = None,
        days: int = 365,
    ) -> x509.Certificate:
        """A VLEK certificate for a cloud provider at a TCB."""
        if self.asvk is None:
            raise ValueError("this authority was made without an ASVK")
        return self._issue(self.asvk, "SEV-VLEK", key, tcb, self.product, (CSP_ID, _ia5(csp_id)), now, days)

    def export_trust_root(self, folder: Path) -> Path:
        """Write the public certificates for a key service that is to trust this hardware."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, issuer in (("ark", self.ark), ("ask", self.ask), ("asvk", self.asvk)):
            if issuer is not None:
                _write(folder / f"{name}.pem", issuer.certificate.public_bytes(Encoding.PEM), 0o644)
        return folder

    def _issue(
        self,
        issuer: Issuer,
        name: str,
        key: ec.EllipticCurvePublicKey,
        tcb: Tcb,
        product_name: str,
        owner: tuple[str, bytes],
        now: datetime | None,
        days: int,
    ) -> x509.Certificate:
        start = now or datetime.now(UTC) - timedelta(minutes=5)
        builder = _builder(name, issuer.certificate.subject, start, timedelta(days=days)).public_key(key)
        levels = {oid: getattr(tcb, part) for part, oid in PATCH_LEVELS.items()}
        if self.product == "Turin":
            levels[FMC_LEVEL] = tcb.fmc or 0
        values = {PRODUCT_NAME: _ia5(product_name), **{oid: _integer(level) for oid, level in levels.items()}}
        values[owner[0]] = owner[1]
        for oid, value in values.items():
            unknown = x509.UnrecognizedExtension(ObjectIdentifier(oid), value)
            builder = builder.add_extension(unknown, critical=False)
        return builder.sign(issuer.key, hashes.SHA384(), rsa_padding=_PSS)


def _builder(name: str, issuer: x509.Name | None, start: datetime, life: timedelta) -> x509.CertificateBuilder:
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, ORGANIZATION),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "Engineering"),
            x509.NameAttribute(NameOID.COMMON_NAME, name),
        ]
    )
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer or subject)
    builder = builder.serial_number(x509.random_serial_number())
    return builder.not_valid_before(start).not_valid_after(start + life)


def _issuer(name: str, parent: Issuer | None, bits: int, start: datetime) -> Issuer:
    key = rsa.generate_private_key(public_exponent=65537, key_size=bits)
    usage = x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=parent is None,
        encipher_only=False,
        decipher_only=False,
    )
    subject = parent.certificate.subject if parent else None
    builder = _builder(name, subject, start, timedelta(days=25 * 365)).public_key(key.public_key())
    depth = None if parent is None else 0
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=depth), critical=True)
    builder = builder.add_extension(usage, critical=True)
    signer = parent.key if parent else key
    return Issuer(builder.sign(signer, hashes.SHA384(), rsa_padding=_PSS), key)


def _integer(value: int) -> bytes:
    body = bytes((0, value)) if value >= 0x80 else bytes((value,))
    return b"\x02" + bytes((len(body),)) + body


def _ia5(text: str) -> bytes:
    return b"\x16" + bytes((len(text),)) + text.encode("ascii")


def _store(folder: Path, name: str, issuer: Issuer) -> None:
    _write(folder / f"{name}.pem", issuer.certificate.public_bytes(Encoding.PEM), 0o644)
    secret = issuer.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    _write(folder / f"{name}.key", secret, 0o600)


def _restore(folder: Path, name: str) -> Issuer:
    certificate = x509.load_pem_x509_certificate((folder / f"{name}.pem").read_bytes())
    key = load_pem_private_key((folder / f"{name}.key").read_bytes(), password=None)
    assert isinstance(key, rsa.RSAPrivateKey)
    return Issuer(certificate, key)


def _write(path: Path, data: bytes, mode: int) -> None:
    """Replace `path` at once, so that no reader ever sees half a file."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(handle, "wb") as stream:
        stream.write(data)
    os.chmod(temporary, mode)
    os.replace(temporary, path)
