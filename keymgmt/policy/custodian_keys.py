"""Custodians' key files: PEM, private ones only readable by their owner and under a passphrase."""

from __future__ import annotations

import base64
import hashlib
import os
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from crds.errors import InvalidInput
from keymgmt.policy.custodians import Custodian
from keymgmt.policy.dsse import Algorithm, PrivateKey, PublicKey, algorithm_of

MAX_KEY_FILE = 64 * 1024


def generate(algorithm: Algorithm) -> PrivateKey:
    """A new private key."""
    if algorithm == "ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    if algorithm == "ecdsa-p256":
        return ec.generate_private_key(ec.SECP256R1())
    return mldsa.MLDSA65PrivateKey.generate()


def save(private: PrivateKey, path: Path, passphrase: bytes | None) -> Path:
    """Write `path` (mode 0600) and `path`.pub. Refuses to overwrite. Returns the public file's path."""
    encryption = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
    public_path = path.with_name(path.name + ".pub")
    write_private(path, private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))
    public = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    public_path.write_bytes(public)
    return public_path


def write_private(path: Path, content: bytes) -> None:
    """Write a file that only its owner may read. Raises InvalidInput if it exists."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise InvalidInput("the file exists", where=str(path), fix="choose another name or remove it") from None
    except OSError as error:
        raise InvalidInput(f"cannot be written: {error.strerror}", where=str(path)) from None
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def is_encrypted(path: Path) -> bool:
    """Whether a private key file wants a passphrase."""
    return b"ENCRYPTED" in _read(path)


def load_private(path: Path, passphrase: bytes | None) -> PrivateKey:
    """Read a private key file. Raises InvalidInput."""
    try:
        key = load_pem_private_key(_read(path), passphrase)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise InvalidInput(
            "not a private key, or the passphrase is wrong", where=str(path), fix="check file and passphrase"
        ) from None
    if algorithm_of(key) is None:
        raise InvalidInput("not a custodian's kind of key", where=str(path), fix="use Ed25519, P-256 or ML-DSA-65")
    assert isinstance(key, ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey | mldsa.MLDSA65PrivateKey)
    return key


def load_custodian(path: Path) -> Custodian:
    """A custodian's entry out of a public key file. Raises InvalidInput."""
    try:
        key = load_pem_public_key(_read(path))
    except (ValueError, UnsupportedAlgorithm):
        raise InvalidInput("not a public key in PEM", where=str(path), fix="give the .pub file") from None
    algorithm = algorithm_of(key)
    if algorithm is None:
        raise InvalidInput("not a custodian's kind of key", where=str(path), fix="use Ed25519, P-256 or ML-DSA-65")
    assert isinstance(key, ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey | mldsa.MLDSA65PublicKey)
    return Custodian(keyid=keyid_of(key), algorithm=algorithm, public_key=base64.b64encode(_spki(key)).decode())


def keyid_of(key: PublicKey | PrivateKey) -> str:
    """`sha256:<hex>` of the public key's SPKI DER: how our files name a custodian."""
    private = isinstance(key, ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey | mldsa.MLDSA65PrivateKey)
    public = key.public_key() if private else key  # type: ignore[union-attr]
    return "sha256:" + hashlib.sha256(_spki(public)).hexdigest()  # type: ignore[arg-type]


def _spki(key: PublicKey) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_KEY_FILE + 1)
    except OSError as error:
        raise InvalidInput(f"cannot be read: {error.strerror}", where=str(path)) from None
    if len(data) > MAX_KEY_FILE:
        raise InvalidInput("larger than a key file", where=str(path))
    return data
