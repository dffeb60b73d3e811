"""Wrapping a key for a guest: flattened JWE with A256GCM (RFC 7516), as Trustee's guests read it.

ECDH-ES+A256KW on P-256 and P-521, and RSA-OAEP-256. Trustee's guests rebuild the protected
header from its parsed form before they authenticate it, so its bytes must be exactly
`{"alg":…,"enc":…,"epk":{"crv":…,"kty":…,"x":…,"y":…}}`: that order, no spaces.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.concatkdf import ConcatKDFHash
from cryptography.hazmat.primitives.keywrap import aes_key_wrap

from crds.errors import InvalidInput

ECDH_ES_A256KW = "ECDH-ES+A256KW"
RSA_OAEP_256 = "RSA-OAEP-256"
_CURVES: dict[str, tuple[ec.EllipticCurve, int]] = {"P-256": (ec.SECP256R1(), 32), "P-521": (ec.SECP521R1(), 66)}
_BASE64URL = re.compile(r"[A-Za-z0-9_-]{1,1400}", re.ASCII)
MIN_RSA_BITS, MAX_RSA_BITS = 2048, 8192


class TeeKeyInvalid(InvalidInput):
    """The guest's public key is of no known kind, or not a valid key of its kind."""

    reason = "TeeKeyInvalid"


@dataclass(frozen=True, slots=True)
class TeeKey:
    """A guest's public key with the JOSE algorithm it asked for."""

    algorithm: str
    curve: str
    key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey


def parse_tee_key(jwk: object) -> TeeKey:
    """A `tee-pubkey` JWK. Raises TeeKeyInvalid."""
    if not isinstance(jwk, Mapping) or len(jwk) > 16:
        raise TeeKeyInvalid("a JWK object is expected", where="tee-pubkey")
    kty, algorithm = jwk.get("kty"), jwk.get("alg")
    curve = jwk.get("crv")
    if kty == "EC" and algorithm == ECDH_ES_A256KW and isinstance(curve, str) and curve in _CURVES:
        return _parse_ec(jwk)
    if kty == "RSA" and algorithm == RSA_OAEP_256:
        return _parse_rsa(jwk)
    raise TeeKeyInvalid(
        "the key type and algorithm are not supported",
        where="tee-pubkey",
        fix="use EC P-256 or P-521 with ECDH-ES+A256KW, or RSA with RSA-OAEP-256",
    )


def thumbprint(jwk: Mapping[str, Any]) -> str:
    """RFC 7638 thumbprint (base64url SHA-256) of a key that `parse_tee_key` accepted."""
    members = ("crv", "kty", "x", "y") if jwk["kty"] == "EC" else ("e", "kty", "n")
    digest = hashes.Hash(hashes.SHA256())
    digest.update(_compact({name: jwk[name] for name in members}))
    return b64url(digest.finalize())


def encrypt(plaintext: bytes, recipient: TeeKey) -> str:
    """The flattened JWE as JSON text."""
    content_key = os.urandom(32)
    header: dict[str, Any] = {"alg": recipient.algorithm, "enc": "A256GCM"}
    if isinstance(recipient.key, rsa.RSAPublicKey):
        oaep = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)
        encrypted_key = recipient.key.encrypt(content_key, oaep)
    else:
        curve, size = _CURVES[recipient.curve]
        ephemeral = ec.generate_private_key(curve)
        shared = ephemeral.exchange(ec.ECDH(), recipient.key)
        encrypted_key = aes_key_wrap(_derive(shared), content_key)
        point = ephemeral.public_key().public_numbers()
        header["epk"] = {
            "crv": recipient.curve,
            "kty": "EC",
            "x": b64url(point.x.to_bytes(size, "big")),
            "y": b64url(point.y.to_bytes(size, "big")),
        }
    protected = b64url(_compact(header))
    iv = os.urandom(12)
    sealed = AESGCM(content_key).encrypt(iv, plaintext, protected.encode())
    return _compact(
        {
            "protected": protected,
            "encrypted_key": b64url(encrypted_key),
            "iv": b64url(iv),
            "ciphertext": b64url(sealed[:-16]),
            "tag": b64url(sealed[-16:]),
        }
    ).decode()


def _derive(shared: bytes) -> bytes:
    """Concat KDF of RFC 7518 section 4.6.2 for a 256-bit key-wrapping key, no party information."""
    name = ECDH_ES_A256KW.encode()
    info = len(name).to_bytes(4, "big") + name + bytes(4) + bytes(4) + (256).to_bytes(4, "big")
    return ConcatKDFHash(hashes.SHA256(), 32, info).derive(shared)


def _parse_ec(jwk: Mapping[str, Any]) -> TeeKey:
    curve, size = _CURVES[jwk["crv"]]
    x, y = _number(jwk, "x", size), _number(jwk, "y", size)
    try:
        key = ec.EllipticCurvePublicNumbers(x, y, curve).public_key()
    except ValueError:
        raise TeeKeyInvalid("the point is not on the curve", where="tee-pubkey") from None
    return TeeKey(ECDH_ES_A256KW, jwk["crv"], key)


def _parse_rsa(jwk: Mapping[str, Any]) -> TeeKey:
    n, e = _number(jwk, "n"), _number(jwk, "e")
    if not MIN_RSA_BITS <= n.bit_length() <= MAX_RSA_BITS or e not in (3, 17, 65537):
        raise TeeKeyInvalid(f"an RSA key has {MIN_RSA_BITS} to {MAX_RSA_BITS} bits", where="tee-pubkey")
    try:
        return TeeKey(RSA_OAEP_256, "", rsa.RSAPublicNumbers(e, n).public_key())
    except ValueError:
        raise TeeKeyInvalid("not an RSA key", where="tee-pubkey") from None


def _number(jwk: Mapping[str, Any], name: str, size: int | None = None) -> int:
    text = jwk.get(name)
    if not isinstance(text, str) or not _BASE64URL.fullmatch(text):
        raise TeeKeyInvalid("base64url without padding is expected", where=f"tee-pubkey.{name}")
    try:
        raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError):
        raise TeeKeyInvalid("not base64url", where=f"tee-pubkey.{name}") from None
    if size is not None and len(raw) != size:
        raise TeeKeyInvalid(f"{size} bytes are expected", where=f"tee-pubkey.{name}")
    return int.from_bytes(raw, "big")


def b64url(data: bytes) -> str:
    """base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _compact(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()
