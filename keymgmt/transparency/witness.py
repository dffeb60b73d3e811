"""A witness: remembers the largest checkpoint of each log it knows, and cosigns only what extends it.

The state is one file a log, replaced whole and durable before a cosignature leaves: a witness
that forgets would cosign a fork.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from keymgmt.transparency.cosignature import CosignSigner, WitnessKey
from keymgmt.transparency.errors import LogCorrupt, NoteInvalid
from keymgmt.transparency.merkle import EMPTY_ROOT, verify_consistency
from keymgmt.transparency.note import Checkpoint, VerifierKey, parse_checkpoint, parse_signature_line, split_note
from keymgmt.transparency.tiles import TileFiles
from keymgmt.transparency.witness_protocol import SIZE_TYPE, AddCheckpoint, Answer


@dataclass(frozen=True)
class WitnessIdentity:
    """One of a witness's keys, and what signs with it."""

    key: WitnessKey
    signer: CosignSigner


class WitnessState:
    """What a witness has seen, under a folder. One process a folder."""

    def __init__(self, folder: Path) -> None:
        self._files = TileFiles(folder)

    def latest(self, key: VerifierKey) -> Checkpoint:
        """The largest checkpoint of a log; the empty tree's if none. Raises LogCorrupt on a damaged file."""
        content = self._files.read(_file_of(key.name))
        if content is None:
            return Checkpoint(key.name, 0, EMPTY_ROOT)
        try:
            return Checkpoint.open(content, key)
        except NoteInvalid as error:
            raise LogCorrupt(f"the witness's memory is damaged: {error.problem.what}", where=key.name) from None

    def remember(self, key: VerifierKey, signed: bytes) -> None:
        """Keep a signed checkpoint; durable on return. Raises OSError."""
        self._files.replace(_file_of(key.name), signed)

    def signed(self, key: VerifierKey) -> bytes | None:
        """The signed checkpoint that `latest` is of."""
        return self._files.read(_file_of(key.name))


class Witness:
    """Answers add-checkpoint. `logs` are the verifier keys of the logs it serves; for any number of threads."""

    def __init__(
        self,
        identities: Sequence[WitnessIdentity],
        logs: Sequence[VerifierKey],
        state: WitnessState,
        clock: Callable[[], float],
    ) -> None:
        self._identities = tuple(identities)
        self._logs: Mapping[str, VerifierKey] = {key.name: key for key in logs}
        self._state, self._clock = state, clock
        self._lock = threading.Lock()

    def add_checkpoint(self, body: bytes) -> Answer:
        """The protocol's one call (c2sp.org/tlog-witness). Raises LogCorrupt, OSError: then nothing was cosigned."""
        try:
            request = AddCheckpoint.parse(body)
            text, _ = split_note(request.checkpoint)
            origin = parse_checkpoint(text).origin
        except NoteInvalid as error:
            return _refuse(400, error.problem.what)
        key = self._logs.get(origin)
        if key is None:
            return _refuse(404, "this log is not known here")
        try:
            checkpoint = Checkpoint.open(request.checkpoint, key)
        except NoteInvalid as error:
            return _refuse(403, error.problem.what)
        with self._lock:
            return self._advance(request, checkpoint, key, text)

    def latest(self, origin: str) -> bytes | None:
        """The newest signed checkpoint of a log with this witness's cosignatures, for monitors; None if none."""
        key = self._logs.get(origin)
        signed = self._state.signed(key) if key is not None else None
        if signed is None:
            return None
        return signed + self._cosign(split_note(signed)[0])

    def _advance(self, request: AddCheckpoint, checkpoint: Checkpoint, key: VerifierKey, text: str) -> Answer:
        if request.old > checkpoint.size:
            return _refuse(400, "the old size is beyond the checkpoint")
        latest = self._state.latest(key)
        if request.old != latest.size:
            return Answer(409, f"{latest.size}\n".encode(), SIZE_TYPE)
        if not verify_consistency(latest.size, checkpoint.size, latest.root, checkpoint.root, request.proof) or (
            checkpoint.size == 0 and checkpoint.root != EMPTY_ROOT
        ):
            return _refuse(422, "the checkpoint does not extend the one that was cosigned before")
        if checkpoint.size > latest.size or self._state.signed(key) is None:
            self._state.remember(key, _own_line_only(text, request.checkpoint, key))
        return Answer(200, self._cosign(text))

    def _cosign(self, text: str) -> bytes:
        now = int(self._clock())
        return "".join(one.key.cosign(text, now, one.signer) for one in self._identities).encode()


def _own_line_only(text: str, signed: bytes, key: VerifierKey) -> bytes:
    """The checkpoint with the log's own signature alone: what others attached is not kept."""
    _, lines = split_note(signed)
    own = next(line for line in map(parse_signature_line, lines) if (line.name, line.key_id) == (key.name, key.key_id))
    return f"{text}\n{own.encode()}".encode()


def _file_of(origin: str) -> str:
    return f"{hashlib.sha256(origin.encode()).hexdigest()}.checkpoint"


def _refuse(status: int, what: str) -> Answer:
    return Answer(status, f"{what}\n".encode())
