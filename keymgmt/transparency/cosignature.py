"""Cosignatures of checkpoints (c2sp.org/tlog-cosignature): a witness says when it saw which tree as the largest.

Two kinds: Ed25519 (type 04) over the note's text, and ML-DSA-44 (type 06) over a structure
that also names the witness. Both carry POSIX seconds and travel as signature lines of the
checkpoint's note: key ID ‖ time (8 bytes, big endian) ‖ signature.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PublicKey

from keymgmt.transparency.errors import NoteInvalid
from keymgmt.transparency.note import (
    KEY_NAME,
    Checkpoint,
    SignatureLine,
    decode_base64,
    parse_checkpoint,
    parse_signature_line,
    split_note,
)

ED25519 = 4
ML_DSA_44 = 6
_KEY_BYTES = {ED25519: 32, ML_DSA_44: 1312}
_SIGNATURE_BYTES = {ED25519: 64, ML_DSA_44: 2420}
_LABEL = b"subtree/v1\n\x00"
_TIME_BYTES = 8

CosignSigner = Callable[[bytes], bytes]
"""Signs bytes with the witness's private key; returns the bare signature."""


@dataclass(frozen=True, slots=True)
class WitnessKey:
    """A witness's name and public key; `kind` is 4 (Ed25519, 32 bytes) or 6 (ML-DSA-44, 1312 bytes)."""

    name: str
    kind: int
    public_key: bytes

    @property
    def key_id(self) -> bytes:
        """Four bytes that point a signature line at this key."""
        return hashlib.sha256(self.name.encode() + b"\n" + bytes([self.kind]) + self.public_key).digest()[:4]

    def __str__(self) -> str:
        return f"{self.name}+{self.key_id.hex()}+{base64.b64encode(bytes([self.kind]) + self.public_key).decode()}"

    @classmethod
    def parse(cls, text: str) -> WitnessKey:
        """Parse a vkey `name+hex key ID+base64(type ‖ key)` of type 04 or 06. Raises NoteInvalid."""
        parts = text.strip().split("+", 2)
        if len(parts) != 3 or not KEY_NAME.fullmatch(parts[0]) or len(parts[0].encode()) > 255:
            raise NoteInvalid("a witness key has the form name+keyID+base64", where="witness vkey")
        material = decode_base64(parts[2], "witness vkey")
        if not material or len(material) != 1 + _KEY_BYTES.get(material[0], -1):
            raise NoteInvalid(
                "a witness key is of type 04 (Ed25519 cosignature) or 06 (ML-DSA-44)",
                where=parts[0][:64],
                fix="ask the witness for its cosignature vkey, not a log's",
            )
        key = cls(parts[0], material[0], material[1:])
        if key.key_id.hex() != parts[1]:
            raise NoteInvalid("the key ID does not match the key", where=parts[0][:64], fix="copy the whole vkey")
        return key

    def message(self, checkpoint: Checkpoint, text: str, at: int) -> bytes:
        """What is signed at POSIX second `at` for a checkpoint whose note text is `text`."""
        if self.kind == ED25519:
            return f"cosignature/v1\ntime {at}\n{text}".encode()
        name, origin = self.name.encode(), checkpoint.origin.encode()
        return b"".join(
            (
                _LABEL,
                bytes([len(name)]) + name,
                at.to_bytes(8, "big"),
                bytes([len(origin)]) + origin,
                (0).to_bytes(8, "big"),
                checkpoint.size.to_bytes(8, "big"),
                checkpoint.root,
            )
        )

    def signs(self, message: bytes, signature: bytes) -> bool:
        """Whether `signature` over `message` is by this key."""
        try:
            if self.kind == ED25519:
                Ed25519PublicKey.from_public_bytes(self.public_key).verify(signature, message)
            else:
                MLDSA44PublicKey.from_public_bytes(self.public_key).verify(signature, message)
        except (InvalidSignature, ValueError):
            return False
        return True

    def cosign(self, text: str, at: int, signer: CosignSigner) -> str:
        """The signature line (with its newline) for a checkpoint's text at POSIX second `at` (> 0)."""
        checkpoint = parse_checkpoint(text)
        if not 0 < at < 1 << 63 or len(checkpoint.origin.encode()) > 255:
            raise NoteInvalid("the time or the log's name cannot be expressed in a cosignature")
        message = self.message(checkpoint, text, at)
        signature = signer(message)
        if not self.signs(message, signature):
            raise NoteInvalid("the signer's key is not the witness's", where=self.name)
        return SignatureLine(self.name, self.key_id, at.to_bytes(_TIME_BYTES, "big") + signature).encode()

    def verify(self, text: str, line: SignatureLine) -> int:
        """The POSIX second of a cosignature by this key over `text`. Raises NoteInvalid."""
        checkpoint = parse_checkpoint(text)
        if line.name != self.name or line.key_id != self.key_id:
            raise NoteInvalid("the cosignature is by another key", where=line.name[:64])
        if len(line.signature) != _TIME_BYTES + _SIGNATURE_BYTES[self.kind] or len(checkpoint.origin.encode()) > 255:
            raise NoteInvalid("malformed cosignature", where=self.name)
        at = int.from_bytes(line.signature[:_TIME_BYTES], "big")
        if not 0 < at < 1 << 63:
            raise NoteInvalid("a cosignature has no time", where=self.name)
        if not self.signs(self.message(checkpoint, text, at), line.signature[_TIME_BYTES:]):
            raise NoteInvalid("the cosignature does not verify", where=self.name)
        return at


def cosignatures(note: bytes, witnesses: list[WitnessKey]) -> dict[str, int]:
    """Witness name → POSIX second for every given witness whose cosignature the checkpoint carries.

    Lines by unknown keys are ignored. Raises NoteInvalid for one that claims a known key and is not by it.
    """
    text, lines = split_note(note)
    found: dict[str, int] = {}
    for raw in lines:
        line = parse_signature_line(raw)
        for witness in witnesses:
            if (line.name, line.key_id) == (witness.name, witness.key_id):
                found[witness.name] = max(found.get(witness.name, 0), witness.verify(text, line))
    return found
