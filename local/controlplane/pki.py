"""The certificates of a local control plane: three CAs and leaves from them.

The cluster CA signs every client certificate, the API server's and the key service's TLS
certificates. etcd has a CA of its own, since whoever holds a certificate that etcd trusts
reads and writes everything past RBAC; so has the front proxy (aggregation), which may
name any user. Keys are EC P-256; files are readable by their owner only.
"""

from __future__ import annotations

import base64
import datetime as dt
import ipaddress
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_LIFETIME = dt.timedelta(days=365)
_SKEW = dt.timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Pair:
    """PEM files of a certificate and its private key."""

    certificate: Path
    key: Path


class Authority:
    """A CA whose files lie in `folder`; made on first use, read afterwards."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self.files = Pair(folder / f"{name}.crt", folder / f"{name}.key")
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not self.files.certificate.exists():
            key = ec.generate_private_key(ec.SECP256R1())
            subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"kekkai local {name}")])
            builder = _builder(subject, subject, key.public_key(), key.public_key())
            builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            builder = builder.add_extension(_usage(ca=True), critical=True)
            _write(self.files, builder.sign(key, hashes.SHA256()), key)
        self._certificate = x509.load_pem_x509_certificate(self.files.certificate.read_bytes())
        loaded = serialization.load_pem_private_key(self.files.key.read_bytes(), None)
        assert isinstance(loaded, ec.EllipticCurvePrivateKey)
        self._key = loaded

    def client(self, name: str, user: str, groups: Sequence[str] = ()) -> Pair:
        """A client certificate: CN is the user, O are the groups."""
        attributes = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
        subject = x509.Name([*attributes, x509.NameAttribute(NameOID.COMMON_NAME, user)])
        return self._leaf(name, subject, (ExtendedKeyUsageOID.CLIENT_AUTH,), ())

    def server(self, name: str, hosts: Sequence[str], peer: bool = False) -> Pair:
        """A server certificate for DNS names and addresses; a `peer` may act as a client too."""
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hosts[0])])
        client = (ExtendedKeyUsageOID.CLIENT_AUTH,) if peer else ()
        return self._leaf(name, subject, (ExtendedKeyUsageOID.SERVER_AUTH, *client), hosts)

    def _leaf(
        self, name: str, subject: x509.Name, purposes: Sequence[x509.ObjectIdentifier], hosts: Sequence[str]
    ) -> Pair:
        files = Pair(self.folder / f"{name}.crt", self.folder / f"{name}.key")
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(subject, self._certificate.subject, key.public_key(), self._key.public_key())
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(_usage(ca=False), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage(list(purposes)), critical=False)
        if hosts:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([_host(host) for host in hosts]), critical=False
            )
        _write(files, builder.sign(self._key, hashes.SHA256()), key)
        return files


def service_account_key(folder: Path) -> Pair:
    """The key pair that signs service-account tokens (RSA, as API servers expect by default)."""
    files = Pair(folder / "service-account.pub", folder / "service-account.key")
    if not files.key.exists():
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        public = key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        _private_file(files.certificate, public)
        _private_file(files.key, _pem(key))
    return files


def kubeconfig(path: Path, server: str, ca: Path, pair: Pair) -> Path:
    """A kubeconfig with everything embedded, so that the file can be handed to a person."""

    def text(file: Path) -> str:
        return base64.b64encode(file.read_bytes()).decode()

    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "kekkai",
        "contexts": [{"name": "kekkai", "context": {"cluster": "kekkai", "user": "kekkai"}}],
        "clusters": [{"name": "kekkai", "cluster": {"server": server, "certificate-authority-data": text(ca)}}],
        "users": [
            {
                "name": "kekkai",
                "user": {"client-certificate-data": text(pair.certificate), "client-key-data": text(pair.key)},
            }
        ],
    }
    _private_file(path, yaml.safe_dump(document, sort_keys=False).encode())
    return path


def _builder(
    subject: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey, signer: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(now + _LIFETIME)
        # Python 3.13's strict verification asks for both identifiers (RFC 5280, 4.2.1.1 and 4.2.1.2).
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer), critical=False)
    )


def _usage(ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write(files: Pair, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
    _private_file(files.key, _pem(key))
    _private_file(files.certificate, certificate.public_bytes(serialization.Encoding.PEM))


def _private_file(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
