"""Attestation tokens: EAR claims in an ES256 JWT, signed by the HSM, read back by this service only.

The guest's public key is inside, where Trustee puts it, so that a stolen token yields only
ciphertext to the attested key.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from crds.errors import KekkaiError, Unauthenticated
from keymgmt import strict_json
from keymgmt.attestation.ear import PROFILE
from keymgmt.broker.submods import init_data_of, report_data_of
from keymgmt.wrapping.recipients import b64url

LIFETIME = 300  # seconds
MAX_TOKEN = 32 * 1024
_REMEMBERED = 4096
ANNOTATED = "ear.veraison.annotated-evidence"
VERIFIER = {"developer": "https://kekkai.dev", "build": "kekkai-keymgmt 0.1.0"}
Sign = Callable[[bytes], bytes]


class TokenInvalid(Unauthenticated):
    """The token is not ours, changed, or expired."""

    reason = "TokenInvalid"


class TokenKey:
    """The public half of the HSM's token key, and the two directions of its use."""

    def __init__(self, point: bytes, issuer: str) -> None:
        """`point`: uncompressed P-256 point, 65 bytes."""
        self._public = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)
        self._issuer = issuer
        self._made: dict[bytes, None] = {}
        coordinates = {"crv": "P-256", "kty": "EC", "x": b64url(point[1:33]), "y": b64url(point[33:])}
        self.kid = b64url(hashlib.sha256(strict_json.canonical(coordinates)).digest())
        self.jwk = {**coordinates, "alg": "ES256", "use": "sig", "kid": self.kid}
        header = {"alg": "ES256", "kid": self.kid, "typ": "JWT"}
        self._header = b64url(json.dumps(header, separators=(",", ":")).encode())

    def unsigned(
        self,
        submod: Mapping[str, Any],
        evidence: str,
        tee_key: Mapping[str, Any],
        nonce: str,
        session: str,
        now: int,
        devices: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> bytes:
        """The signing input of a token for `submod` (`cpu0`) and further `devices` (`gpu0`, …).

        `session` is the hash of the session id.
        """
        annotated = {
            "init_data": init_data_of(submod),
            "report_data": report_data_of(submod),
            "runtime_data_claims": {"nonce": nonce, "tee-pubkey": dict(tee_key)},
        }
        claims = {
            "eat_profile": PROFILE,
            "iss": self._issuer,
            "iat": now,
            "nbf": now,
            "exp": now + LIFETIME,
            "jti": session,
            "ear.verifier-id": VERIFIER,
            "submods": {"cpu0": {**submod, ANNOTATED: annotated}, **(devices or {})},
            "kekkai.evidence": evidence,
        }
        return f"{self._header}.{b64url(json.dumps(claims, separators=(',', ':')).encode())}".encode()

    def verify(self, token: str, now: int) -> dict[str, Any]:
        """The claims of a token that this service signed. Raises TokenInvalid."""
        parts = token.split(".")
        # The header is compared as text: there is no algorithm to choose.
        if len(token) > MAX_TOKEN or len(parts) != 3 or parts[0] != self._header:
            raise TokenInvalid("not a token of this service", where="token")
        if hashlib.sha256(token.encode()).digest() not in self._made:
            self._verify_signature(parts)
        claims = _claims(_decode(parts[1]))
        if not claims["nbf"] <= now < claims["exp"] or claims.get("iss") != self._issuer:
            raise TokenInvalid("the token expired", where="token", fix="attest again", reason="TokenExpired")
        return claims

    def assemble(self, signing_input: bytes, signature: bytes) -> str:
        """The token, once the HSM has signed (64 bytes). One that was made here is known again without its signature.

        What is remembered is the digest of the whole token, of the last few thousand.
        """
        token = f"{signing_input.decode()}.{b64url(signature)}"
        if len(self._made) >= _REMEMBERED:
            del self._made[next(iter(self._made))]
        self._made[hashlib.sha256(token.encode()).digest()] = None
        return token

    def _verify_signature(self, parts: list[str]) -> None:
        signature = _decode(parts[2])
        if len(signature) != 64:
            raise TokenInvalid("not a token of this service", where="token")
        r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
        try:
            self._public.verify(
                encode_dss_signature(r, s), f"{parts[0]}.{parts[1]}".encode(), ec.ECDSA(hashes.SHA256())
            )
        except InvalidSignature:
            raise TokenInvalid("the signature does not verify", where="token") from None


def tee_key_of(claims: Mapping[str, Any]) -> dict[str, Any]:
    """The guest's public key that a token is bound to."""
    key = claims["submods"]["cpu0"][ANNOTATED]["runtime_data_claims"]["tee-pubkey"]
    assert isinstance(key, dict)
    return key


def _claims(payload: bytes) -> dict[str, Any]:
    try:
        return strict_json.parse_object(payload, limit=MAX_TOKEN)
    except KekkaiError:
        raise TokenInvalid("not a token of this service", where="token") from None


def _decode(text: str) -> bytes:
    try:
        return base64.urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))
    except (binascii.Error, ValueError, UnicodeEncodeError):
        raise TokenInvalid("not base64url", where="token") from None
