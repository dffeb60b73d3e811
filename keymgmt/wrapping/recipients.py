"""Guests' public keys: the `tee-pubkey` JWKs that a key may be wrapped for, checked before anything is released.

EC P-256 and P-521 with ECDH-ES+A256KW, RSA with RSA-OAEP-256, ML-KEM-768+A192KW as Trustee's
experimental clients send it, and the hybrid of ML-KEM-768 and X25519 by HPKE that our own
guest uses unless told otherwise: `{"kty":"AKP","alg":"HPKE-MLKEM768-X25519","pub":…}` with
pub = ML-KEM-768 encapsulation key (1,184 bytes) ‖ X25519 public key (32 bytes).
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives import hashes, hpke
from cryptography.hazmat.primitives.asymmetric import ec, mlkem, rsa, x25519

from crds.errors import InvalidInput

ECDH_ES_A256KW = "ECDH-ES+A256KW"
RSA_OAEP_256 = "RSA-OAEP-256"
ML_KEM_768_A192KW = "ML-KEM-768+A192KW"
HPKE_ML_KEM_768_X25519 = "HPKE-MLKEM768-X25519"
ML_KEM_768_KEY_BYTES, X25519_KEY_BYTES = 1184, 32
CURVES: dict[str, tuple[ec.EllipticCurve, int]] = {"P-256": (ec.SECP256R1(), 32), "P-521": (ec.SECP521R1(), 66)}
MIN_RSA_BITS, MAX_RSA_BITS = 2048, 8192
_BASE64URL = re.compile(r"[A-Za-z0-9_-]{1,1700}", re.ASCII)
_THUMBPRINT_MEMBERS = {"EC": ("crv", "kty", "x", "y"), "RSA": ("e", "kty", "n"), "AKP": ("alg", "kty", "pub")}


class TeeKeyInvalid(InvalidInput):
    """The guest's public key is of no known kind, or not a valid key of its kind."""

    reason = "TeeKeyInvalid"


@dataclass(frozen=True, slots=True)
class TeeKey:
    """A guest's public key with the JOSE algorithm it asked for; `curve` is of EC keys only."""

    algorithm: str
    curve: str
    key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey | mlkem.MLKEM768PublicKey | hpke.MLKEM768X25519PublicKey


def parse_tee_key(jwk: object) -> TeeKey:
    """A `tee-pubkey` JWK. Raises TeeKeyInvalid."""
    if not isinstance(jwk, Mapping) or len(jwk) > 16:
        raise TeeKeyInvalid("a JWK object is expected", where="tee-pubkey")
    kty, algorithm, curve = jwk.get("kty"), jwk.get("alg"), jwk.get("crv")
    if kty == "EC" and algorithm == ECDH_ES_A256KW and isinstance(curve, str) and curve in CURVES:
        return _parse_ec(jwk)
    if kty == "RSA" and algorithm == RSA_OAEP_256:
        return _parse_rsa(jwk)
    if kty == "AKP" and algorithm == ML_KEM_768_A192KW:
        return TeeKey(ML_KEM_768_A192KW, "", _ml_kem(_raw(jwk, "pub", ML_KEM_768_KEY_BYTES)))
    if kty == "AKP" and algorithm == HPKE_ML_KEM_768_X25519:
        return _parse_hybrid(jwk)
    raise TeeKeyInvalid(
        "the key type and algorithm are not supported",
        where="tee-pubkey",
        fix=f"use AKP with {HPKE_ML_KEM_768_X25519} or {ML_KEM_768_A192KW}, EC P-256 or P-521 with {ECDH_ES_A256KW}, "
        f"or RSA with {RSA_OAEP_256}",
    )


def thumbprint(jwk: Mapping[str, Any]) -> str:
    """RFC 7638 thumbprint (base64url SHA-256) of a key that `parse_tee_key` accepted."""
    digest = hashes.Hash(hashes.SHA256())
    digest.update(compact({name: jwk[name] for name in _THUMBPRINT_MEMBERS[jwk["kty"]]}))
    return b64url(digest.finalize())


def raw_point(jwk: Mapping[str, Any]) -> bytes:
    """The uncompressed point (65 bytes) of a P-256 public key. Raises TeeKeyInvalid."""
    if jwk.get("kty") != "EC" or jwk.get("crv") != "P-256":
        raise TeeKeyInvalid("an EC P-256 key is expected", where="jwk")
    return b"\x04" + _raw(jwk, "x", 32) + _raw(jwk, "y", 32)


def b64url(data: bytes) -> str:
    """base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def compact(document: Mapping[str, Any]) -> bytes:
    """JSON without spaces, members in the order given."""
    return json.dumps(document, separators=(",", ":")).encode()


def _parse_ec(jwk: Mapping[str, Any]) -> TeeKey:
    curve, size = CURVES[jwk["crv"]]
    x, y = (int.from_bytes(_raw(jwk, name, size), "big") for name in ("x", "y"))
    try:
        key = ec.EllipticCurvePublicNumbers(x, y, curve).public_key()
    except ValueError:
        raise TeeKeyInvalid("the point is not on the curve", where="tee-pubkey") from None
    return TeeKey(ECDH_ES_A256KW, jwk["crv"], key)


def _parse_rsa(jwk: Mapping[str, Any]) -> TeeKey:
    n, e = (int.from_bytes(_raw(jwk, name), "big") for name in ("n", "e"))
    if not MIN_RSA_BITS <= n.bit_length() <= MAX_RSA_BITS or e not in (3, 17, 65537):
        raise TeeKeyInvalid(f"an RSA key has {MIN_RSA_BITS} to {MAX_RSA_BITS} bits", where="tee-pubkey")
    try:
        return TeeKey(RSA_OAEP_256, "", rsa.RSAPublicNumbers(e, n).public_key())
    except ValueError:
        raise TeeKeyInvalid("not an RSA key", where="tee-pubkey") from None


def _parse_hybrid(jwk: Mapping[str, Any]) -> TeeKey:
    raw = _raw(jwk, "pub", ML_KEM_768_KEY_BYTES + X25519_KEY_BYTES)
    lattice = _ml_kem(raw[:ML_KEM_768_KEY_BYTES])
    curve = x25519.X25519PublicKey.from_public_bytes(raw[ML_KEM_768_KEY_BYTES:])
    try:
        # A point of small order would fail only after the run was used up: it is found here.
        x25519.X25519PrivateKey.generate().exchange(curve)
    except ValueError:
        raise TeeKeyInvalid("the X25519 point has a small order", where="tee-pubkey.pub") from None
    return TeeKey(HPKE_ML_KEM_768_X25519, "", hpke.MLKEM768X25519PublicKey(lattice, curve))


def _ml_kem(raw: bytes) -> mlkem.MLKEM768PublicKey:
    try:
        return mlkem.MLKEM768PublicKey.from_public_bytes(raw)
    except ValueError:
        # FIPS 203 section 7.2: a coefficient is not below the modulus.
        raise TeeKeyInvalid("not an ML-KEM-768 encapsulation key", where="tee-pubkey.pub") from None


def _raw(jwk: Mapping[str, Any], name: str, size: int | None = None) -> bytes:
    text = jwk.get(name)
    if not isinstance(text, str) or not _BASE64URL.fullmatch(text):
        raise TeeKeyInvalid("base64url without padding is expected", where=f"tee-pubkey.{name}")
    try:
        raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError):
        raise TeeKeyInvalid("not base64url", where=f"tee-pubkey.{name}") from None
    if size is not None and len(raw) != size:
        raise TeeKeyInvalid(f"{size} bytes are expected", where=f"tee-pubkey.{name}")
    return raw
