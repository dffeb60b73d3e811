"""Wrapping a key for a guest: a flattened JWE (RFC 7516), as Trustee's guests read it.

Trustee's guests rebuild the protected header from its parsed form before they authenticate it,
so its bytes must be exactly `{"alg":…,"enc":…,"epk":{"crv":…,"kty":…,"x":…,"y":…}}`: that
order, no spaces. With ML-KEM-768+A192KW the encapsulated secret is the header `ek`, and the
wrapping key comes from KMAC256 (draft-ietf-jose-pqc-kem-05, sections 5.1 and 6.2).

The hybrid is HPKE (RFC 9180) in base mode, KEM ML-KEM-768 + X25519, HKDF-SHA256, AES-256-GCM.
The same JSON members carry it: `encrypted_key` is the encapsulated secret, `iv` and `tag` are
empty, `ciphertext` is HPKE's with its tag, and the protected header is in HPKE's `info`.
"""

from __future__ import annotations

import os
from typing import Any

from Crypto.Hash import KMAC256
from cryptography.hazmat.primitives import hashes, hpke
from cryptography.hazmat.primitives.asymmetric import ec, mlkem, padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.concatkdf import ConcatKDFHash
from cryptography.hazmat.primitives.keywrap import aes_key_wrap

from keymgmt.wrapping.recipients import CURVES, ECDH_ES_A256KW, ML_KEM_768_A192KW, TeeKey, b64url, compact

HPKE_SUITE = hpke.Suite(hpke.KEM.MLKEM768_X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)
HPKE_SECRET_BYTES = 1120  # ML-KEM-768 ciphertext ‖ X25519 ephemeral key
HPKE_INFO = b"kekkai/wrapped-key\x01"


def encrypt(plaintext: bytes, recipient: TeeKey) -> str:
    """The flattened JWE as JSON text."""
    if isinstance(recipient.key, hpke.MLKEM768X25519PublicKey):
        return _encrypt_hybrid(plaintext, recipient.algorithm, recipient.key)
    content_key = os.urandom(32)
    header: dict[str, Any] = {"alg": recipient.algorithm, "enc": "A256GCM"}
    if isinstance(recipient.key, rsa.RSAPublicKey):
        oaep = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)
        encrypted_key = recipient.key.encrypt(content_key, oaep)
    elif isinstance(recipient.key, mlkem.MLKEM768PublicKey):
        shared, encapsulated = recipient.key.encapsulate()
        encrypted_key = aes_key_wrap(kmac_derived(shared), content_key)
        header["ek"] = b64url(encapsulated)
    else:
        curve, size = CURVES[recipient.curve]
        ephemeral = ec.generate_private_key(curve)
        encrypted_key = aes_key_wrap(_concat_derived(ephemeral.exchange(ec.ECDH(), recipient.key)), content_key)
        point = ephemeral.public_key().public_numbers()
        header["epk"] = {
            "crv": recipient.curve,
            "kty": "EC",
            "x": b64url(point.x.to_bytes(size, "big")),
            "y": b64url(point.y.to_bytes(size, "big")),
        }
    protected = b64url(compact(header))
    iv = os.urandom(12)
    sealed = AESGCM(content_key).encrypt(iv, plaintext, protected.encode())
    return _flattened(protected, encrypted_key, iv, sealed[:-16], sealed[-16:])


def kmac_derived(shared: bytes) -> bytes:
    """The 24-byte key-wrapping key of ML-KEM-768+A192KW from a shared secret of 32 bytes."""
    fixed = _named(ML_KEM_768_A192KW) + (192).to_bytes(4, "big")
    return bytes(KMAC256.new(key=shared, data=fixed, mac_len=24).digest())


def _encrypt_hybrid(plaintext: bytes, algorithm: str, key: hpke.MLKEM768X25519PublicKey) -> str:
    protected = b64url(compact({"alg": algorithm}))
    sealed = HPKE_SUITE.encrypt(plaintext, key, info=HPKE_INFO + protected.encode())
    return _flattened(protected, sealed[:HPKE_SECRET_BYTES], b"", sealed[HPKE_SECRET_BYTES:], b"")


def _flattened(protected: str, encrypted_key: bytes, iv: bytes, ciphertext: bytes, tag: bytes) -> str:
    members = {"encrypted_key": encrypted_key, "iv": iv, "ciphertext": ciphertext, "tag": tag}
    return compact({"protected": protected, **{name: b64url(value) for name, value in members.items()}}).decode()


def _concat_derived(shared: bytes) -> bytes:
    """Concat KDF of RFC 7518 section 4.6.2 for a 256-bit key-wrapping key, no party information."""
    info = _named(ECDH_ES_A256KW) + bytes(4) + bytes(4) + (256).to_bytes(4, "big")
    return ConcatKDFHash(hashes.SHA256(), 32, info).derive(shared)


def _named(algorithm: str) -> bytes:
    """AlgorithmID of RFC 7518 section 4.6.2: length-prefixed."""
    return len(algorithm).to_bytes(4, "big") + algorithm.encode()
