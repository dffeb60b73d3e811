"""Scores of a pool's rows, kept between placements.

A score depends on what is free on a row and on nothing else of it. So states of rows are
numbered, and a shape of pod is scored once for each state: pods that are alike fill rows
that are alike at the price of a look-up each.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

import numpy as np

from scheduler.placement.ask import PodAsk
from scheduler.placement.bestfit import Ints, capacity
from scheduler.placement.fragments import MILLI, SHARED_ONLY, UNDECIDED, WHOLE_ONLY, Floats, Worth
from scheduler.placement.pool_rows import PoolRows
from scheduler.placement.scoring import NEVER, States, score, worth_of
from scheduler.placement.states import RowStates

_AHEAD = 64  # rows that are worked out ahead of a batch
_DEEP = 16  # pods on each of them
_UNSET = int(np.iinfo(np.int64).min)


def _nothing() -> Ints:
    return np.zeros(0, dtype=np.int64)


@dataclass(slots=True)
class Scores:
    """Of one shape of pod on all rows, true up to position `seen` of the log."""

    seen: int
    score: Ints = field(default_factory=_nothing)
    device: Ints = field(default_factory=_nothing)  # where a share goes
    score_of: Ints = field(default_factory=_nothing)  # by state, as far as it was worked out
    device_of: Ints = field(default_factory=_nothing)


class Ranking:
    """Which row of a pool is best for a pod."""

    def __init__(self, rows: PoolRows, cpu: int, memory: int, worth: Callable[[], Worth], code: int) -> None:
        """`cpu` and `memory`: columns. `worth`: gives it when it is needed; `code`: of the pool's accelerator class."""
        self._rows, self._cpu, self._memory = rows, cpu, memory
        self._worth, self._code = worth, 3 * code
        self._states = RowStates(rows)
        self._value_of: Floats = np.zeros(0)  # by state; nan until it is needed
        self._scores: dict[Hashable, Scores] = {}

    def drop_from(self, size: int) -> None:
        """Rows from here on are gone."""
        self._states.drop_from(size)
        for scores in self._scores.values():
            scores.score, scores.device = scores.score[:size], scores.device[:size]

    def look(self, pod: PodAsk) -> Scores:
        """The scores as things are now."""
        size, log = len(self._rows), self._rows.log
        scores = self._scores.get(pod.room)
        if scores is None:
            scores = self._scores[pod.room] = Scores(len(log))
        known = scores.score.size
        if known < size:
            scores.score = np.concatenate([scores.score, np.full(size - known, NEVER, dtype=np.int64)])
            scores.device = np.concatenate([scores.device, np.zeros(size - known, dtype=np.int64)])
            self._renew(pod, scores, np.arange(known, size))
        if scores.seen < len(log):
            touched = {row for row in log[scores.seen :] if row < known}
            if len(touched) == 1 and scores.seen == len(log) - 1:
                self.settle(pod, scores, touched.pop(), _DEEP)
            else:
                self._renew(pod, scores, np.array(sorted(touched), dtype=np.int64))
            scores.seen = len(log)
        return scores

    def settle(self, pod: PodAsk, scores: Scores, row: int, more: int = 0) -> None:
        """Renew the score of one row that was touched. `more`: like pods that follow, as far as one can tell."""
        state = self._states.of(row)
        if state >= scores.score_of.size or scores.score_of[state] == _UNSET:
            if more and not pod.pod.share and row not in self._rows.shared:
                self._work_ahead(pod, scores, row, more)
            else:
                self._renew(pod, scores, np.array([row]))
                return
        fits = self._rows.eligible(pod)[row]
        scores.score[row] = scores.score_of[state] if fits else NEVER
        scores.device[row] = scores.device_of[state]

    def _renew(self, pod: PodAsk, scores: Scores, rows: Ints) -> None:
        states = self._states.of_many(rows)
        self._reserve(scores)
        unset = scores.score_of[states] == _UNSET
        if unset.any():
            new, one_each = _one_each(states[unset], rows[unset], len(self._states))
            fits = self._rows.capacity(pod, one_each)
            self._set(pod, scores, new, self._free_on(one_each), fits)
        scores.score[rows] = np.where(self._rows.eligible(pod)[rows], scores.score_of[states], NEVER)
        scores.device[rows] = scores.device_of[states]

    def _reserve(self, scores: Scores) -> None:
        missing = len(self._states) - scores.score_of.size
        if missing > 0:
            more = max(missing, scores.score_of.size, 64)
            scores.score_of = np.concatenate([scores.score_of, np.full(more, _UNSET, dtype=np.int64)])
            scores.device_of = np.concatenate([scores.device_of, np.zeros(more, dtype=np.int64)])

    def _work_ahead(self, pod: PodAsk, scores: Scores, row: int, more: int) -> None:
        """Work out the row's state, and those that the best rows will have as such pods fill them."""
        best = _lowest(scores.score, _AHEAD)
        best = best[(scores.score[best] != NEVER) & ~self._rows.shared.mask(best)]
        rows = np.union1d(best, np.array([row]))
        steps = np.minimum(self._rows.capacity(pod, rows), min(more, _DEEP)) + 1
        which = np.repeat(np.arange(rows.size), steps)
        step = np.arange(which.size) - np.repeat(np.cumsum(steps) - steps, steps)
        free = self._rows.free[rows][which] - step[:, None] * pod.request
        whole = free[:, self._rows.device] != self._rows.total[rows][which]
        states = self._states.number(free, whole)
        self._reserve(scores)
        amounts = self._whole(free, np.where(whole, WHOLE_ONLY, UNDECIDED))
        self._set(pod, scores, states, amounts, capacity(free, pod.request))

    def _set(self, pod: PodAsk, scores: Scores, states: Ints, amounts: States, caps: Ints) -> None:
        then = None
        if pod.pod.devices:
            then = np.full(caps.size, self._code + (SHARED_ONLY if pod.pod.share else WHOLE_ONLY), dtype=np.int64)
        value = self._values(states, amounts)
        scores.score_of[states], scores.device_of[states] = score(self._worth(), pod.pod, amounts, caps, then, value)

    def _values(self, states: Ints, amounts: States) -> Floats:
        # What a state is worth is the same for all shapes of pod.
        missing = len(self._states) - self._value_of.size
        if missing > 0:
            more = max(missing, self._value_of.size, 64)
            self._value_of = np.concatenate([self._value_of, np.full(more, np.nan)])
        unset = np.isnan(self._value_of[states])
        if unset.any():
            self._value_of[states[unset]] = worth_of(self._worth(), amounts[np.flatnonzero(unset)])
        return self._value_of[states]

    def _free_on(self, rows: Ints) -> States:
        free, total = self._rows.free[rows], self._rows.total[rows]
        shared = self._rows.shared.mask(rows)
        mode = np.where(shared, SHARED_ONLY, np.where(free[:, self._rows.device] == total, UNDECIDED, WHOLE_ONLY))
        amounts = self._whole(free, mode)
        if shared.any():
            held = self._rows.shared.free(rows[shared])
            amounts.milli[shared, : held.shape[1]] = held
        return amounts

    def _whole(self, free: Ints, mode: Ints) -> States:
        width = int(self._rows.total[: len(self._rows)].max(initial=0))
        milli = np.where(np.arange(width) < free[:, self._rows.device, None], MILLI, 0)
        return States(free[:, self._cpu], free[:, self._memory], milli, self._code + mode)


def _one_each(states: Ints, rows: Ints, numbers: int) -> tuple[Ints, Ints]:
    """(the states in order, the first of the rows that is in each). `numbers`: how many states there are."""
    first = np.full(numbers, -1, dtype=np.int64)
    first[states[::-1]] = rows[::-1]  # of several the last that is written stays
    found = np.flatnonzero(first >= 0)
    return found, first[found]


def _lowest(scores: Ints, count: int) -> Ints:
    """The rows with the lowest scores, of equal ones the first."""
    if scores.size <= count:
        return np.arange(scores.size)
    last = np.partition(scores, count - 1)[count - 1]
    below, ties = np.flatnonzero(scores < last), np.flatnonzero(scores == last)
    return np.concatenate([below, ties[: count - below.size]])
