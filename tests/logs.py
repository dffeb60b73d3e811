"""Small logs and witnesses in this process, for tests of what an adversary may do to them."""

from __future__ import annotations

from datetime import UTC, datetime

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from keymgmt.transparency import entries as kinds
from keymgmt.transparency.cosignature import ED25519, WitnessKey
from keymgmt.transparency.entries import encode_entry
from keymgmt.transparency.log import TransparencyLog
from keymgmt.transparency.note import VerifierKey
from keymgmt.transparency.witness import Witness, WitnessIdentity, WitnessState
from keymgmt.transparency.witnesses import Cosigner
from keymgmt.transparency.witnesses import Witness as Peer

PRIVATE = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
KEY = VerifierKey("kekkai.test/log", PRIVATE.public_key().public_bytes_raw())
NOW = 1_796_000_000
AT = datetime(2026, 12, 1, tzinfo=UTC)


def release(number, key="aurora-train/dataset", measurement="ab", at=AT):
    """The bytes of a release entry."""
    fields = {"key": key, "tenant": "aurora", "measurement": measurement, "policy": "sha256:p", "count": number}
    return encode_entry(kinds.RELEASE, at, fields)


def open_log(folder, witnesses=None):
    """A log in a folder, signed by KEY."""
    return TransparencyLog(folder, KEY, PRIVATE.sign, (), witnesses)


def identity(number):
    """A witness's key."""
    private = Ed25519PrivateKey.from_private_bytes(bytes([100 + number]) * 32)
    return WitnessIdentity(
        WitnessKey(f"witness.test/w{number}", ED25519, private.public_key().public_bytes_raw()), private.sign
    )


def peers(folder, count=3, clock=lambda: NOW):
    """Honest witnesses whose memory is under a folder; a second call is their restart."""
    return [
        Peer((who := identity(n)).key, Witness([who], [KEY], WitnessState(folder / f"w{n}"), clock))
        for n in range(1, count + 1)
    ]


def cosigner(known, quorum=2):
    """The log's side, with the time of NOW."""
    return Cosigner(known, quorum, clock=lambda: NOW)
