"""Signing keys kept outside a token that lacks the algorithm: at rest sealed by the token."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import cbor2
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from keymgmt.hsm.protocol import HsmError
from keymgmt.sealing.format import DataKeyAlgorithm, EncryptedDataKey

if TYPE_CHECKING:
    from keymgmt.sealing.seal import DataKeyCipher


class SoftwareKey:
    """An Ed25519 ("log") or P-256 ("ear") private key made from a 32-byte secret."""

    def __init__(self, name: str, secret: bytes) -> None:
        self._key: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey
        if name == "log":
            self._key = ed25519.Ed25519PrivateKey.from_private_bytes(secret)
        else:
            # A uniform 256-bit number is a valid P-256 scalar but for a chance of 2**-32.
            self._key = ec.derive_private_key(int.from_bytes(secret, "big"), ec.SECP256R1())

    def public_bytes(self) -> bytes:
        """Raw Ed25519 key, or uncompressed P-256 point."""
        if isinstance(self._key, ed25519.Ed25519PrivateKey):
            return self._key.public_key().public_bytes_raw()
        return self._key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)

    def sign(self, message: bytes) -> bytes:
        """64 bytes: an Ed25519 signature, or r ‖ s over SHA-256."""
        if isinstance(self._key, ed25519.Ed25519PrivateKey):
            return self._key.sign(message)
        r, s = decode_dss_signature(self._key.sign(message, ec.ECDSA(hashes.SHA256())))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")

    @classmethod
    def load_or_make(cls, path: Path, name: str, hsm_key_id: bytes, cipher: DataKeyCipher) -> SoftwareKey:
        """Open the sealed file, or make it. Raises HsmError if the token does not open it."""
        aad = b"kekkai/software-key\x00" + name.encode()
        if path.exists():
            fields = cbor2.loads(path.read_bytes(), max_depth=2)
            if type(fields) is not list or len(fields) != 4:
                raise HsmError("a sealed service key is damaged", where=str(path), fix="restore it")
            encrypted = EncryptedDataKey(DataKeyAlgorithm(fields[0]), *fields[1:])
            return cls(name, cipher.decrypt_data_key(encrypted, aad))
        secret = os.urandom(32)
        key = cls(name, secret)
        encrypted = cipher.encrypt_data_key(hsm_key_id, secret, aad)
        document = cbor2.dumps([int(encrypted.algorithm), encrypted.hsm_key_id, encrypted.iv, encrypted.ciphertext])
        temporary = path.with_suffix(".tmp")
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(document)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        return key
