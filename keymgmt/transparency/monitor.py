"""Follows a log: each new checkpoint must extend the one before, agree with the witnesses, and show no surprise.

The state holds the newest checkpoint that was followed and the counts per expectation. It is
small, plain JSON, and another monitor's may be compared: two views of one log that are not
prefixes of one tree are a split view, and both signed notes together prove it to anybody.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from keymgmt.transparency.cosignature import WitnessKey, cosignatures
from keymgmt.transparency.entries import COUNTED, decode_entry
from keymgmt.transparency.errors import LogCorrupt, NoteInvalid
from keymgmt.transparency.expectations import Expectations
from keymgmt.transparency.merkle import EMPTY_ROOT, CompactRange, leaf_hash, tree_root
from keymgmt.transparency.note import Checkpoint, VerifierKey
from keymgmt.transparency.tiles import TILE_WIDTH, TileNodes, TileReader, read_entries
from keymgmt.transparency.verify import read_checkpoint

FORK = "fork"
ROLLED_BACK = "rolled-back"
WITNESSES = "witnesses"
UNEXPECTED = "unexpected-release"
BROKEN = "broken"


@dataclass(frozen=True, slots=True)
class Alarm:
    """Something that the log's owner must look at. `kind` is one of this module's constants."""

    kind: str
    what: str
    index: int | None = None
    evidence: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {"alarm": self.kind, "what": self.what, "index": self.index, **self.evidence}


@dataclass
class MonitorState:
    """What a monitor remembers: the signed checkpoint it followed last, and releases counted per expectation."""

    signed: bytes = b""
    counts: dict[str, int] = field(default_factory=dict)

    def encode(self) -> bytes:
        """JSON bytes."""
        return json.dumps({"v": 1, "checkpoint": self.signed.decode(), "counts": self.counts}, sort_keys=True).encode()

    @classmethod
    def decode(cls, data: bytes) -> MonitorState:
        """Parse. Raises NoteInvalid."""
        try:
            document = json.loads(data)
            counts = {str(name): int(count) for name, count in document["counts"].items()}
            if document["v"] != 1:
                raise ValueError
            return cls(document["checkpoint"].encode(), counts)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise NoteInvalid("not a monitor's state", fix="give the file that `kekkai log monitor` keeps") from None

    def checkpoint(self, key: VerifierKey) -> Checkpoint:
        """What was followed last. Raises NoteInvalid."""
        return Checkpoint.open(self.signed, key) if self.signed else Checkpoint(key.name, 0, EMPTY_ROOT)


class Monitor:
    """One log's monitor. `witnesses` and `quorum` 0 look at no cosignatures."""

    def __init__(
        self,
        key: VerifierKey,
        state: MonitorState,
        expected: Expectations,
        witnesses: Sequence[WitnessKey] = (),
        quorum: int = 0,
    ) -> None:
        self.key, self.state, self._expected = key, state, expected
        self._witnesses, self._quorum = list(witnesses), quorum

    def follow(self, reader: TileReader) -> list[Alarm]:
        """Look once; the state moves on only if the log extends what was followed before.

        Raises Unavailable when the log cannot be reached; every fault of the log is an Alarm.
        """
        try:
            checkpoint, signed = read_checkpoint(reader, self.key)
            seen = self.state.checkpoint(self.key)
            if checkpoint.size < seen.size:
                return [_pair(ROLLED_BACK, "the log is shorter than it was", self.state.signed, signed)]
            root = tree_root(seen.size, TileNodes(reader, checkpoint.size)) if seen.size else EMPTY_ROOT
            if root != seen.root:
                return [_pair(FORK, "the log rewrote what it had signed", self.state.signed, signed)]
            alarms = self._cosigned(signed)
            fresh = self._new_entries(reader, seen, checkpoint)
        except (LogCorrupt, NoteInvalid) as error:
            return [Alarm(BROKEN, error.problem.what, evidence={"where": error.problem.where})]
        for index, data in enumerate(fresh, seen.size):
            alarms += self._look_at(index, data)
        self.state.signed = signed
        return alarms

    def compare(self, reader: TileReader, others: Sequence[bytes]) -> list[Alarm]:
        """Checkpoints that others hold (a witness, another monitor), against the log followed here."""
        alarms = []
        mine = self.state.checkpoint(self.key)
        for signed in others:
            try:
                theirs = Checkpoint.open(signed, self.key)
                if theirs.size > mine.size:
                    alarms += self._longer(reader, signed, theirs)
                elif theirs.size and tree_root(theirs.size, TileNodes(reader, mine.size)) != theirs.root:
                    alarms.append(_pair(FORK, "another was shown another history", self.state.signed, signed))
            except (LogCorrupt, NoteInvalid) as error:
                alarms.append(Alarm(BROKEN, f"another's checkpoint: {error.problem.what}"))
        return alarms

    def _longer(self, reader: TileReader, signed: bytes, theirs: Checkpoint) -> list[Alarm]:
        """Another has seen more: the log must have it by now, or show us less than others."""
        try:
            current, _ = read_checkpoint(reader, self.key)
            if current.size >= theirs.size:
                same = tree_root(theirs.size, TileNodes(reader, current.size)) == theirs.root
                return [] if same else [_pair(FORK, "another was shown another history", self.state.signed, signed)]
        except LogCorrupt as error:
            return [Alarm(BROKEN, error.problem.what)]
        return [_pair(ROLLED_BACK, f"another has seen {theirs.size} entries", self.state.signed, signed)]

    def _cosigned(self, signed: bytes) -> list[Alarm]:
        if not self._quorum:
            return []
        found = cosignatures(signed, self._witnesses)
        if len(found) >= self._quorum:
            return []
        return [Alarm(WITNESSES, f"{len(found)} of {self._quorum} witnesses cosigned", evidence={"by": sorted(found)})]

    def _new_entries(self, reader: TileReader, seen: Checkpoint, checkpoint: Checkpoint) -> list[bytes]:
        """Entries since `seen`, after the tree with them was found to give the signed root. Raises LogCorrupt."""
        start = seen.size - seen.size % TILE_WIDTH
        tree = CompactRange.over(start, TileNodes(reader, checkpoint.size))
        entries: list[bytes] = []
        for first in range(start, checkpoint.size, TILE_WIDTH):
            entries += read_entries(reader, first // TILE_WIDTH, min(TILE_WIDTH, checkpoint.size - first))
        tree.extend(leaf_hash(entry) for entry in entries)
        if tree.root() != checkpoint.root:
            raise LogCorrupt("the entries do not give the checkpoint's root")
        return entries[seen.size - start :]

    def _look_at(self, index: int, data: bytes) -> list[Alarm]:
        try:
            entry = decode_entry(data)
        except LogCorrupt as error:
            return [Alarm(BROKEN, error.problem.what, index)]
        if entry["type"] not in COUNTED or not self._expected.concern(entry):
            return []
        why = self._expected.surprise(entry, self.state.counts)
        facts = {name: entry.get(name) for name in ("at", "type", "key", "tenant", "measurement", "policy", "count")}
        return [Alarm(UNEXPECTED, why, index, {"entry": facts})] if why else []


def _pair(kind: str, what: str, mine: bytes, theirs: bytes) -> Alarm:
    return Alarm(kind, what, evidence={"followed": mine.decode(), "shown": theirs.decode()})
