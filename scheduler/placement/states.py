"""Numbers for what rows have free: rows that are alike have the same number."""

from __future__ import annotations

import numpy as np

from scheduler.placement.bestfit import Ints, Mask
from scheduler.placement.pool_rows import PoolRows

_ODD = 0x9E3779B97F4A7C15
_UNDECIDED, _WHOLE = b"", b"w"
_State = tuple[bytes, bytes]  # what is free by column; the mode, or what is free of each device of a shared row


class RowStates:
    """The state of each row of a pool, numbered in the order in which states were first met."""

    def __init__(self, rows: PoolRows) -> None:
        self._rows = rows
        self._numbers: dict[_State, int] = {}
        self._of: Ints = np.zeros(0, dtype=np.int64)  # row → its number, true up to position `_seen` of the log
        self._seen = len(rows.log)

    def __len__(self) -> int:
        """How many numbers are given."""
        return len(self._numbers)

    def drop_from(self, size: int) -> None:
        """Rows from here on are gone."""
        self._of = self._of[:size]

    def of(self, row: int) -> int:
        """The number of one row."""
        self._catch_up()
        return int(self._of[row])

    def of_many(self, rows: Ints) -> Ints:
        """The numbers of rows."""
        self._catch_up()
        return self._of[rows]

    def number(self, free: Ints, whole: Mask) -> Ints:
        """Numbers for states that rows may come to have. Shapes: (n, columns), (n,) → (n,).

        `whole`: whether devices of the row are in use, as whole ones.
        """
        numbers, known = [], self._numbers
        for line, used in zip(free, whole.tolist(), strict=True):
            numbers.append(known.setdefault((line.tobytes(), _WHOLE if used else _UNDECIDED), len(known)))
        return np.array(numbers, dtype=np.int64)

    def _catch_up(self) -> None:
        rows, known = self._rows, self._of.size
        if known < len(rows):
            self._of = np.concatenate([self._of, self._of_new(np.arange(known, len(rows)))])
        if self._seen < len(rows.log):
            for row in rows.log[self._seen :] if len(rows.log) - self._seen < 3 else set(rows.log[self._seen :]):
                if row < known:
                    self._of[row] = self._number(row)
            self._seen = len(rows.log)

    def _number(self, row: int) -> int:
        rows = self._rows
        free = rows.free[row]
        if row in rows.shared:
            mode = rows.shared.state(row)
        else:
            mode = _UNDECIDED if free[rows.device] == rows.total[row] else _WHOLE
        return self._numbers.setdefault((free.tobytes(), mode), len(self._numbers))

    def _of_new(self, rows: Ints) -> Ints:
        full = self._rows.free[rows, self._rows.device] == self._rows.total[rows]
        first, group = _alike(np.column_stack([self._rows.free[rows], full]))
        numbers = np.array([self._number(row) for row in rows[first].tolist()], dtype=np.int64)[group]
        shared = np.flatnonzero(self._rows.shared.mask(rows))
        numbers[shared] = [self._number(row) for row in rows[shared].tolist()]
        return numbers


def _alike(table: Ints) -> tuple[Ints, Ints]:
    """(the first of each group of equal lines, the group of each line)."""
    # Lines are told apart by a sum with odd weights, which overflows as it may; that equal sums are equal lines is
    # checked.
    weights = np.cumprod(np.full(table.shape[1], _ODD, dtype=np.uint64)).view(np.int64)
    _, first, group = np.unique(table @ weights, return_index=True, return_inverse=True)
    if (table[first[group]] == table).all():
        return first, group
    everyone = np.arange(len(table))
    return everyone, everyone
