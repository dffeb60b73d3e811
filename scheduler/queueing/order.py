"""Who is next: priority first, then the tenant with the smaller share, then age.

`Turns` walks the backlog of the fleet. What has become hopeless within a plan is closed,
and is passed over from then on without a look at each of its workloads.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, KeysView, Mapping, Set
from heapq import heapify, heappop, heappush, heapreplace
from typing import Protocol

from scheduler.fleet import Fleet, WorkloadState
from scheduler.fleet.backlog import Entry, Lines
from scheduler.fleet.shape import Shape

Key = tuple[float, ...]
_FIRST: Entry = (float("-inf"), "")


class Order(Protocol):
    """How tenants compare. Smaller goes first; keys only grow as a plan gives things away."""

    def ranked(self, tenants: Mapping[str, object]) -> Iterator[tuple[Key, str]]:
        """(floor, tenant) of these, the smallest first, by the floors as they were when the plan began.

        Tenants that do not exist may be left out: nothing can be done for them.
        """

    def floor(self, tenant: str) -> Key:
        """A lower bound of `after` for any shape, cheap to have."""

    def after(self, tenant: str, shape: Shape) -> Key:
        """What the tenant's share would be with a workload of this shape."""


class Openings(Protocol):
    """What can still be done within a plan. Closed once, closed for all of it."""

    @property
    def any_left(self) -> bool:
        """False when nothing more is to be done in this plan, whatever waits."""

    def live(self, tenant: str, shapes: KeysView[Shape]) -> Set[Shape]:
        """A set kept up to date: those of `shapes` in it have not been closed for all tenants of equal rights."""

    def closed(self, tenant: str, shape: Shape) -> bool:
        """Whether it was closed for this tenant alone."""

    def turn(self, workload: WorkloadState) -> bool:
        """Whether a parked workload may have its turn."""


class ByAge:
    """The older goes first, whosever it is."""

    def ranked(self, tenants: Mapping[str, object]) -> Iterator[tuple[Key, str]]:
        return (((), tenant) for tenant in sorted(tenants))

    def floor(self, tenant: str) -> Key:
        return ()

    def after(self, tenant: str, shape: Shape) -> Key:
        return ()


class Turns:
    """Yields the pending workloads that something may be done for, each once at most.

    `strict`: tenants none of whose workloads may overtake one that is closed. Keys are
    taken as they stand when somebody's turn comes: as they only grow, one that is out of
    date is found when it is on top.
    """

    def __init__(self, fleet: Fleet, order: Order, openings: Openings, strict: Collection[str] = ()) -> None:
        self._fleet, self._order, self._openings, self._strict = fleet, order, openings, strict

    def __iter__(self) -> Iterator[WorkloadState]:
        lines = self._fleet.backlog.lines
        stopped: set[str] = set()  # strict tenants with a closed workload of higher priority
        for priority in sorted(lines, reverse=True):
            yield from self._within(lines[priority], stopped)

    def _within(self, tenants: dict[str, Lines], stopped: set[str]) -> Iterator[WorkloadState]:
        """Tenants are opened in the order of their floors, none before its floor comes before all that are open."""
        floor, live, after = self._order.floor, self._openings.live, self._order.after
        unopened = self._order.ranked(tenants)
        following = next(unopened, None)
        heap: list[tuple[Key, Entry, str]] = []
        alive: dict[str, Set[Shape]] = {}  # of the opened; kept up to date by the openings
        cursors: dict[str, _Cursor] = {}
        while True:
            while following is not None and (not heap or (following[0], _FIRST, following[1]) < heap[0]):
                key, tenant = following
                following = next(unopened, None)
                lines = tenants[tenant]
                alive[tenant] = live(tenant, lines.keys())
                if lines.keys().isdisjoint(alive[tenant]):
                    if tenant in self._strict:
                        stopped.add(tenant)
                elif tenant not in stopped:
                    heappush(heap, (key, _FIRST, tenant))
            if not heap:
                return
            key, entry, tenant = heappop(heap)
            cursor = cursors.get(tenant)
            if cursor is None:
                lines, strict = tenants[tenant], tenant in self._strict
                if not strict and lines.keys().isdisjoint(alive[tenant]):
                    continue  # closed since it was opened
                cursor = _Cursor(self._fleet, self._openings, tenant, lines, alive[tenant], strict)
                cursors[tenant] = cursor
            head = cursor.head()
            if head is None:
                if cursor.stopped:
                    stopped.add(tenant)
                continue
            now = (after(tenant, head), cursor.entry(), tenant)
            others = [*heap[:1], *([(following[0], _FIRST, following[1])] if following is not None else ())]
            if now[:2] != (key, entry) and others and now > min(others):
                heappush(heap, now)
                continue
            yield cursor.take()
            if not self._openings.any_left:
                return  # whatever waits in lower priorities
            heappush(heap, (floor(tenant), _FIRST, tenant))


class _Cursor:
    """Where a plan stands in the lines of one tenant and priority."""

    def __init__(
        self, fleet: Fleet, openings: Openings, tenant: str, lines: Lines, live: Set[Shape], strict: bool
    ) -> None:
        self.stopped = False
        self._fleet, self._openings, self._tenant, self._lines, self._strict = fleet, openings, tenant, lines, strict
        self._live = live
        # The next entry of each line, the oldest on top. Entries differ, so that the order of a set does not matter.
        self._heap = [(lines[shape][0], 0, shape) for shape in (lines if strict else lines.keys() & live)]
        heapify(self._heap)

    def head(self) -> Shape | None:
        """The shape whose next workload is the tenant's oldest that may have its turn."""
        heap, parked = self._heap, self._fleet.backlog.parked
        while heap and not self.stopped:
            (_, key), _, shape = heap[0]
            if shape not in self._live or self._openings.closed(self._tenant, shape):
                if self._strict:
                    self.stopped = True
                else:
                    heappop(heap)
            elif key in parked and not self._openings.turn(self._fleet.workloads[key]):
                self._advance()
            else:
                return shape
        return None

    def entry(self) -> Entry:
        """Of the workload that `head` found."""
        return self._heap[0][0]

    def take(self) -> WorkloadState:
        """The workload that `head` found; the cursor goes past it."""
        key = self._heap[0][0][1]
        self._advance()
        return self._fleet.workloads[key]

    def _advance(self) -> None:
        _, at, shape = self._heap[0]
        line = self._lines[shape]
        if at + 1 < len(line):
            heapreplace(self._heap, (line[at + 1], at + 1, shape))
        else:
            heappop(self._heap)
