"""Shapes: what equivalent workloads have in common, so that a plan works each shape out once."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass

from scheduler.fleet.state import PodSet, WorkloadState


@dataclass(eq=False, frozen=True, slots=True)
class Shape:
    """Everything that placement looks at. Two workloads of one shape fit in the same places.

    Shapes are interned by the fleet: they compare and hash by identity, which is what
    makes them cheap keys.
    """

    pod_sets: tuple[PodSet, ...]
    required_topology: str
    preferred_topology: str
    jurisdictions: frozenset[str]
    flavors: tuple[tuple[str, float], ...] = ()


class Shapes:
    """The shapes of the pending workloads, each kept while a workload has it."""

    def __init__(self) -> None:
        self._of: dict[str, tuple[Hashable, Shape]] = {}
        self._users: dict[Hashable, tuple[Shape, set[str]]] = {}

    def __getitem__(self, workload: str) -> Shape:
        return self._of[workload][1]

    def counted(self) -> Iterator[tuple[Shape, int]]:
        """Each shape, and how many workloads have it."""
        for shape, users in self._users.values():
            yield shape, len(users)

    def add(self, workload: WorkloadState) -> Shape:
        """Note the shape of a workload, which may have changed."""
        key = _key(workload)
        known = self._of.get(workload.key)
        if known is not None:
            if known[0] == key:
                return known[1]
            self.drop(workload.key)
        shape, users = self._users.setdefault(key, (_shape(workload), set()))
        users.add(workload.key)
        self._of[workload.key] = (key, shape)
        return shape

    def drop(self, workload: str) -> None:
        """The workload does not wait any more."""
        known = self._of.pop(workload, None)
        if known is None:
            return
        _, users = self._users[known[0]]
        users.discard(workload)
        if not users:
            del self._users[known[0]]


def _shape(workload: WorkloadState) -> Shape:
    return Shape(
        workload.pod_sets,
        workload.required_topology,
        workload.preferred_topology,
        workload.jurisdictions,
        workload.flavors,
    )


def _key(workload: WorkloadState) -> Hashable:
    sets = tuple(
        (
            one.name,
            one.count,
            tuple(sorted(one.requests.items())),
            tuple(sorted(one.node_selector.items())),
            one.tolerations,
            one.confidential,
            one.min_count,
            one.milli,
            one.spread,
        )
        for one in workload.pod_sets
    )
    topology = workload.required_topology, workload.preferred_topology
    return sets, topology, workload.jurisdictions, workload.flavors
