"""Signed notes with Ed25519 (c2sp.org/signed-note) and tree checkpoints (c2sp.org/tlog-checkpoint).

A note is `text`, a blank line, and signature lines `— <name> <base64(key ID ‖ signature)>`.
Key ID = first 4 bytes of SHA-256(name ‖ 0x0A ‖ type ‖ public key).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from keymgmt.transparency.errors import NoteInvalid

MAX_NOTE_BYTES = 64 * 1024
MAX_SIGNATURES = 100
_ED25519 = b"\x01"
_DASH = "— "
_KEY_NAME = re.compile(r"[^\s+]{1,255}", re.ASCII)
_SIZE = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)

Signer = Callable[[bytes], bytes]
"""Signs bytes with Ed25519; returns the 64-byte signature. Raises Unavailable if the key is out of reach."""


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """A log's public key with its name: 32 raw Ed25519 bytes."""

    name: str
    public_key: bytes

    @property
    def key_id(self) -> bytes:
        """Four bytes that point a signature line at this key."""
        return hashlib.sha256(self.name.encode() + b"\n" + _ED25519 + self.public_key).digest()[:4]

    def __str__(self) -> str:
        return f"{self.name}+{self.key_id.hex()}+{base64.b64encode(_ED25519 + self.public_key).decode()}"

    @classmethod
    def parse(cls, text: str) -> VerifierKey:
        """Parse a vkey `name+hex key ID+base64(type ‖ key)`. Raises NoteInvalid."""
        parts = text.strip().split("+", 2)
        if len(parts) != 3 or not _KEY_NAME.fullmatch(parts[0]):
            raise NoteInvalid("a verifier key has the form name+keyID+base64", where="vkey")
        material = _decode(parts[2], "vkey")
        if material[:1] != _ED25519 or len(material) != 33:
            raise NoteInvalid("only Ed25519 verifier keys (type 01) are known", where="vkey")
        key = cls(parts[0], material[1:])
        if key.key_id.hex() != parts[1]:
            raise NoteInvalid("the key ID does not match the key", where="vkey", fix="copy the whole vkey")
        return key

    def signs(self, text: bytes, signature: bytes) -> bool:
        """Whether `signature` (64 bytes) over `text` is by this key."""
        try:
            Ed25519PublicKey.from_public_bytes(self.public_key).verify(signature, text)
        except (InvalidSignature, ValueError):
            return False
        return True


def sign_note(text: str, key: VerifierKey, signer: Signer) -> bytes:
    """The whole note: `text` must end in a newline and is signed as it stands."""
    if not text.endswith("\n"):
        raise NoteInvalid("a note's text ends in a newline")
    signature = signer(text.encode())
    if not key.signs(text.encode(), signature):
        raise NoteInvalid("the signer's key is not the one that the log is named for", where=key.name)
    line = base64.b64encode(key.key_id + signature).decode()
    return f"{text}\n{_DASH}{key.name} {line}\n".encode()


def open_note(note: bytes, key: VerifierKey) -> str:
    """The text of a note that carries a valid signature by `key`; others' signatures are ignored.

    Raises NoteInvalid. A line that claims to be by `key` and does not verify is an error.
    """
    text, lines = _split(note)
    verified = False
    for line in lines:
        name, _, encoded = line.removeprefix(_DASH).partition(" ")
        blob = _decode(encoded, "signature line")
        if len(blob) < 5 or not _KEY_NAME.fullmatch(name):
            raise NoteInvalid("malformed signature line", where=name[:64])
        if name == key.name and blob[:4] == key.key_id:
            if not key.signs(text.encode(), blob[4:]):
                raise NoteInvalid("the signature does not verify", where=name)
            verified = True
    if not verified:
        raise NoteInvalid("no signature by the expected key", where=str(key), fix="check the pinned vkey")
    return text


def _split(note: bytes) -> tuple[str, list[str]]:
    if len(note) > MAX_NOTE_BYTES:
        raise NoteInvalid("note larger than 64 KiB")
    try:
        whole = note.decode("utf-8")
    except UnicodeDecodeError:
        raise NoteInvalid("note is not UTF-8") from None
    if any(ord(char) < 0x20 and char != "\n" for char in whole):
        raise NoteInvalid("note has control characters")
    text, separator, signatures = whole.rpartition("\n\n")
    if not separator or not signatures.endswith("\n"):
        raise NoteInvalid("note lacks the blank line before its signatures")
    lines = signatures[:-1].split("\n")
    if len(lines) > MAX_SIGNATURES or not all(line.startswith(_DASH) for line in lines):
        raise NoteInvalid("malformed signature block")
    return text + "\n", lines


def _decode(text: str, where: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise NoteInvalid("not standard base64", where=where) from None


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A commitment to a tree: the log's name, its number of leaves, its RFC 6962 root (32 bytes)."""

    origin: str
    size: int
    root: bytes

    def text(self) -> str:
        """The note text: three lines."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"

    def sign(self, key: VerifierKey, signer: Signer) -> bytes:
        """The signed checkpoint, as it is served."""
        return sign_note(self.text(), key, signer)

    @classmethod
    def open(cls, note: bytes, key: VerifierKey) -> Checkpoint:
        """Verify a signed checkpoint of the log named by `key`. Raises NoteInvalid."""
        lines = open_note(note, key).split("\n")
        if len(lines) < 4 or not _SIZE.fullmatch(lines[1]):
            raise NoteInvalid("a checkpoint has an origin, a size and a root")
        root = _decode(lines[2], "checkpoint root")
        if len(root) != 32 or lines[0] != key.name:
            raise NoteInvalid("the checkpoint is of another log or its root is not 32 bytes", where=lines[0][:64])
        return cls(lines[0], int(lines[1]), root)
