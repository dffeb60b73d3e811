"""What a key does for an attested guest without leaving the worker: encrypt, decrypt, make data keys, sign.

A message is encrypted by AES-256-GCM under a key of its own, HKDF-SHA256(key, random salt), so
that the number of messages under one key version is not bounded by its nonces:

    ciphertext = 0x01 ‖ version (4 bytes) ‖ salt (32 bytes) ‖ AES-256-GCM(message) ‖ tag (16 bytes)
    AAD        = "kekkai/transit" ‖ 0x01 ‖ version ‖ length of the key's name (2 bytes) ‖ name ‖ the caller's
                 associated data

Signatures are Ed25519 (RFC 8032) or ML-DSA-65 (FIPS 204); their key is a seed of 32 bytes.
"""

from __future__ import annotations

import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ed25519, mldsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from crds.errors import InvalidInput

MAX_MESSAGE = 256 * 1024
DATA_KEY_BYTES = 32
_FORMAT = b"\x01"
_LABEL = b"kekkai/transit" + _FORMAT
_SALT, _TAG = 32, 16
_HEAD = 1 + 4 + _SALT


class CiphertextInvalid(InvalidInput):
    """Not a ciphertext of this key, or changed, or with other associated data."""

    reason = "CiphertextInvalid"


def encrypt(key: bytes, version: int, name: str, message: bytes, associated: bytes = b"") -> bytes:
    """Encrypt under a key version; `name` is namespace/name of the key."""
    _require_size(message)
    salt = os.urandom(_SALT)
    head = _FORMAT + version.to_bytes(4, "big") + salt
    derived, nonce = _derived(key, salt)
    return head + AESGCM(derived).encrypt(nonce, message, _bound(version, name, associated))


def decrypt(key: bytes, version: int, name: str, ciphertext: bytes, associated: bytes = b"") -> bytes:
    """Inverse of `encrypt`. Raises CiphertextInvalid."""
    if version_of(ciphertext) != version:
        raise CiphertextInvalid("encrypted under another version", where="ciphertext")
    derived, nonce = _derived(key, ciphertext[5:_HEAD])
    try:
        return AESGCM(derived).decrypt(nonce, ciphertext[_HEAD:], _bound(version, name, associated))
    except InvalidTag:
        raise CiphertextInvalid(
            "it does not open under this key",
            where="ciphertext",
            fix="give the key and the associated data that it was encrypted with",
        ) from None


def version_of(ciphertext: bytes) -> int:
    """The key version that a ciphertext names. Raises CiphertextInvalid."""
    if not _HEAD + _TAG <= len(ciphertext) <= _HEAD + _TAG + MAX_MESSAGE or ciphertext[:1] != _FORMAT:
        raise CiphertextInvalid("not a ciphertext of this service", where="ciphertext")
    return int.from_bytes(ciphertext[1:5], "big")


def sign(seed: bytes, algorithm: str, message: bytes) -> bytes:
    """Sign a message. Raises InvalidInput for a key that does not sign."""
    _require_size(message)
    return _signer(seed, algorithm).sign(message)


def public_key(seed: bytes, algorithm: str) -> bytes:
    """The raw public key: 32 bytes for Ed25519, 1,952 for ML-DSA-65."""
    return _signer(seed, algorithm).public_key().public_bytes_raw()


def _signer(seed: bytes, algorithm: str) -> ed25519.Ed25519PrivateKey | mldsa.MLDSA65PrivateKey:
    if algorithm == "ED25519":
        return ed25519.Ed25519PrivateKey.from_private_bytes(seed)
    if algorithm == "ML-DSA-65":
        return mldsa.MLDSA65PrivateKey.from_seed_bytes(seed)
    raise InvalidInput(f"a key of algorithm {algorithm} does not sign", where="algorithm")


def _derived(key: bytes, salt: bytes) -> tuple[bytes, bytes]:
    material = HKDF(hashes.SHA256(), 32 + 12, salt, _LABEL).derive(key)
    return material[:32], material[32:]


def _bound(version: int, name: str, associated: bytes) -> bytes:
    encoded = name.encode()
    return _LABEL + version.to_bytes(4, "big") + len(encoded).to_bytes(2, "big") + encoded + associated


def _require_size(message: bytes) -> None:
    if len(message) > MAX_MESSAGE:
        raise InvalidInput(
            f"a message has at most {MAX_MESSAGE} bytes", where="message", fix="encrypt under a data key instead"
        )
