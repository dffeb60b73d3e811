"""The fleet: upserts and removals in time proportional to what changed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

import numpy as np

from scheduler.fleet.state import (
    BoundPod,
    MachineState,
    NodeState,
    PoolState,
    TenantState,
    WorkloadState,
)
from scheduler.fleet.table import NodeTable

_PODS = "pods"


class Fleet:
    """All state that a plan reads. Not thread-safe: one owner changes it between plans."""

    def __init__(self) -> None:
        self.table = NodeTable()
        self.nodes: dict[str, NodeState] = {}
        self.pools: dict[str, PoolState] = {}
        self.machines: dict[str, MachineState] = {}
        self.tenants: dict[str, TenantState] = {}
        self.workloads: dict[str, WorkloadState] = {}
        self.pods: dict[str, BoundPod] = {}
        self.nodes_of_pool: dict[str, set[str]] = defaultdict(set)
        self.machines_of_pool: dict[str, set[str]] = defaultdict(set)
        self.pending: dict[str, WorkloadState] = {}
        self.holders: dict[str, set[str]] = defaultdict(set)  # node → workloads that hold room on it
        self.usage: dict[tuple[str, str], int] = defaultdict(int)  # (tenant, accelerator) → devices
        self._claims: dict[str, list[tuple[str, dict[str, int]]]] = {}  # holder → (node, amounts)
        self._claims_on: dict[str, dict[str, dict[str, int]]] = defaultdict(dict)  # node → holder → amounts
        self._charged: dict[str, tuple[str, str, int]] = {}  # workload → its share of `usage`

    # Nodes and machines

    def upsert_node(self, node: NodeState) -> None:
        """Take in a node. Room held on it by known workloads and pods is counted at once."""
        old = self.nodes.get(node.name)
        if old is not None and old.pool != node.pool:
            self.nodes_of_pool[old.pool].discard(node.name)
        self.nodes[node.name] = node
        self.nodes_of_pool[node.pool].add(node.name)
        row = self.table.add(node.name)
        vector = self.table.vector(node.allocatable)
        self.table.allocatable[row] = vector
        if old is None:
            for amounts in self._claims_on[node.name].values():
                self._add(row, amounts, 1)

    def remove_node(self, name: str) -> None:
        """The node is gone; what was claimed on it stays claimed should it come back."""
        node = self.nodes.pop(name, None)
        if node is not None:
            self.nodes_of_pool[node.pool].discard(name)
            self.table.drop(name)

    def upsert_machine(self, machine: MachineState) -> None:
        self.machines[machine.name] = machine
        self.machines_of_pool[machine.pool].add(machine.name)

    def remove_machine(self, name: str) -> None:
        machine = self.machines.pop(name, None)
        if machine is not None:
            self.machines_of_pool[machine.pool].discard(name)

    # Pools and tenants

    def upsert_pool(self, pool: PoolState) -> None:
        self.pools[pool.name] = pool

    def remove_pool(self, name: str) -> None:
        self.pools.pop(name, None)

    def upsert_tenant(self, tenant: TenantState) -> None:
        self.tenants[tenant.name] = tenant

    def remove_tenant(self, name: str) -> None:
        self.tenants.pop(name, None)

    # Workloads and pods

    def upsert_workload(self, workload: WorkloadState) -> None:
        """Take in a workload; what it holds replaces what it held."""
        self.workloads[workload.key] = workload
        waits = not workload.admitted and not workload.finished and workload.active
        if waits:
            self.pending[workload.key] = workload
        else:
            self.pending.pop(workload.key, None)
        held = workload.placements if workload.admitted and not workload.finished else ()
        requests = {pod_set.name: pod_set.requests for pod_set in workload.pod_sets}
        claims = [(node, _times(requests.get(name, {}), count)) for name, node, count in held if count > 0]
        self._claim(workload.key, claims)
        self._charge(workload, held)

    def remove_workload(self, key: str) -> None:
        self.workloads.pop(key, None)
        self.pending.pop(key, None)
        self._claim(key, [])
        self._uncharge(key)

    def upsert_pod(self, pod: BoundPod) -> None:
        """Take in a pod that others placed."""
        self.pods[pod.key] = pod
        self._claim(f"pod:{pod.key}", [(pod.node, _times(pod.requests, 1))])

    def remove_pod(self, key: str) -> None:
        self.pods.pop(key, None)
        self._claim(f"pod:{key}", [])

    # Derived

    def machine_ready(self, machine: MachineState) -> bool:
        """Whether the machine has become a node that takes pods."""
        node = self.nodes.get(machine.node)
        return node is not None and node.ready

    def _claim(self, holder: str, claims: list[tuple[str, dict[str, int]]]) -> None:
        for node, _ in self._claims.pop(holder, ()):
            amounts = self._claims_on[node].pop(holder, None)
            if amounts is not None and node in self.table.rows:
                self._add(self.table.rows[node], amounts, -1)
            if not self._claims_on[node]:
                del self._claims_on[node]
            self.holders[node].discard(holder)
            if not self.holders[node]:
                del self.holders[node]
        if not claims:
            return
        self._claims[holder] = claims
        for node, amounts in claims:
            # Two pod sets of one workload may share a node: their claims add up.
            known = self._claims_on[node].setdefault(holder, {})
            for name, amount in amounts.items():
                known[name] = known.get(name, 0) + amount
            self.holders[node].add(holder)
            if node in self.table.rows:
                self._add(self.table.rows[node], amounts, 1)

    def _add(self, row: int, amounts: Mapping[str, int], sign: int) -> None:
        columns = [self.table.column(name) for name in amounts]
        self.table.used[row, columns] += sign * np.array(list(amounts.values()), dtype=np.int64)

    def _charge(self, workload: WorkloadState, held: Iterable[tuple[str, str, int]]) -> None:
        self._uncharge(workload.key)
        if not workload.accelerator or not workload.admitted or workload.finished:
            return
        by_set: dict[str, int] = defaultdict(int)
        for name, _, count in held:
            by_set[name] += count
        devices = sum(devices_of(pod_set.requests) * by_set[pod_set.name] for pod_set in workload.pod_sets)
        share = (workload.tenant, workload.accelerator, devices)
        self._charged[workload.key] = share
        self.usage[share[:2]] += devices

    def _uncharge(self, key: str) -> None:
        share = self._charged.pop(key, None)
        if share is not None:
            self.usage[share[:2]] -= share[2]
            if self.usage[share[:2]] == 0:
                del self.usage[share[:2]]


def devices_of(requests: Mapping[str, int]) -> int:
    """Whole accelerators in a request: extended resources have a domain in their name."""
    return sum(amount for name, amount in requests.items() if "/" in name)


def _times(requests: Mapping[str, int], count: int) -> dict[str, int]:
    amounts = {name: amount * count for name, amount in requests.items() if amount}
    amounts[_PODS] = amounts.get(_PODS, 0) + count
    return amounts
