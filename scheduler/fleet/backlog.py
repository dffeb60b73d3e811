"""The pending workloads by priority, tenant and shape, each line in order of age.

A plan walks it without sorting anything: what it costs follows from what it looks at,
not from how much waits.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter
from typing import NamedTuple, TypeVar

from scheduler.fleet.rights import Rights
from scheduler.fleet.shape import Shape
from scheduler.fleet.state import WorkloadState

Entry = tuple[float, str]  # (created at, workload)
_Item = TypeVar("_Item")


class Lines(dict[Shape, list[Entry]]):
    """The lines of one tenant and priority by shape; none is empty."""

    __slots__ = ("_heads",)

    def __init__(self) -> None:
        super().__init__()
        self._heads: list[tuple[Entry, Shape]] | None = None

    def heads(self) -> list[tuple[Entry, Shape]]:
        """The oldest of each line, and its shape, the oldest first. Kept until one changes; not to be changed."""
        if self._heads is None:
            # Entries differ, so that shapes are never compared.
            self._heads = sorted((line[0], shape) for shape, line in self.items())
        return self._heads

    def put(self, shape: Shape, entry: Entry) -> None:
        """Take in an entry. O(log n) in its line."""
        line = self.setdefault(shape, [])
        insort(line, entry)
        if line[0] is entry:
            self._heads = None

    def take(self, shape: Shape, entry: Entry) -> None:
        """The entry does not wait any more."""
        line = self[shape]
        at = bisect_left(line, entry)
        del line[at]
        if at == 0:
            self._heads = None
        if not line:
            del self[shape]


class _Place(NamedTuple):
    priority: int
    tenant: str
    shape: Shape
    entry: Entry
    bounded: bool
    rights: Rights | None


class Backlog:
    """`lines[priority][tenant][shape]`: entries, the oldest first. Empty levels do not exist."""

    def __init__(self) -> None:
        self.lines: dict[int, dict[str, Lines]] = {}
        self.ages: dict[int, list[Entry]] = {}  # by priority, the oldest first, whosever they are
        self.pairs: Counter[tuple[Rights, Shape]] = Counter()  # of tenants that exist
        self.bounded: Counter[Shape] = Counter()  # how many of a shape say how long they run at most
        self.parked: set[str] = set()  # may have to wait for a time or a check before their turn
        self._places: dict[str, _Place] = {}

    def __len__(self) -> int:
        return len(self._places)

    def of_tenant(self, tenant: str) -> list[str]:
        """The tenant's workloads that wait."""
        found = (tenants[tenant] for tenants in self.lines.values() if tenant in tenants)
        return [key for lines in found for line in lines.values() for _, key in line]

    def add(self, workload: WorkloadState, shape: Shape, priority: int, rights: Rights | None) -> None:
        """Take in a workload that waits, or what it is now. O(log n) in its line."""
        place = _Place(
            priority, workload.tenant, shape, (workload.created_at, workload.key), workload.max_runtime > 0, rights
        )
        if self._places.get(workload.key) != place:
            self.drop(workload.key)
            self._places[workload.key] = place
            tenants = self.lines.setdefault(place.priority, {})
            if place.tenant not in tenants:
                tenants[place.tenant] = Lines()
            tenants[place.tenant].put(shape, place.entry)
            if place.bounded:
                self.bounded[shape] += 1
            if rights is not None:
                self.pairs[rights, shape] += 1
            insort(self.ages.setdefault(place.priority, []), place.entry)
        if workload.not_before or not workload.checks_passed:
            self.parked.add(workload.key)
        else:
            self.parked.discard(workload.key)

    def drop(self, key: str) -> None:
        """It does not wait any more."""
        place = self._places.pop(key, None)
        if place is None:
            return
        self.parked.discard(key)
        if place.bounded:
            _take_one(self.bounded, place.shape)
        if place.rights is not None:
            _take_one(self.pairs, (place.rights, place.shape))
        ages = self.ages[place.priority]
        del ages[bisect_left(ages, place.entry)]
        if not ages:
            del self.ages[place.priority]
        tenants = self.lines[place.priority]
        tenants[place.tenant].take(place.shape, place.entry)
        if not tenants[place.tenant]:
            del tenants[place.tenant]
            if not tenants:
                del self.lines[place.priority]


def _take_one(counted: Counter[_Item], item: _Item) -> None:
    counted[item] -= 1
    if not counted[item]:
        del counted[item]
