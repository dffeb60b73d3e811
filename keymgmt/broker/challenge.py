"""Challenges without memory: the nonce proves itself, so asking for one costs the service nothing.

    nonce = expiry (8 bytes, Unix seconds) ‖ HMAC-SHA256(secret, label ‖ tee ‖ session ‖ expiry)[:24]

It goes out as standard base64 of 32 bytes, as Trustee's does. Any replica with the same secret
can check it. What makes it single-use is the session's row, written when it is answered.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import uuid
from dataclasses import dataclass

from crds.errors import Unauthenticated

SUPPORTED_TEES = ("snp", "tdx", "sgx", "nitro", "az-snp-vtpm")
SESSION_ID = re.compile(r"[0-9a-f]{32}", re.ASCII)
_LABEL = b"kekkai/challenge\x01"


class ChallengeRefused(Unauthenticated):
    """The nonce is not this session's, or too old."""

    reason = "NonceMismatch"


@dataclass(frozen=True, slots=True)
class Challenge:
    """What `/auth` answers: the cookie, the nonce, and when both end (Unix seconds)."""

    session_id: str
    nonce: str
    expires: int


class Challenger:
    """Issues and checks challenges with a 32-byte secret."""

    def __init__(self, secret: bytes, lifetime: int) -> None:
        self._secret, self._lifetime = secret, lifetime

    def issue(self, tee: str, now: int) -> Challenge:
        """A fresh session and its nonce."""
        session_id = uuid.uuid4().hex
        expires = now + self._lifetime
        raw = expires.to_bytes(8, "big") + self._tag(tee, session_id, expires)
        return Challenge(session_id, base64.b64encode(raw).decode(), expires)

    def check(self, session_id: str, nonce: object, now: int) -> tuple[str, int]:
        """The TEE that the challenge was for, and its expiry. Raises ChallengeRefused."""
        if not isinstance(nonce, str) or len(nonce) != 44:
            raise ChallengeRefused("the nonce is not of this service", where="runtime-data.nonce")
        try:
            raw = base64.b64decode(nonce, validate=True)
        except (binascii.Error, ValueError):
            raise ChallengeRefused("the nonce is not of this service", where="runtime-data.nonce") from None
        expires = int.from_bytes(raw[:8], "big")
        # The tag first: what is not ours must not even learn how we read its expiry.
        if len(raw) == 32 and expires < 1 << 40:
            for tee in SUPPORTED_TEES:
                if hmac.compare_digest(raw[8:], self._tag(tee, session_id, expires)):
                    if expires <= now:
                        raise ChallengeRefused(
                            "the challenge expired", where="runtime-data.nonce", reason="NonceExpired"
                        )
                    return tee, expires
        raise ChallengeRefused(
            "the nonce is not of this session", where="runtime-data.nonce", fix="start again at /kbs/v0/auth"
        )

    def _tag(self, tee: str, session_id: str, expires: int) -> bytes:
        message = _LABEL + tee.encode() + b"\0" + session_id.encode() + expires.to_bytes(8, "big")
        return hmac.new(self._secret, message, hashlib.sha256).digest()[:24]
