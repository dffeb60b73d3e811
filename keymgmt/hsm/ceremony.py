"""The key ceremony: nobody alone holds the token's PIN.

The PIN is 16 random bytes in hex. Shamir's scheme splits it M of N (over GF(2^128), as in
pycryptodome); each share lies in a file of its own under its holder's passphrase (scrypt,
RFC 7914, and AES-256-GCM). The transcript says what was done, with commitments to PIN and
shares, and is signed by the holders. Without M shares the service cannot log in to its token.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from Crypto.Protocol.SecretSharing import Shamir
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from crds.errors import InvalidInput

SHARE_VERSION = "kekkai.dev/ceremony-share/v1"
TRANSCRIPT_VERSION = "kekkai.dev/ceremony-transcript/v1"
SECRET_BYTES = 16
MAX_HOLDERS = 32
MIN_PASSPHRASE = 12
_COST = {"n": 1 << 15, "r": 8, "p": 1}  # about 0.1 s and 32 MiB


class ShareInvalid(InvalidInput):
    """A share does not open, is not of this ceremony, or too few were given."""

    reason = "ShareInvalid"


@dataclass(frozen=True, slots=True)
class Share:
    """One holder's share in the clear: it exists only between a prompt and a file."""

    ceremony: str  # 16 hex digits
    index: int
    threshold: int
    holder: str
    value: bytes

    @property
    def commitment(self) -> str:
        """What the transcript says of it: SHA-256, hex. The value is 128 random bits, so nothing can be guessed."""
        return hashlib.sha256(b"kekkai/share\0" + self.ceremony.encode() + bytes([self.index]) + self.value).hexdigest()


def make_pin() -> str:
    """A new PIN: 32 hex digits."""
    return os.urandom(SECRET_BYTES).hex()


def split(pin: str, threshold: int, holders: Sequence[str]) -> list[Share]:
    """A share for each holder, any `threshold` of which give the PIN. Raises InvalidInput."""
    if not 2 <= threshold <= len(holders) <= MAX_HOLDERS:
        raise InvalidInput(
            f"{threshold} of {len(holders)} is no quorum",
            where="--threshold",
            fix=f"2 or more, of at most {MAX_HOLDERS} holders",
        )
    if len(set(holders)) != len(holders) or not all(holders):
        raise InvalidInput("holders need different names", where="--holder")
    ceremony = os.urandom(8).hex()
    parts = Shamir.split(threshold, len(holders), bytes.fromhex(pin))
    return [
        Share(ceremony, index, threshold, holder, value) for (index, value), holder in zip(parts, holders, strict=True)
    ]


def combine(shares: Sequence[Share], transcript: Mapping[str, Any]) -> str:
    """The PIN from enough shares of the transcript's ceremony. Raises ShareInvalid."""
    if len({share.index for share in shares}) != len(shares):
        raise ShareInvalid("a share was given twice", where="shares")
    committed = {int(one["index"]): str(one["commitment"]) for one in transcript["shares"]}
    for share in shares:
        if share.ceremony != transcript["ceremony"] or committed.get(share.index) != share.commitment:
            raise ShareInvalid("the share is not of this ceremony", where=share.holder)
    if len(shares) < int(transcript["threshold"]):
        raise ShareInvalid(f"{transcript['threshold']} shares are needed, {len(shares)} were given", where="shares")
    pin = bytes(Shamir.combine([(share.index, share.value) for share in shares])).hex()
    if not hmac.compare_digest(pin_commitment(pin, str(transcript["ceremony"])), str(transcript["pinCommitment"])):
        raise ShareInvalid("the shares do not give the token's PIN", where="shares")
    return pin


def pin_commitment(pin: str, ceremony: str) -> str:
    """SHA-256, hex, of the PIN with the ceremony's id."""
    return hashlib.sha256(f"kekkai/pin\0{ceremony}\0{pin}".encode()).hexdigest()


def lock(share: Share, passphrase: bytes) -> dict[str, Any]:
    """The share as a file under its holder's passphrase. Raises InvalidInput for a short one."""
    if len(passphrase) < MIN_PASSPHRASE:
        raise InvalidInput(f"at least {MIN_PASSPHRASE} characters", where=f"passphrase of {share.holder}")
    salt, nonce = os.urandom(16), os.urandom(12)
    head: dict[str, Any] = {
        "apiVersion": SHARE_VERSION,
        "ceremony": share.ceremony,
        "index": share.index,
        "threshold": share.threshold,
        "holder": share.holder,
    }
    key = Scrypt(salt, 32, **_COST).derive(passphrase)
    sealed = AESGCM(key).encrypt(nonce, share.value, _bound(head))
    return {**head, "salt": _text(salt), "nonce": _text(nonce), "sealed": _text(sealed)}


def unlock(document: Mapping[str, Any], passphrase: bytes) -> Share:
    """Inverse of `lock`. Raises ShareInvalid."""
    try:
        if document["apiVersion"] != SHARE_VERSION:
            raise ShareInvalid(f"{SHARE_VERSION} is expected", where="apiVersion")
        head = {name: document[name] for name in ("apiVersion", "ceremony", "index", "threshold", "holder")}
        salt, nonce, sealed = (base64.b64decode(document[name], validate=True) for name in ("salt", "nonce", "sealed"))
        index, threshold = int(head["index"]), int(head["threshold"])
    except (KeyError, TypeError, ValueError, binascii.Error):
        raise ShareInvalid("not a share file", where="share") from None
    if len(salt) != 16 or len(nonce) != 12 or len(sealed) != SECRET_BYTES + 16:
        raise ShareInvalid("not a share file", where="share")
    key = Scrypt(salt, 32, **_COST).derive(passphrase)
    try:
        value = AESGCM(key).decrypt(nonce, sealed, _bound(head))
    except InvalidTag:
        raise ShareInvalid(
            "the passphrase does not open it, or it was changed", where=str(head["holder"])[:64]
        ) from None
    return Share(str(head["ceremony"]), index, threshold, str(head["holder"]), value)


def transcript(shares: Sequence[Share], pin: str, facts: Mapping[str, Any], now: datetime) -> dict[str, Any]:
    """What the holders sign. `facts`: the token, its mechanisms and its public keys."""
    first = shares[0]
    return {
        "apiVersion": TRANSCRIPT_VERSION,
        "ceremony": first.ceremony,
        "at": now.isoformat(timespec="seconds"),
        "threshold": first.threshold,
        "pinCommitment": pin_commitment(pin, first.ceremony),
        "shares": [{"index": share.index, "holder": share.holder, "commitment": share.commitment} for share in shares],
        **facts,
    }


def _bound(head: Mapping[str, Any]) -> bytes:
    return "\0".join(str(head[name]) for name in ("apiVersion", "ceremony", "index", "threshold", "holder")).encode()


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
