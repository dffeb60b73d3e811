"""Moves committed leaves from the store into the log, in order, and signs before anyone is answered.

The store assigns each leaf its index in the transaction that commits it. Integration is
therefore idempotent: after any crash the same leaves give the same tiles.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Protocol

from keymgmt.transparency.errors import LogCorrupt, LogRolledBack
from keymgmt.transparency.log import TransparencyLog
from keymgmt.transparency.tiles import TILE_WIDTH, read_entries

logger = logging.getLogger(__name__)
BATCH = 1024


@dataclass(frozen=True, slots=True)
class Published:
    """What the store remembers of the last checkpoint: size, root, and the next index it will give."""

    size: int
    root: bytes
    next_index: int


class LeafSource(Protocol):
    """The store's side of the log."""

    def published(self) -> Published:
        """The last checkpoint that the store recorded."""

    def leaves_from(self, index: int, limit: int) -> list[bytes]:
        """Committed leaves from `index` on, in order, at most `limit`."""

    def record(self, size: int, root: bytes) -> None:
        """Remember a published checkpoint, durably."""


class Sequencer:
    """The one writer of the log. Construct it only after the previous one is gone."""

    def __init__(self, log: TransparencyLog, source: LeafSource) -> None:
        self.log = log
        self._source = source

    def recover(self) -> None:
        """Compare log and store, then integrate what a crash left. Raises LogRolledBack or LogCorrupt."""
        known = self._source.published()
        if self.log.size < known.size:
            raise LogRolledBack(
                f"the log has {self.log.size} entries, the store recorded a checkpoint of {known.size}",
                where=str(self.log.files.root),
                fix="restore the newest copy of the log folder",
            )
        if self.log.size > known.next_index:
            raise LogRolledBack(
                f"the store has given out {known.next_index} entries, the log has {self.log.size}",
                where="store",
                fix="the database was restored from an old copy; restore the newest one",
            )
        if self.log.root_at(known.size) != known.root:
            raise LogCorrupt("the log's history differs from the recorded checkpoint", where=str(self.log.files.root))
        self._check_tail(known.size)
        self.log.publish_empty()
        self.integrate()

    def integrate(self) -> int:
        """Publish every committed leaf. Returns the log's size. Raises what `TransparencyLog.append` raises."""
        while leaves := self._source.leaves_from(self.log.size, BATCH):
            self.log.append(leaves)
        if self._source.published().size != self.log.size:
            self._source.record(self.log.size, self.log.checkpoint.root)
        return self.log.size

    def _check_tail(self, start: int) -> None:
        """A crash after the checkpoint and before its record: the leaves on disk must be the store's."""
        if start == self.log.size:
            return
        index = start - start % TILE_WIDTH
        mine: list[bytes] = []
        while index < self.log.size:
            width = min(TILE_WIDTH, self.log.size - index)
            mine += read_entries(self.log.files, index // TILE_WIDTH, width)
            index += TILE_WIDTH
        mine = mine[start % TILE_WIDTH :]
        theirs = self._source.leaves_from(start, len(mine))
        if theirs != mine:
            raise LogCorrupt("published entries differ from the store's leaves", where=f"index {start}")
