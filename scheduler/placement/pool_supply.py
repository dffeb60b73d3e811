"""Placement on the rows of one pool. Room is taken and given back in place.

Pods go one by one to the row with the best score (`scoring`), so that what remains is of
most worth to the pods still to come. A gang that asks for topology exchanges data: it
touches few nodes instead (`bestfit`), and scores settle ties. Where several pod sets
find no place that way, further ways to fill are tried.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np

from scheduler.fleet import PoolState
from scheduler.fleet.attributes import NONE
from scheduler.placement.aligned import aligned
from scheduler.placement.ask import Ask, PodAsk
from scheduler.placement.bestfit import Assignment, Ints, spread
from scheduler.placement.pool_rows import NewRow, PoolRows, ReadyRows
from scheduler.placement.ranking import Ranking
from scheduler.placement.scoring import NEVER

__all__ = ["NewRow", "Placement", "PoolSupply", "ReadyRows", "Way"]

_RANK_CAP = 1 << 20  # room beyond this is not told apart


class Placement(Assignment):
    """Where all pods of an ask go: [(pod set index, row, count)] in order, and the devices of shares."""

    devices: Mapping[tuple[int, int], tuple[int, ...]]  # (pod set index, row) → a device for each share pod

    def __init__(self, placed: Assignment, devices: Mapping[tuple[int, int], Sequence[int]]) -> None:
        super().__init__(sorted(placed))
        self.devices = {key: tuple(devices[key]) for key in sorted(devices)}


class _Draft:
    """A placement in the making."""

    def __init__(self) -> None:
        self.counts: dict[tuple[int, int], int] = {}  # by pod set index and row
        self.devices: dict[tuple[int, int], list[int]] = {}

    def put(self, index: int, row: int, count: int) -> None:
        self.counts[index, row] = self.counts.get((index, row), 0) + count


Fill = Callable[[int, PodAsk, Ints | slice, _Draft], bool]
# How pods find their rows: as `scoring` has it; as `aligned` has it; on the nodes with the least room first. But for
# the first, of the domains that topology allows the one with the fewest free devices is taken.
Way = Literal["scored", "aligned", "tight"]


class PoolSupply(PoolRows):
    """The rows of a pool, and placement on them."""

    def __init__(
        self,
        pool: PoolState,
        names: Sequence[str],
        free: Ints,
        device: int,
        ready_rows: ReadyRows,
        ranking: Callable[[PoolRows], Ranking],
        total: Ints | None = None,
        shared: Mapping[int, Mapping[int, int]] | None = None,
    ) -> None:
        """As `PoolRows`; `ranking` makes the scores of these rows."""
        super().__init__(pool, names, free, device, ready_rows, total, shared)
        self.takers: Ints = np.zeros(len(names), dtype=np.int64)  # decisions of this plan that use the row
        self._ranking = ranking(self)

    def add(self, rows: Sequence[NewRow], free: Ints) -> None:
        """Add rows behind the others. `free`: shape (rows, columns)."""
        super().add(rows, free)
        if self.free.shape[0] > self.takers.size:
            more = self.free.shape[0] - self.takers.size
            self.takers = np.concatenate([self.takers, np.zeros(more, dtype=np.int64)])
        self.takers[len(self) - len(rows) : len(self)] = 0

    def drop_last(self, count: int) -> None:
        """Take away the last rows again. Nothing may be placed on them."""
        super().drop_last(count)
        self._ranking.drop_from(len(self))

    def place(self, ask: Ask, limit: int, way: Way = "scored") -> Placement | None:
        """Place all pods on the first `limit` rows and take the room, honouring topology; or change nothing."""
        fills = self._ways(ask, way)
        placed = self._place_inside(ask, limit, fills, way) if ask.level else None
        if placed is None and not ask.shape.required_topology:
            placed = self._place(ask, slice(0, limit), fills)
        if placed is not None:
            for _, row, _ in placed:
                self.takers[row] += 1
        return placed

    def give_back(self, ask: Ask, placed: Placement) -> None:
        """Undo a placement."""
        for index, row, count in placed:
            self.untake(ask.pods[index], row, count, placed.devices.get((index, row), ()))
            self.takers[row] -= 1

    def take_again(self, ask: Ask, placed: Placement) -> None:
        """Undo `give_back`, while what it gave back is still free."""
        for index, row, count in placed:
            devices = placed.devices.get((index, row), ())
            for device in devices:
                self.take(ask.pods[index], row, 1, device)
            if not devices:
                self.take(ask.pods[index], row, count)
            self.takers[row] += 1

    def _place_inside(self, ask: Ask, limit: int, fills: Sequence[Fill], way: Way) -> Placement | None:
        # The domain where the least room is left over; ties go to the first by name.
        level = ask.level
        codes, names = self.level(level)
        good = np.ones(len(names), dtype=np.bool_)
        for pod in ask.pods:
            good &= self.room_by_domain(pod, level, limit, pod.count) >= pod.count
        if not good.any():
            return None
        if way == "scored":
            left = self.room_by_domain(ask.pods[0], level, limit, _RANK_CAP)
        else:
            inside = codes[:limit] != NONE
            devices = self.free[:limit, self.device][inside]
            left = np.bincount(codes[:limit][inside], weights=devices, minlength=len(names)).astype(np.int64)
        for code in sorted(np.flatnonzero(good).tolist(), key=lambda one: (int(left[one]), names[one])):
            placed = self._place(ask, np.flatnonzero(codes[:limit] == code), fills)
            if placed is not None:
                return placed
        return None

    def _place(self, ask: Ask, rows: Ints | slice, fills: Sequence[Fill]) -> Placement | None:
        single = len(ask.pods) == 1
        if not (single and ask.pods[0].count == 1):
            for pod in ask.pods:
                if int(np.minimum(self.room(pod)[rows], pod.count).sum()) < pod.count:
                    return None
        for fill in fills:
            for order in ask.orders():
                placed = self._try(ask, order, rows, fill)
                if placed is not None:
                    return placed
        return None

    def _ways(self, ask: Ask, way: Way) -> Sequence[Fill]:
        if way != "scored":
            return (self._fill_aligned if way == "aligned" else self._fill_tight,)
        scored: Fill = self._fill_by_score
        few: Fill = self._fill_few
        tight: Fill = self._fill_tight
        if len(ask.pods) == 1:
            return (few,) if ask.level and ask.pods[0].count > 1 else (scored,)
        return (few, tight) if ask.level else (scored, few, tight)

    def _try(self, ask: Ask, order: Sequence[int], rows: Ints | slice, fill: Fill) -> Placement | None:
        draft = _Draft()
        for index in order:
            if not fill(index, ask.pods[index], rows, draft):
                for (at, row), count in draft.counts.items():
                    self.untake(ask.pods[at], row, count, draft.devices.get((at, row), ()))
                return None
        return Placement([(index, row, count) for (index, row), count in draft.counts.items()], draft.devices)

    def _fill_by_score(self, index: int, pod: PodAsk, rows: Ints | slice, draft: _Draft) -> bool:
        scores = self._ranking.look(pod)
        view = scores.score[rows]  # of a slice: the scores themselves
        for left in range(pod.count - 1, -1, -1):
            at = int(view.argmin()) if view.size else -1
            if at < 0 or view[at] == NEVER:
                return False
            row = at if isinstance(rows, slice) else int(rows[at])
            device = int(scores.device[row])
            self.take(pod, row, 1, device)
            draft.put(index, row, 1)
            if pod.pod.share:
                draft.devices.setdefault((index, row), []).append(device)
            if left:
                self._ranking.settle(pod, scores, row, left)
                view[at] = scores.score[row]
        scores.seen = max(scores.seen, len(self.log) - 1)  # all but the last row touched are settled
        return True

    def _fill_few(self, index: int, pod: PodAsk, rows: Ints | slice, draft: _Draft) -> bool:
        return self._fill_rows(index, pod, rows, draft, tight=False)

    def _fill_tight(self, index: int, pod: PodAsk, rows: Ints | slice, draft: _Draft) -> bool:
        return self._fill_rows(index, pod, rows, draft, tight=True)

    def _fill_aligned(self, index: int, pod: PodAsk, rows: Ints | slice, draft: _Draft) -> bool:
        if pod.pod.share:
            return self._fill_by_score(index, pod, rows, draft)
        among = np.arange(len(self))[rows]
        chosen = aligned(self.free, pod.request, among[self.room(pod)[among] > 0], pod.count)
        for row, count in chosen or ():
            self.take(pod, row, count)
            draft.put(index, row, count)
        return chosen is not None

    def _fill_rows(self, index: int, pod: PodAsk, rows: Ints | slice, draft: _Draft, tight: bool) -> bool:
        chosen = spread(self.room(pod)[rows], pod.count, self._ranking.look(pod).score[rows], tight)
        if chosen is None:
            return False
        for at, count in chosen:
            row = at if isinstance(rows, slice) else int(rows[at])
            if pod.pod.share:
                few = _of_count(pod, count)
                if not self._fill_by_score(index, few, np.array([row]), draft):
                    return False
            else:
                self.take(pod, row, count)
                draft.put(index, row, count)
        return True


def _of_count(pod: PodAsk, count: int) -> PodAsk:
    """The same pods in another number."""
    return PodAsk(pod.pod_set, count, pod.request, pod.suits, pod.room, pod.pod)
