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
KEY_NAME = re.compile(r"[^\s+]{1,255}", re.ASCII)
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
        if len(parts) != 3 or not KEY_NAME.fullmatch(parts[0]):
            raise NoteInvalid("a verifier key has the form name+keyID+base64", where="vkey")
        material = decode_base64(parts[2], "vkey")
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


@dataclass(frozen=True, slots=True)
class SignatureLine:
    """One signature of a note: the key's name, its ID (4 bytes), and what the key's type puts after it."""

    name: str
    key_id: bytes
    signature: bytes

    def encode(self) -> str:
        """The line with its newline."""
        return f"{_DASH}{self.name} {base64.b64encode(self.key_id + self.signature).decode()}\n"


def parse_signature_line(line: str) -> SignatureLine:
    """Parse a line without its newline. Raises NoteInvalid."""
    name, _, encoded = line.removeprefix(_DASH).partition(" ")
    blob = decode_base64(encoded, "signature line")
    if not line.startswith(_DASH) or len(blob) < 5 or not KEY_NAME.fullmatch(name):
        raise NoteInvalid("malformed signature line", where=name[:64])
    return SignatureLine(name, blob[:4], blob[4:])


def sign_note(text: str, key: VerifierKey, signer: Signer) -> bytes:
    """The whole note: `text` must end in a newline and is signed as it stands."""
    if not text.endswith("\n"):
        raise NoteInvalid("a note's text ends in a newline")
    signature = signer(text.encode())
    if not key.signs(text.encode(), signature):
        raise NoteInvalid("the signer's key is not the one that the log is named for", where=key.name)
    return f"{text}\n{SignatureLine(key.name, key.key_id, signature).encode()}".encode()


def open_note(note: bytes, key: VerifierKey) -> str:
    """The text of a note that carries a valid signature by `key`; others' signatures are ignored.

    Raises NoteInvalid. A line that claims to be by `key` and does not verify is an error.
    """
    text, lines = split_note(note)
    verified = False
    for line in lines:
        one = parse_signature_line(line)
        if one.name == key.name and one.key_id == key.key_id:
            if not key.signs(text.encode(), one.signature):
                raise NoteInvalid("the signature does not verify", where=one.name)
            verified = True
    if not verified:
        raise NoteInvalid("no signature by the expected key", where=str(key), fix="check the pinned vkey")
    return text


def split_note(note: bytes) -> tuple[str, list[str]]:
    """A note's text, with its last newline, and its signature lines. Raises NoteInvalid."""
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


def decode_base64(text: str, where: str) -> bytes:
    """Standard base64 with padding. Raises NoteInvalid naming `where`."""
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
        checkpoint = parse_checkpoint(open_note(note, key))
        if checkpoint.origin != key.name:
            raise NoteInvalid("the checkpoint is of another log", where=checkpoint.origin[:64])
        return checkpoint


def parse_checkpoint(text: str) -> Checkpoint:
    """The checkpoint in a note's text, no signature looked at. Raises NoteInvalid."""
    lines = text.split("\n")
    if len(lines) < 4 or not lines[0] or not _SIZE.fullmatch(lines[1]):
        raise NoteInvalid("a checkpoint has an origin, a size and a root")
    root = decode_base64(lines[2], "checkpoint root")
    if len(root) != 32:
        raise NoteInvalid("the checkpoint's root is not 32 bytes", where=lines[0][:64])
    return Checkpoint(lines[0], int(lines[1]), root)
