"""Who is next: priority first, then the tenant with the smaller share, then age.

`Turns` walks the backlog of the fleet. What has become hopeless within a plan is closed,
and is passed over from then on without a look at each of its workloads.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, KeysView, Mapping, Set
from heapq import heappop, heappush, heapreplace
from typing import Protocol

from scheduler.fleet import Fleet, WorkloadState
from scheduler.fleet.backlog import Entry, Lines
from scheduler.fleet.shape import Shape

Key = tuple[float, ...]
Head = tuple[Entry, Shape]
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
        """Tenants are looked at in the order of their floors, none before its floor comes before all that were."""
        floor, after, openings = self._order.floor, self._order.after, self._openings
        parked = self._fleet.backlog.parked
        unseen = self._order.ranked(tenants)
        following = next(unseen, None)
        heap: list[tuple[Key, Entry, str]] = []  # of the tenants that were looked at
        alive: dict[str, Set[Shape]] = {}  # of these; kept up to date by the openings
        cursors: dict[str, _Cursor] = {}  # of those of which something was taken, or passed over
        while True:
            if following is not None and (not heap or _precedes(following, heap[0])):
                (key, tenant), entry = following, _FIRST
                following = next(unseen, None)
                lines = tenants[tenant]
                live = alive[tenant] = openings.live(tenant, lines.keys())
                if tenant in self._strict:
                    if lines.keys().isdisjoint(live):
                        stopped.add(tenant)
                    if tenant in stopped:
                        continue
                    cursors[tenant] = _Cursor(self._fleet, openings, tenant, lines, live, strict=True)
            elif heap:
                key, entry, tenant = heappop(heap)
                lines, live = tenants[tenant], alive[tenant]
            else:
                return
            cursor = cursors.get(tenant)
            head = _oldest(lines, live) if cursor is None else cursor.head()
            if cursor is None and head is not None and (head[0][1] in parked or openings.closed(tenant, head[1])):
                cursor = cursors[tenant] = _Cursor(self._fleet, openings, tenant, lines, live, strict=False)
                head = cursor.head()
            if head is None:
                if cursor is not None and cursor.stopped:
                    stopped.add(tenant)
                continue
            now = (after(tenant, head[1]), head[0], tenant)
            stands = now[0] == key and now[1] == entry
            if not stands and ((heap and now > heap[0]) or (following is not None and _precedes(following, now))):
                heappush(heap, now)
                continue
            if cursor is None:
                cursor = cursors[tenant] = _Cursor(self._fleet, openings, tenant, lines, live, strict=False)
            yield cursor.take()
            if not openings.any_left:
                return  # whatever waits in lower priorities
            heappush(heap, (floor(tenant), _FIRST, tenant))


def _precedes(floor: tuple[Key, str], other: tuple[Key, Entry, str]) -> bool:
    """Whether a tenant that was not looked at yet comes before one that was."""
    return floor[0] < other[0] or (floor[0] == other[0] and (_FIRST, floor[1]) < other[1:])


def _oldest(lines: Lines, live: Set[Shape]) -> Head | None:
    """Of the lines that are live."""
    for head in lines.heads():
        if head[1] in live:
            return head
    return None


class _Cursor:
    """Where a plan stands in the lines of one tenant and priority."""

    def __init__(
        self, fleet: Fleet, openings: Openings, tenant: str, lines: Lines, live: Set[Shape], strict: bool
    ) -> None:
        self.stopped = False
        self._fleet, self._openings, self._tenant, self._lines, self._strict = fleet, openings, tenant, lines, strict
        self._live = live
        # The next entry of each line, the oldest on top: in order at first. Entries differ.
        self._heap = [(entry, 0, shape) for entry, shape in lines.heads() if strict or shape in live]

    def head(self) -> Head | None:
        """The tenant's oldest workload that may have its turn, and its shape."""
        heap, parked = self._heap, self._fleet.backlog.parked
        while heap and not self.stopped:
            entry, _, shape = heap[0]
            if shape not in self._live or self._openings.closed(self._tenant, shape):
                if self._strict:
                    self.stopped = True
                else:
                    heappop(heap)
            elif entry[1] in parked and not self._openings.turn(self._fleet.workloads[entry[1]]):
                self._advance()
            else:
                return entry, shape
        return None

    def take(self) -> WorkloadState:
        """The workload on top; the cursor goes past it. Only after `head` or before anything is passed over."""
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
