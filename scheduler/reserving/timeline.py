"""When room comes free on the rows of a pool, as far as what runs says when it ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from scheduler.placement.bestfit import Ints
from scheduler.reserving.reservation import PATIENCE
from scheduler.running import Columns
from scheduler.running.room import PoolRoom, summed

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Release:
    """Room that does not come from what ran when the plan began: `amounts[i]` on `rows[i]`, each row once, in order.

    `end`: seconds since the epoch, infinity when unknown. `workload`: whose it is.
    """

    workload: str
    rows: Ints
    amounts: Ints
    end: float


class Timeline:
    """Releases on the ready rows of one pool.

    A workload with `max_runtime` ends `max_runtime` seconds after its admission, or now when
    that is just past. One without never ends by itself, nor is one believed any more that
    outstays by `PATIENCE` seconds. Not changed once made; worked out when it is first asked for.
    """

    def __init__(self, room: PoolRoom, running: Columns, now: float) -> None:
        """`now`: seconds since the epoch."""
        self.room, self.now, self._running = room, now, running

    @cached_property
    def end(self) -> Floats:
        """By entry of the room."""
        running = self._running
        ends = np.where(running.max_runtime > 0, running.admitted_at + running.max_runtime, np.inf)
        ends[ends + PATIENCE < self.now] = np.inf
        told: Floats = np.maximum(ends, self.now)[self.room.item // 2]
        return told

    @cached_property
    def tells(self) -> bool:
        """Whether anything that runs, here or elsewhere, says when it ends."""
        return bool((self._running.live & (self._running.max_runtime > 0)).any())

    @cached_property
    def _rows(self) -> tuple[Ints, Ints]:
        """(entries in the order of their rows, where each row's begin)."""
        by_row = np.argsort(self.room.row, kind="stable")
        return by_row, np.searchsorted(self.room.row[by_row], np.arange(self.room.supply.ready + 1))

    def released(self, rows: Ints, until: float) -> Ints:
        """What has come free on these rows at a time; infinity: all that ever does. Shape (len(rows), columns)."""
        at, entries = self._on(rows)
        gone = self.end[entries] <= (until if until < np.inf else np.finfo(np.float64).max)
        return summed(at[gone], self.room.amounts[entries[gone]], rows.size)

    def last_to_end(self, rows: Ints, at: float) -> str:
        """The first by key of the workloads on these rows that end at that time; empty when there is none."""
        _, entries = self._on(rows)
        items = self.room.item[entries[self.end[entries] == at]]
        return min((self._running.key(item // 2) for item in items.tolist()), default="")

    def _on(self, rows: Ints) -> tuple[Ints, Ints]:
        """(position in `rows`, entry) for all entries on them."""
        by_row, starts = self._rows
        counts = starts[rows + 1] - starts[rows]
        at = np.repeat(np.arange(rows.size), counts)
        offset = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        return at, by_row[starts[rows][at] + offset]

    def with_further(self, further: Sequence[Release]) -> tuple[PoolRoom, Floats]:
        """(the room with these as entries behind the others, ends of all entries)."""
        if not further:
            return self.room, self.end
        rows = np.concatenate([one.rows for one in further])
        ends = np.concatenate([np.full(one.rows.size, one.end) for one in further])
        amounts = np.concatenate([one.amounts for one in further])
        return self.room.with_more(rows, np.full(rows.size, -1), amounts), np.concatenate([self.end, ends])
