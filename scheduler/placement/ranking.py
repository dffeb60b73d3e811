"""Scores of a pool's rows, kept between placements.

A score depends on what is free on a row and on nothing else of it, so that it is worked
out once for all rows that are alike, and remembered: pods that are alike fill rows that
are alike at the price of a look-up each.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

import numpy as np

from scheduler.placement.ask import PodAsk
from scheduler.placement.bestfit import Ints, capacity
from scheduler.placement.fragments import MILLI, SHARED_ONLY, UNDECIDED, WHOLE_ONLY, Worth
from scheduler.placement.pool_rows import PoolRows
from scheduler.placement.scoring import NEVER, States, score

_SINGLY = 48  # up to so many touched rows are looked up one by one
_AHEAD = 64  # rows that are worked out ahead of a batch
_DEEP = 16  # pods on each of them
_KNOWN = 1 << 17  # states that are remembered at most for a shape

_ODD = 0x9E3779B97F4A7C15

_UNDECIDED, _WHOLE = b"", b"w"
_State = tuple[bytes, bytes]


@dataclass(slots=True)
class Scores:
    """Of one shape of pod on all rows, true up to position `seen` of the log."""

    score: Ints
    device: Ints  # where a share goes
    seen: int
    known: dict[_State, tuple[int, int]] = field(default_factory=dict)  # state of a row → (score, device)


class Ranking:
    """Which row of a pool is best for a pod."""

    def __init__(self, rows: PoolRows, cpu: int, memory: int, worth: Callable[[], Worth], code: int) -> None:
        """`cpu` and `memory`: columns. `worth`: gives it when it is needed; `code`: of the pool's accelerator class."""
        self._rows, self._cpu, self._memory = rows, cpu, memory
        self._worth, self._code = worth, 3 * code
        self._scores: dict[Hashable, Scores] = {}

    def drop_from(self, size: int) -> None:
        """Rows from here on are gone."""
        for scores in self._scores.values():
            scores.score, scores.device = scores.score[:size], scores.device[:size]

    def look(self, pod: PodAsk) -> Scores:
        """The scores as things are now."""
        size, log = len(self._rows), self._rows.log
        scores = self._scores.get(pod.room)
        if scores is None:
            none = np.zeros(0, dtype=np.int64)
            scores = self._scores[pod.room] = Scores(none, none, len(log))
        known = scores.score.size
        if scores.seen < len(log):
            touched = {row for row in log[scores.seen :] if row < known}
            if len(touched) <= _SINGLY:
                for row in touched:
                    self.settle(pod, scores, row)
            else:
                rows = np.array(sorted(touched), dtype=np.int64)
                scores.score[rows], scores.device[rows] = self._block(pod, rows)
            scores.seen = len(log)
        if known < size:
            more, device = self._block(pod, np.arange(known, size))
            scores.score = np.concatenate([scores.score[:known], more])
            scores.device = np.concatenate([scores.device[:known], device])
        return scores

    def settle(self, pod: PodAsk, scores: Scores, row: int, more: int = 0) -> None:
        """Renew the score of one row that was touched. `more`: like pods that follow at once."""
        state = self._state(row)
        found = scores.known.get(state)
        if found is None:
            if len(scores.known) > _KNOWN:
                scores.known.clear()
            if more and not pod.pod.share and row not in self._rows.shared:
                self._work_ahead(pod, scores, row, more)
            found = scores.known.get(state)
        if found is None:
            one = np.array([row])
            fresh, device = self._score(pod, self._states(one), self._rows.capacity(pod, one))
            found = scores.known[state] = int(fresh[0]), int(device[0])
        scores.score[row], scores.device[row] = found if self._rows.eligible(pod)[row] else (NEVER, 0)

    def _state(self, row: int) -> _State:
        rows = self._rows
        if row in rows.shared:
            return rows.free[row].tobytes(), rows.shared.state(row)
        free = rows.free[row]
        return free.tobytes(), _UNDECIDED if free[rows.device] == rows.total[row] else _WHOLE

    def _states(self, rows: Ints) -> States:
        free, total = self._rows.free[rows], self._rows.total[rows]
        devices = free[:, self._rows.device]
        shared = self._rows.shared.mask(rows)
        mode = np.where(shared, SHARED_ONLY, np.where(devices == total, UNDECIDED, WHOLE_ONLY))
        states = self._whole(free, mode)
        if shared.any():
            held = self._rows.shared.free(rows[shared])
            states.milli[shared, : held.shape[1]] = held
        return states

    def _whole(self, free: Ints, mode: Ints) -> States:
        width = int(self._rows.total[: len(self._rows)].max(initial=0))
        milli = np.where(np.arange(width) < free[:, self._rows.device, None], MILLI, 0)
        return States(free[:, self._cpu], free[:, self._memory], milli, self._code + mode)

    def _score(self, pod: PodAsk, states: States, caps: Ints) -> tuple[Ints, Ints]:
        then = None
        if pod.pod.devices:
            then = np.full(caps.size, self._code + (SHARED_ONLY if pod.pod.share else WHOLE_ONLY), dtype=np.int64)
        return score(self._worth(), pod.pod, states, caps, then)

    def _block(self, pod: PodAsk, rows: Ints) -> tuple[Ints, Ints]:
        found = np.full(rows.size, NEVER, dtype=np.int64)
        device = np.zeros(rows.size, dtype=np.int64)
        caps = self._rows.capacity(pod, rows)
        fits = np.flatnonzero((caps > 0) & self._rows.eligible(pod)[rows])
        if fits.size:
            states, caps = self._states(rows[fits]), caps[fits]
            first, of = _alike(np.column_stack([states.cpu, states.memory, states.kind, caps, states.milli]))
            fresh, where = self._score(pod, states[first], caps[first])
            found[fits], device[fits] = fresh[of], where[of]
        return found, device

    def _work_ahead(self, pod: PodAsk, scores: Scores, row: int, more: int) -> None:
        """Work out the row's state, and those that the best rows will have as such pods fill them."""
        size = scores.score.size
        best = np.argpartition(scores.score, _AHEAD)[:_AHEAD] if size > _AHEAD else np.arange(size)
        best = best[(scores.score[best] != NEVER) & ~self._rows.shared.mask(best)]
        rows = np.union1d(best, np.array([row]))
        deep = np.minimum(self._rows.capacity(pod, rows), min(more, _DEEP))
        which = np.repeat(np.arange(rows.size), deep + 1)
        step = np.arange(which.size) - np.repeat(np.cumsum(deep + 1) - (deep + 1), deep + 1)
        free = self._rows.free[rows][which] - step[:, None] * pod.request
        whole = free[:, self._rows.device] != self._rows.total[rows][which]
        states = self._whole(free, np.where(whole, WHOLE_ONLY, UNDECIDED))
        fresh, device = self._score(pod, states, capacity(free, pod.request))
        keys = zip(map(bytes, free), whole.tolist(), strict=True)
        values = zip(fresh.tolist(), device.tolist(), strict=True)
        for (room, taken), value in zip(keys, values, strict=True):
            scores.known[room, _WHOLE if taken else _UNDECIDED] = value


def _alike(table: Ints) -> tuple[Ints, Ints]:
    """(the first of each group of equal lines, the group of each line)."""
    # Lines are told apart by a sum with odd weights, which overflows as it may; that equal sums are equal lines is
    # checked.
    weights = np.cumprod(np.full(table.shape[1], _ODD, dtype=np.uint64)).view(np.int64)
    _, first, of = np.unique(table @ weights, return_index=True, return_inverse=True)
    if (table[first[of]] == table).all():
        return first, of
    everyone = np.arange(len(table))
    return everyone, everyone
