"""Room that comes free on the ready rows of one pool as running work goes, in any order asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property

import numpy as np

from scheduler.fleet.attributes import NONE
from scheduler.placement.ask import Ask
from scheduler.placement.bestfit import Assignment, Ints, Mask
from scheduler.placement.pool_supply import PoolSupply
from scheduler.running.columns import Columns
from scheduler.running.question import Question

NEVER = int(np.iinfo(np.int64).max) >> 2  # the rank of what does not go


Entries = tuple[Ints, Ints, Ints]  # row, item, amounts


class PoolRoom:
    """What running work holds on a pool's ready rows; worked out when it is first asked for.

    By entry: `row` of the supply, `item` (slot * 2 + part of the running columns) and
    `amounts`, shape (entries, resource columns).
    """

    def __init__(self, supply: PoolSupply, device: int, entries: Callable[[], Entries]) -> None:
        """`device`: the devices' column. `entries` gives (row, item, amounts), the same whenever it is asked."""
        self.supply, self.device = supply, device
        self._make = entries

    @classmethod
    def of(cls, supply: PoolSupply, resources: Mapping[str, int], running: Columns) -> PoolRoom:
        """`resources`: name → column of the supply (`NodeTable.columns`)."""
        return cls(supply, resources[supply.pool.resource], lambda: _entries(supply, resources, running))

    def with_more(self, row: Ints, item: Ints, amounts: Ints) -> PoolRoom:
        """The same with these entries behind the others."""
        entries = (
            np.concatenate([self.row, row]),
            np.concatenate([self.item, item]),
            np.concatenate([self.amounts, amounts]),
        )
        return PoolRoom(self.supply, self.device, lambda: entries)

    @cached_property
    def _all(self) -> Entries:
        return self._make()

    @property
    def row(self) -> Ints:
        """The row of each entry."""
        return self._all[0]

    @property
    def item(self) -> Ints:
        """The item of each entry; -1 where it is of none."""
        return self._all[1]

    @property
    def amounts(self) -> Ints:
        """What each entry holds."""
        return self._all[2]

    def earliest(self, question: Question, free: Ints, rank: Ints, end: int) -> Ints:
        """For each domain the least k so that the ask has room once entries of rank < k are gone.

        `free`: shape (ready rows, `question.columns`); `rank`: of each entry, NEVER for what
        does not go; `end`: above all ranks that go. `end + 1` where the room never suffices.
        Each pod set is looked at alone: for several the answer is a lower bound.
        """
        going = np.flatnonzero((rank < end) & (question.domain[self.row] != NONE) & self.useful(question))
        row, order = self.row[going], rank[going]
        amounts = self.amounts[np.ix_(going, question.columns)]
        domain = question.domain[row]

        def fits(at: Ints) -> Mask:
            gone = order < at[domain]
            return question.fitting(question.caps(free + summed(row[gone], amounts[gone], free.shape[0])))

        low = np.zeros(question.domains, dtype=np.int64)
        high = np.where(fits(np.full_like(low, end)), end, end + 1)
        open_ = (high <= end) & ~fits(low)
        high[(high <= end) & ~open_] = 0
        while open_.any():
            # Invariant of open domains: no room at `low`, room at `high`.
            middle = np.where(open_, (low + high) // 2, high)
            good = fits(middle)
            high = np.where(open_ & good, middle, high)
            low = np.where(open_ & ~good, middle, low)
            open_ &= high - low > 1
        return high

    def useful(self, question: Question) -> Mask:
        """Entries on rows that suit any pod of the ask. Shape (entries,)."""
        suits = np.zeros(self.supply.ready, dtype=np.bool_)
        for mask in question.masks:
            suits |= mask
        return suits[self.row]


def _entries(supply: PoolSupply, resources: Mapping[str, int], running: Columns) -> Entries:
    rows = np.full(len(running.nodes) + 1, -1, dtype=np.int64)  # the last one is for holes' node -1
    for position, name in enumerate(supply.names[: supply.ready]):
        code = running.nodes.get(name)
        if code is not None:
            rows[code] = position
    row = rows[running.node]
    here = np.flatnonzero((row >= 0) & (running.slot >= 0))
    requests = np.zeros((len(running.requests), supply.free.shape[1]), dtype=np.int64)
    for index, request in enumerate(running.requests):
        for name, amount in request:
            column = resources.get(name, requests.shape[1])
            if column < requests.shape[1]:
                requests[index, column] = amount
    amounts = requests[running.request[here]] * running.count[here, None]
    return row[here], running.slot[here] * 2 + running.part[here], amounts


def adjust(supply: PoolSupply, rows: Ints, amounts: Ints) -> None:
    """Add `amounts` (rows, columns) to what is free in a supply. No row may come twice; nothing may fall below 0."""
    supply.free[rows] += amounts
    supply.log.extend(rows.tolist())


def by_row(ask: Ask, placed: Assignment) -> tuple[Ints, Ints]:
    """(rows in order, what the pods take on each). Shapes (n,), (n, columns)."""
    rows = np.unique(np.array([row for _, row, _ in placed], dtype=np.int64))
    amounts = np.zeros((rows.size, ask.pods[0].request.size), dtype=np.int64)
    for index, row, count in placed:
        amounts[np.searchsorted(rows, row)] += ask.pods[index].request * count
    return rows, amounts


def take(supply: PoolSupply, ask: Ask, placed: Assignment) -> None:
    """Take the room of pods that were placed on what is free now."""
    rows, amounts = by_row(ask, placed)
    adjust(supply, rows, -amounts)


def summed(row: Ints, amounts: Ints, rows: int) -> Ints:
    """Amounts added up by row. Shapes: (e,), (e, c) → (rows, c). Exact up to 2**53."""
    out = np.empty((rows, amounts.shape[1]), dtype=np.int64)
    for column in range(amounts.shape[1]):
        out[:, column] = np.bincount(row, weights=amounts[:, column], minlength=rows)
    return out
