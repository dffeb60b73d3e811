"""The messages of c2sp.org/tlog-witness: what `add-checkpoint` is asked and what it answers."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass

from keymgmt.transparency.errors import NoteInvalid
from keymgmt.transparency.merkle import HASH_BYTES
from keymgmt.transparency.note import MAX_NOTE_BYTES, SignatureLine, decode_base64, parse_signature_line

PATH = "/add-checkpoint"
SIZE_TYPE = "text/x.tlog.size"
MAX_PROOF = 63
MAX_REQUEST = MAX_NOTE_BYTES + 63 * 45 + 64
MAX_ANSWER = 64 * 1024
_SIZE = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)


@dataclass(frozen=True, slots=True)
class AddCheckpoint:
    """A request: the size that the witness last cosigned, the proof from there, the signed checkpoint."""

    old: int
    proof: tuple[bytes, ...]
    checkpoint: bytes

    def encode(self) -> bytes:
        """The request body."""
        lines = [f"old {self.old}", *(base64.b64encode(item).decode() for item in self.proof)]
        return ("\n".join(lines) + "\n\n").encode() + self.checkpoint

    @classmethod
    def parse(cls, body: bytes) -> AddCheckpoint:
        """Parse a request body. Raises NoteInvalid."""
        if len(body) > MAX_REQUEST:
            raise NoteInvalid("the request is too long")
        head, separator, checkpoint = body.partition(b"\n\n")
        try:
            lines = head.decode("ascii").split("\n")
        except UnicodeDecodeError:
            raise NoteInvalid("the request is not text") from None
        number = lines[0].removeprefix("old ")
        if not separator or number == lines[0] or not _SIZE.fullmatch(number) or len(lines) > 1 + MAX_PROOF:
            raise NoteInvalid("a request is `old N`, at most 63 hashes, an empty line, a checkpoint")
        proof = tuple(decode_base64(line, "consistency proof") for line in lines[1:])
        if any(len(item) != HASH_BYTES for item in proof):
            raise NoteInvalid("a hash of the proof is not 32 bytes")
        return cls(int(number), proof, checkpoint)


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer."""

    status: int
    body: bytes
    content_type: str = "text/plain; charset=utf-8"


def size_of(answer: Answer) -> int:
    """The size that a 409 answer names. Raises NoteInvalid."""
    text = answer.body[:32].decode("ascii", "replace")
    if answer.content_type.partition(";")[0].strip() != SIZE_TYPE or not text.endswith("\n"):
        raise NoteInvalid(f"a conflict is answered with a size as {SIZE_TYPE}")
    if not _SIZE.fullmatch(text[:-1]):
        raise NoteInvalid("the size in a conflict is not a number")
    return int(text)


def lines_of(answer: Answer) -> list[SignatureLine]:
    """The signature lines of a 200 answer. Raises NoteInvalid."""
    if len(answer.body) > MAX_ANSWER:
        raise NoteInvalid("the answer is too long")
    try:
        text = answer.body.decode()
    except UnicodeDecodeError:
        raise NoteInvalid("the answer is not UTF-8") from None
    if not text.endswith("\n") or len(rows := text[:-1].split("\n")) > 16:
        raise NoteInvalid("an answer is one to sixteen signature lines")
    return [parse_signature_line(row) for row in rows]


def attach(checkpoint: bytes, lines: Sequence[SignatureLine]) -> bytes:
    """The checkpoint with more signature lines; one that it has already is not repeated."""
    present = set(checkpoint.decode().split("\n"))
    fresh = [line.encode() for line in lines if line.encode()[:-1] not in present]
    return checkpoint + "".join(fresh).encode()
