"""Moves committed leaves from the store into the log, in order, and signs before anyone is answered.

The store assigns each leaf its index in the transaction that commits it. Integration is
therefore idempotent: after any crash, and by whichever replica, the same leaves give the same
tiles. What a writer that lost its term still writes is what the next one writes as well; only
its checkpoint may be older, and the store has the newest.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Protocol

from keymgmt.transparency.errors import LogCorrupt, LogRolledBack
from keymgmt.transparency.log import CHECKPOINT, TransparencyLog
from keymgmt.transparency.merkle import tree_root
from keymgmt.transparency.note import Checkpoint, VerifierKey
from keymgmt.transparency.storage import LogStore
from keymgmt.transparency.tiles import TILE_WIDTH, TileNodes, read_entries

logger = logging.getLogger(__name__)
BATCH = 1024


@dataclass(frozen=True, slots=True)
class Published:
    """What the store remembers of the last checkpoint: size, root, the next index to give, the signed note."""

    size: int
    root: bytes
    next_index: int
    signed: bytes = b""


class LeafSource(Protocol):
    """The store's side of the log."""

    def published(self) -> Published:
        """The last checkpoint that the store recorded."""

    def leaves_from(self, index: int, limit: int) -> list[bytes]:
        """Committed leaves from `index` on, in order, at most `limit`."""

    def record(self, size: int, root: bytes, signed: bytes) -> None:
        """Remember a published checkpoint, durably. Raises LogFenced if the writer's term is over."""


def restore_checkpoint(files: LogStore, key: VerifierKey, known: Published) -> None:
    """Put the store's checkpoint in place of an older one, which a writer whose term was over left last.

    Raises LogRolledBack if the tiles do not give its root: then the log itself is an old copy.
    """
    if not known.signed:
        return
    newest, content = Checkpoint.open(known.signed, key), files.read(CHECKPOINT)
    if content is not None and Checkpoint.open(content, key).size >= newest.size:
        return
    try:
        whole = tree_root(newest.size, TileNodes(files, newest.size)) == newest.root
    except LogCorrupt:
        whole = False
    if not whole:
        raise LogRolledBack(
            f"the store recorded a checkpoint of {newest.size} entries, the log does not have them",
            where=CHECKPOINT,
            fix="restore the newest copy of the log",
        )
    logger.warning("the published checkpoint was older than the store's; it is put back")
    files.replace(CHECKPOINT, known.signed)


class Sequencer:
    """The writer of the log for one term. Not for two threads."""

    def __init__(self, log: TransparencyLog, source: LeafSource) -> None:
        self.log = log
        self._source = source

    @property
    def size(self) -> int:
        """Entries that a signed checkpoint commits to."""
        return self.log.size

    def check(self) -> Published:
        """Compare log and store. Raises LogRolledBack or LogCorrupt. Returns what the store knows."""
        known = self._source.published()
        if self.log.size < known.size:
            raise LogRolledBack(
                f"the log has {self.log.size} entries, the store recorded a checkpoint of {known.size}",
                where=CHECKPOINT,
                fix="restore the newest copy of the log",
            )
        if self.log.size > known.next_index:
            raise LogRolledBack(
                f"the store has given out {known.next_index} entries, the log has {self.log.size}",
                where="store",
                fix="the database was restored from an old copy; restore the newest one",
            )
        if self.log.root_at(known.size) != known.root:
            raise LogCorrupt("the log's history differs from the recorded checkpoint", where=CHECKPOINT)
        self._check_tail(known.size)
        return known

    def recover(self) -> None:
        """`check`, then integrate what a crash or the writer before left."""
        known = self.check()
        self.log.publish_empty()
        size = self.integrate()
        self.log.confirm()
        if size == known.size and known.signed != self.log.signed_checkpoint:
            self._record()

    def integrate(self) -> int:
        """Publish every committed leaf. Returns the log's size.

        Raises LogFenced if another writer took over, and what `TransparencyLog.append` raises.
        """
        while leaves := self._source.leaves_from(self.log.size, BATCH):
            self.log.append(leaves)
            self._record()
            if len(leaves) < BATCH:
                return self.log.size
        if self._source.published().size != self.log.size:
            self._record()
        return self.log.size

    def publish(self, size: int) -> None:
        """Return once the log covers its first `size` entries."""
        if self.log.size < size:
            self.integrate()

    def _record(self) -> None:
        self._source.record(self.log.size, self.log.checkpoint.root, self.log.signed_checkpoint)

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
