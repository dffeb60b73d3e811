"""The reservations of one plan: kept from the last, made for the blocked, and minded by whoever is placed."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from scheduler.fleet.shape import Shape
from scheduler.placement.ask import Ask
from scheduler.placement.bestfit import Assignment, Ints
from scheduler.placement.pool_supply import Placement, PoolSupply, Way
from scheduler.reserving.backfill import ends_before
from scheduler.reserving.holds import Held, needed
from scheduler.reserving.reservation import PATIENCE, Basis, Hold, Rank, Reservation, Reservations, rank_of
from scheduler.reserving.reserve import Spot, reserve
from scheduler.reserving.timeline import Release, Timeline
from scheduler.running.room import adjust, by_row


@dataclass(frozen=True, slots=True)
class Blocked:
    """A workload that is to be placed or, failing that, to wait.

    `runtime`: seconds at most, 0 when unknown. `created_at`: of equal priority the older is not
    held up by what is reserved for the younger, in whatever order they are asked about, so that
    none starves.
    """

    workload: str
    uid: str
    priority: int
    ask: Ask
    runtime: float = 0.0
    created_at: float = 0.0
    borrows: bool = False

    @property
    def rank(self) -> Rank:
        """As `Reservation.rank`."""
        return rank_of(self.priority, self.borrows, self.created_at, self.workload)


class Book:
    """Scratch state of one plan.

    Holds are taken off what is free in the supplies, so that every placement minds them,
    growth included. Nobody minds the holds of those that rank after it: lower priorities, and younger ones.
    """

    def __init__(
        self,
        kept: Reservations,
        timelines: Mapping[str, Timeline],
        now: float,
        asks: Callable[[str, str], Ask | None],
        depth: int = 8,
    ) -> None:
        """`timelines`: by pool, in the state of the supplies before anything is placed.

        `asks(workload, uid)`: what it asks for, None when it does not wait any more or may not
        start; its reservation is dropped then, as is one whose start is past by `PATIENCE`.
        `depth`: how many workloads are given one.
        """
        self._timelines, self._now, self._depth = timelines, now, depth
        self._held: dict[str, dict[str, Held]] = {name: {} for name in timelines}  # pool → workload → held
        self._withheld = {name: np.zeros_like(self._free(name)) for name in timelines}
        self._nominated: dict[str, Reservation] = {}  # of this plan; their room is off the supply already
        self._started: dict[str, list[Release]] = {name: [] for name in timelines}  # by this plan
        self._since: dict[str, float] = {}
        self._misses: set[tuple[str, Shape, int, frozenset[str]]] = set()
        for one in kept:
            ask = asks(one.workload, one.uid)
            if ask is None:
                continue
            self._since[one.workload] = one.since
            late = one.start is not None and now - one.start > PATIENCE
            held = self._of_nodes(one, ask) if one.pool in timelines and not late else None
            if held is not None:
                self._held[one.pool][one.workload] = held
        for name in timelines:
            self._apply(name)

    def __len__(self) -> int:
        return sum(len(held) for held in self._held.values()) + len(self._nominated)

    def holds(self, pool: str) -> bool:
        """Whether room of a pool is held for anybody."""
        return bool(self._held.get(pool))

    def may_tell(self, pool: str) -> bool:
        """Whether a start without draining may be known in this pool."""
        return self._timelines[pool].tells or any(one.end < np.inf for one in self._started[pool])

    def of(self, workload: str) -> Reservation | None:
        """What is reserved for a workload now."""
        held = self._find(workload)
        return held.reservation if held is not None else self._nominated.get(workload)

    def place(self, blocked: Blocked, pool: str, limit: int, way: Way = "scored") -> Placement | None:
        """`PoolSupply.place`, without delaying a reservation; the workload's own is dropped when it succeeds.

        First on room that nobody holds, then on its own, on that of lower priorities and of
        younger ones, and on room that is held for a time when this workload will have ended.
        """
        supply, own = self._timelines[pool].room.supply, self._find(blocked.workload)
        placed = supply.place(blocked.ask, limit, way)
        if placed is None:
            duration = blocked.runtime if blocked.runtime > 0 else None
            rank = own.reservation.rank if own is not None else blocked.rank
            lifted = frozenset(
                key
                for key, held in self._held[pool].items()
                if key == blocked.workload or held.reservation.rank > rank or ends_before(held, duration, self._now)
            )
            miss = (pool, blocked.ask.shape, limit, lifted)
            if lifted and miss not in self._misses:
                self._apply(pool, lifted)
                placed = supply.place(blocked.ask, limit)
                self._apply(pool)
                if placed is None:
                    self._misses.add(miss)
        if placed is not None:
            if own is not None:
                self.drop(blocked.workload)
            self._note(blocked, pool, placed)
        return placed

    def reserve(self, blocked: Blocked, pools: Sequence[str], drains: bool = True) -> Reservation | None:
        """Reserve for a workload that could not be placed, in the pool where it starts first.

        `drains`: whether rows may be drained for it of which nobody knows when they come free.
        In a pool that is done for one workload at a time.

        None when it would fit in none of them even with all gone that runs, or when as many
        `depth` that rank before it have a reservation already. One that waits for
        its victims to go keeps what it has.
        """
        own = self._find(blocked.workload)
        if blocked.workload in self._nominated:
            return self._nominated[blocked.workload]
        if own is not None and own.reservation.basis.kind == "evicts":
            return own.reservation
        if own is None and not self.has_place(blocked.rank):
            return None
        best: Spot | None = None
        for name in pools:
            mine = own if own is not None and own.reservation.pool == name else None
            others = [
                held
                for key, held in self._held[name].items()
                if key != blocked.workload and held.reservation.rank < blocked.rank
            ]
            free = self._free(name) + self._withheld[name]
            spot = reserve(blocked.ask, self._timelines[name], free, others, self._started[name], mine)
            if spot is None or (spot.basis.kind == "drains" and not (drains and self._may_drain(name, blocked))):
                continue
            if best is None or _sooner(spot, best, own):
                best = spot
        self._misses.clear()
        self.drop(blocked.workload)
        if best is None:
            return None
        self._make_place(blocked)
        rows, amounts = by_row(blocked.ask, best.assignment)
        made = self._reservation(blocked, best.pool, best.assignment, best.start, best.basis)
        self._held[best.pool][blocked.workload] = Held(made, rows, amounts)
        self._apply(best.pool)
        return made

    def _may_drain(self, pool: str, blocked: Blocked) -> bool:
        return all(
            key == blocked.workload or held.reservation.basis.kind != "drains" or held.reservation.rank > blocked.rank
            for key, held in self._held[pool].items()
        )

    def nominate(self, blocked: Blocked, pool: str, assignment: Assignment, victim: str) -> Reservation:
        """Note where a workload goes for which others are evicted (`Candidates.commit` took the room)."""
        self.drop(blocked.workload)
        self._make_place(blocked)
        made = self._reservation(blocked, pool, assignment, self._now, Basis("evicts", victim))
        self._nominated[blocked.workload] = made
        return made

    def _note(self, blocked: Blocked, pool: str, placed: Assignment) -> None:
        ready = self._timelines[pool].room.supply.ready
        here = [one for one in placed if one[1] < ready]
        if here:
            end = self._now + blocked.runtime if blocked.runtime > 0 else np.inf
            self._started[pool].append(Release(blocked.workload, *by_row(blocked.ask, here), end))

    def forget_started(self, workload: str) -> None:
        """It was placed by this plan, and has been taken back."""
        for name, started in self._started.items():
            self._started[name] = [one for one in started if one.workload != workload]
        self._misses.clear()

    def drop(self, workload: str) -> None:
        """Its room is everybody's again."""
        for name, held in self._held.items():
            if held.pop(workload, None) is not None:
                self._misses.clear()
                self._apply(name)

    def reservations(self) -> Reservations:
        """What must last until the next plan, by rank."""
        made = [held.reservation for name in sorted(self._held) for held in self._held[name].values()]
        made.extend(self._nominated.values())
        return Reservations(tuple(sorted(made, key=lambda one: one.rank)))

    def _reservation(
        self, blocked: Blocked, pool: str, assignment: Assignment, start: float | None, basis: Basis
    ) -> Reservation:
        names = self._timelines[pool].room.supply.names
        holds = sorted(Hold(names[row], blocked.ask.pods[at].pod_set.name, count) for at, row, count in assignment)
        since = self._since.setdefault(blocked.workload, self._now)
        return Reservation(
            blocked.workload,
            blocked.uid,
            pool,
            tuple(holds),
            start,
            basis,
            blocked.priority,
            blocked.runtime,
            since,
            blocked.created_at,
            blocked.borrows,
        )

    def _of_nodes(self, kept: Reservation, ask: Ask) -> Held | None:
        """In this plan's rows; None when a node has gone or the pod sets are others."""
        supply = self._timelines[kept.pool].room.supply
        wanted = {hold.node for hold in kept.holds}
        rows = {name: row for name in wanted if (row := _row_of(supply, name)) is not None}
        sets = {pod.pod_set.name: index for index, pod in enumerate(ask.pods)}
        counts = {name: 0 for name in sets}
        for hold in kept.holds:
            if hold.node not in rows or hold.pod_set not in sets:
                return None
            counts[hold.pod_set] += hold.count
        if any(counts[pod.pod_set.name] != pod.count for pod in ask.pods):
            return None
        placed = [(sets[hold.pod_set], rows[hold.node], hold.count) for hold in kept.holds]
        return Held(kept, *by_row(ask, placed))

    def _free(self, name: str) -> Ints:
        supply = self._timelines[name].room.supply
        return supply.free[: supply.ready]

    def _find(self, workload: str) -> Held | None:
        return next((held[workload] for held in self._held.values() if workload in held), None)

    def has_place(self, rank: Rank) -> bool:
        """Whether a workload of this rank could be given a reservation."""
        return len(self) < self._depth or self._last_after(rank) is not None

    def _make_place(self, blocked: Blocked) -> None:
        last = self._last_after(blocked.rank)
        if len(self) >= self._depth and last is not None:
            self.drop(last)

    def _last_after(self, rank: Rank) -> str | None:
        """Whose reservation ranks last, if that is after `rank`."""
        ranks = [held.reservation.rank for pool in self._held.values() for held in pool.values()]
        last = max(ranks, default=rank)
        return last[2] if last > rank else None

    def _apply(self, name: str, lifted: frozenset[str] = frozenset()) -> None:
        """Take off the supply what the reservations need, but for those that are lifted."""
        timeline, withheld = self._timelines[name], self._withheld[name]
        supply, active = timeline.room.supply, [one for key, one in self._held[name].items() if key not in lifted]
        before = np.flatnonzero(withheld.any(axis=1))
        rows = np.unique(np.concatenate([before, *(one.rows for one in active)]))
        if not rows.size:
            return
        room = self._free(name)[rows] + withheld[rows]
        target = np.clip(needed(active, rows, timeline, room.shape[1]), 0, np.maximum(room, 0))
        change = withheld[rows] - target
        moved = np.flatnonzero(change.any(axis=1))
        if moved.size:
            adjust(supply, rows[moved], change[moved])
            withheld[rows[moved]] = target[moved]


def _row_of(supply: PoolSupply, name: str) -> int | None:
    """The row of a ready node; they stand in the order of their names."""
    row = bisect_left(supply.names, name, 0, supply.ready)
    return row if row < supply.ready and supply.names[row] == name else None


def _sooner(spot: Spot, best: Spot, own: Held | None) -> bool:
    """A known start before an unknown one, the earlier; of rows to drain those it has, then those less held."""

    def rank(one: Spot) -> tuple[bool, float, bool, float]:
        kept = own is not None and own.reservation.pool == one.pool
        return one.start is None, one.start or 0.0, one.start is None and not kept, one.still_held

    return rank(spot) < rank(best)
