"""A Nitro hypervisor of our own: root, region, zone, instance and enclave certificates, and documents."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

import cbor2
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
PROTECTED = bytes.fromhex("a1013822")


@dataclass
class Link:
    """A certificate with its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)


def link(
    name: str,
    issuer: Link | None,
    *,
    ca: bool = True,
    path_length: int | None = None,
    curve: ec.EllipticCurve | None = None,
    cert_sign: bool | None = None,
    now: datetime = NOW,
) -> Link:
    key = ec.generate_private_key(curve or ec.SECP384R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    signs = ca if cert_sign is None else cert_sign
    usage = x509.KeyUsage(not ca, False, False, False, False, signs, signs, False, False)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=1))
        .not_valid_after(now + timedelta(hours=3))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=path_length), critical=True)
        .add_extension(usage, critical=True)
        .sign(issuer.key if issuer else key, hashes.SHA384())
    )
    return Link(certificate, key)


@dataclass
class NitroVendor:
    """A chain of root, zone and instance, and an enclave's key under it."""

    path: list[Link]
    enclave: Link
    now: datetime = NOW

    @classmethod
    def create(cls, now: datetime = NOW) -> NitroVendor:
        path = [link("aws.nitro-enclaves", None, now=now)]
        path += [link("zone", path[-1], path_length=1, now=now)]
        path += [link("instance", path[-1], path_length=0, now=now)]
        return cls(path, link("enclave", path[-1], ca=False, now=now), now)

    @property
    def anchors(self) -> dict[str, str]:
        return {sha256(self.path[0].der).hexdigest(): "local:test"}

    def members(self, **changes: Any) -> dict[str, Any]:
        document: dict[str, Any] = {
            "module_id": "i-0123456789abcdef0-enc0123456789abcdef",
            "digest": "SHA384",
            "timestamp": int(self.now.timestamp() * 1000),
            "pcrs": {index: bytes((index + 1,)) * 48 for index in range(16)},
            "certificate": self.enclave.der,
            "cabundle": [one.der for one in self.path],
            "public_key": None,
            "user_data": None,
            "nonce": b"challenge",
        }
        changed = {**document, **changes}
        return {name: value for name, value in changed.items() if value is not ...}

    def document(self, key: ec.EllipticCurvePrivateKey | None = None, **changes: Any) -> bytes:
        """A document; `changes` replace members (`...` leaves one out)."""
        return self.sign(cbor2.dumps(self.members(**changes)), key)

    def sign(
        self, payload: bytes, key: ec.EllipticCurvePrivateKey | None = None, protected: bytes = PROTECTED
    ) -> bytes:
        signed = cbor2.dumps(["Signature1", protected, b"", payload])
        r, s = decode_dss_signature((key or self.enclave.key).sign(signed, ec.ECDSA(hashes.SHA384())))
        signature = r.to_bytes(48, "big") + s.to_bytes(48, "big")
        return cbor2.dumps([protected, {}, payload, signature])
