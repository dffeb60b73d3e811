"""What one plan can give away: ready nodes, machines on their way, machines it asks for.

A scratch copy: taking room from it changes nothing in the fleet.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from scheduler.fleet import Fleet, NodeState, PodSet, PoolState, WorkloadState
from scheduler.placement.bestfit import Assignment, Ints, Mask, fit_gang
from scheduler.placement.eligibility import shape_refuses
from scheduler.placement.topology import fit_in_domain

Domains = Mapping[str, str]  # topology level → domain
_Shape = tuple[tuple[tuple[str, str], ...], tuple[object, ...], bool]


@dataclass(slots=True)
class Slot:
    """One row that pods can be placed on."""

    name: str  # of the node, or of the machine that is to become one
    labels: Mapping[str, str]
    taken: bool = False


class PoolSupply:
    """The rows of one pool: ready ones first, then the coming, then the asked-for."""

    def __init__(self, pool: PoolState, width: int) -> None:
        self.pool = pool
        self.slots: list[Slot] = []
        self.domains: list[Domains] = []
        self.free: Ints = np.zeros((0, width), dtype=np.int64)
        self.ready = 0  # how many rows are ready nodes
        self._masks: dict[_Shape, Mask] = {}

    def extend(self, slots: Sequence[Slot], domains: Sequence[Domains], free: Ints) -> None:
        self.slots.extend(slots)
        self.domains.extend(domains)
        self.free = np.concatenate([self.free, free])
        self._masks.clear()

    def eligible(self, pod_set: PodSet) -> Mask:
        """Rows whose labels suit. Taints and TEE are the pool's and were looked at before."""
        key: _Shape = (tuple(sorted(pod_set.node_selector.items())), pod_set.tolerations, pod_set.confidential)
        mask = self._masks.get(key)
        if mask is None:
            if not pod_set.node_selector:
                mask = np.ones(len(self.slots), dtype=np.bool_)
            else:
                mask = np.array(
                    [not shape_refuses(pod_set, slot.labels, (), self.pool.confidential) for slot in self.slots],
                    dtype=np.bool_,
                )
            self._masks[key] = mask
        return mask

    def fit(self, workload: WorkloadState, requests: Sequence[Ints], rows: int) -> Assignment | None:
        """Place a workload on the first `rows` rows, honouring its topology. None when it does not fit."""
        return fit_rows(
            workload,
            requests,
            self.free[:rows],
            [self.eligible(pod_set)[:rows] for pod_set in workload.pod_sets],
            self.domains[:rows],
        )

    def take(self, assignment: Assignment, requests: Sequence[Ints]) -> None:
        for index, row, count in assignment:
            self.free[row] -= requests[index] * count
            self.slots[row].taken = True


def fit_rows(
    workload: WorkloadState,
    requests: Sequence[Ints],
    free: Ints,
    eligible: Sequence[Mask],
    domains: Sequence[Domains],
) -> Assignment | None:
    """All pods of the workload on these rows, in one domain where that is required."""
    counts = [pod_set.count for pod_set in workload.pod_sets]
    level = workload.required_topology or workload.preferred_topology
    if level:
        inside = fit_in_domain(free, requests, counts, eligible, [domain.get(level, "") for domain in domains])
        if inside is not None or workload.required_topology:
            return inside
    return fit_gang(free, requests, counts, eligible)


class Supply:
    """The supply of all pools in one plan."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._vectors: dict[tuple[tuple[str, int], ...], Ints] = {}
        for pool in fleet.pools.values():
            for resource in pool.allocatable:
                fleet.table.column(resource)  # a column more changes no value: the fleet stays as it was
        self.width = fleet.table.allocatable.shape[1]
        self.pools: dict[str, PoolSupply] = {}
        self.coming: dict[str, int] = defaultdict(int)
        for name in sorted(fleet.pools):
            self.pools[name] = self._pool(fleet.pools[name])

    def requests(self, workload: WorkloadState) -> list[Ints] | None:
        """What one pod of each set takes, as vectors; None when a resource is offered nowhere."""
        vectors = []
        for pod_set in workload.pod_sets:
            if any(amount and name not in self._fleet.table.columns for name, amount in pod_set.requests.items()):
                return None
            key = tuple(sorted(pod_set.requests.items()))
            vector = self._vectors.get(key)
            if vector is None:
                vector = np.zeros(self.width, dtype=np.int64)
                for name, amount in {**pod_set.requests, "pods": 1}.items():
                    if amount:
                        vector[self._fleet.table.columns[name]] = amount
                self._vectors[key] = vector
            vectors.append(vector)
        return vectors

    def node_vector(self, pool: PoolState) -> Ints:
        """What a fresh node of the pool offers."""
        vector = np.zeros(self.width, dtype=np.int64)
        for name, amount in pool.allocatable.items():
            vector[self._fleet.table.columns[name]] = amount
        return vector

    def _pool(self, pool: PoolState) -> PoolSupply:
        fleet = self._fleet
        supply = PoolSupply(pool, self.width)
        nodes = [fleet.nodes[name] for name in sorted(fleet.nodes_of_pool.get(pool.name, ()))]
        ready = [node for node in nodes if node.ready and node.schedulable]
        if ready:
            free = fleet.table.free(fleet.table.rows[node.name] for node in ready)[:, : self.width]
            supply.extend([Slot(node.name, node.labels) for node in ready], [node_domains(n) for n in ready], free)
        supply.ready = len(ready)
        machines = (fleet.machines[name] for name in sorted(fleet.machines_of_pool.get(pool.name, ())))
        coming = [m for m in machines if not m.going and not fleet.machine_ready(m)]
        self.coming[pool.name] = len(coming)
        if coming:
            supply.extend(
                [Slot(machine.name, pool.labels) for machine in coming],
                [
                    {"nvlinkDomain": m.nvlink_domain, "rack": m.rack, "block": m.block, "site": pool.site}
                    for m in coming
                ],
                np.tile(self.node_vector(pool), (len(coming), 1)),
            )
        return supply


def node_domains(node: NodeState) -> Domains:
    """The domains that a node stands in, by level."""
    return {
        "nvlinkDomain": node.nvlink_domain,
        "rack": node.rack,
        "block": node.block,
        "zone": node.zone,
        "site": node.site,
    }
