"""The smallest part of a set of victims that still suffices: the most expensive are let off first."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scheduler.placement.bestfit import Assignment, Ints
from scheduler.running.columns import BASE
from scheduler.running.question import Question
from scheduler.running.room import PoolRoom, summed


@dataclass(frozen=True, slots=True)
class Victims:
    """`items`, cheapest first; their `entries` (positions in the room) in the order of `at`, each the position of
    its item in `items`; `credit[item, limit]`: devices that come off limits which the claimant would exceed."""

    items: Ints
    entries: Ints
    at: Ints
    credit: Ints


class Trim:
    """Victims within one domain of a pool, each let off for which the rest suffices.

    For an ask of one pod set the outcome is minimal: no part of it suffices, since room
    only grows with victims. For several sets that holds as far as placement finds what there is.
    """

    def __init__(
        self, room: PoolRoom, question: Question, free: Ints, domain: int, victims: Victims, over: Ints
    ) -> None:
        """`free`: shape (ready rows, `question.columns`). `over`: devices that must come off each limit."""
        self._question, self._items = question, victims.items
        self._rows = np.flatnonzero(question.domain == domain)
        self._row = np.searchsorted(self._rows, room.row[victims.entries])
        self._amounts = room.amounts[np.ix_(victims.entries, question.columns)]
        self._offsets = np.searchsorted(victims.at, np.arange(self._items.size + 1))
        self._credit, self._spare = victims.credit, victims.credit.sum(axis=0) - over
        self._free = free[self._rows] + summed(self._row, self._amounts, self._rows.size)
        self._caps = question.caps(self._free, self._rows)
        self._totals = [int(caps.sum()) for caps in self._caps]

    def run(self) -> tuple[Ints, Assignment] | None:
        """(items that are needed, where the ask goes); None when even all do not suffice."""
        if (self._spare < 0).any() or self._question.place(self._free, self._rows) is None:
            return None
        kept = self._let_off(np.flatnonzero(self._items % 2 == BASE))
        # A gang that goes whole gives up its extra pods as well.
        extra = np.flatnonzero(self._items % 2 != BASE)
        bound = np.isin(self._items[extra] // 2, self._items[kept] // 2)
        needed = sorted([*kept, *self._let_off(extra[~bound]), *extra[bound].tolist()])
        placed = self._question.place(self._free, self._rows)
        if placed is None:
            raise AssertionError("an ask does not fit where it fitted a moment ago")
        return self._items[needed], placed

    def _let_off(self, order: Ints) -> list[int]:
        """Positions of `order` (cheapest first) that are needed; the others are let off.

        Blocks from the expensive end, doubling while they are let off whole, halved to the
        first that is needed: the same outcome as one by one, since room grows with victims.
        """
        kept: list[int] = []
        end, step = order.size, 1
        while end > 0:
            start = max(end - step, 0)
            if self._drop(order[start:end]):
                end, step = start, 2 * step
                continue
            needed, off = start, end
            while off - needed > 1:
                middle = (needed + off) // 2
                if self._drop(order[middle:off]):
                    off = middle
                else:
                    needed = middle
            kept.append(int(order[needed]))
            end, step = needed, 1
        return kept

    def _drop(self, positions: Ints) -> bool:
        """Let these off if the others suffice."""
        credit = self._credit[positions].sum(axis=0)
        if (credit > self._spare).any():
            return False
        spans = [np.arange(self._offsets[at], self._offsets[at + 1]) for at in positions.tolist()]
        entries = np.concatenate(spans) if spans else np.zeros(0, dtype=np.int64)
        rows, at = np.unique(self._row[entries], return_inverse=True)
        free = self._free[rows] - summed(at, self._amounts[entries], rows.size)
        caps = self._question.caps(free, self._rows[rows])
        totals = [
            total + int((new - old[rows]).sum()) for total, new, old in zip(self._totals, caps, self._caps, strict=True)
        ]
        pods = self._question.ask.pods
        if any(total < pod.count for total, pod in zip(totals, pods, strict=True)):
            return False
        if len(pods) > 1:
            trial = self._free.copy()
            trial[rows] = free
            if self._question.place(trial, self._rows) is None:
                return False
        self._free[rows], self._totals, self._spare = free, totals, self._spare - credit
        for old, new in zip(self._caps, caps, strict=True):
            old[rows] = new
        return True
