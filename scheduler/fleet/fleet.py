"""The fleet: upserts and removals in time proportional to what changed."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping

import numpy as np

from scheduler.fleet.attributes import Attributes, Column
from scheduler.fleet.backlog import Backlog
from scheduler.fleet.claims import Claims
from scheduler.fleet.devices import MILLI, DeviceTable, charged, devices_or_unknown, whole_amounts
from scheduler.fleet.rights import RightsOfTenants
from scheduler.fleet.shape import Shape, Shapes
from scheduler.fleet.standing import Standing
from scheduler.fleet.state import (
    BoundPod,
    MachineState,
    NodeState,
    PoolState,
    TenantState,
    WorkloadState,
)
from scheduler.fleet.table import Ints, NodeTable
from scheduler.fleet.use import Use
from scheduler.running.columns import Running

_PODS = "pods"
_POD_HOLDER = "pod:"  # before the key of a pod that others placed; workload keys have no colon


class Fleet:
    """All state that a plan reads. Not thread-safe: one owner changes it between plans."""

    def __init__(self, half_life: float = 0.0) -> None:
        """`half_life`: seconds after which a tenant's past use counts half; 0: only what it holds now counts."""
        self.use = Use(half_life)
        self.rights = RightsOfTenants()
        self.table = NodeTable()
        self.claims = Claims(self.table)
        self.attributes = Attributes()
        self.devices = DeviceTable()  # shares of devices, by node
        self.nodes: dict[str, NodeState] = {}
        self.pools: dict[str, PoolState] = {}
        self.machines: dict[str, MachineState] = {}
        self.tenants: dict[str, TenantState] = {}
        self.workloads: dict[str, WorkloadState] = {}
        self.pods: dict[str, BoundPod] = {}
        self.nodes_of_pool: dict[str, set[str]] = defaultdict(set)
        self.machines_of_pool: dict[str, set[str]] = defaultdict(set)
        self.coming_of_pool: dict[str, set[str]] = defaultdict(set)  # machines without a ready node
        self.going_of_pool: dict[str, set[str]] = defaultdict(set)
        self.tainted_of_pool: dict[str, set[str]] = defaultdict(set)  # nodes that have taints
        self.pending: dict[str, WorkloadState] = {}
        self.shapes = Shapes()  # of the pending
        self.backlog = Backlog()  # the pending in their lines
        self.standing_work = Standing()  # what runs
        self.running = Running(self.devices_of)  # the same as columns
        self._ranked: dict[str, int] = {}  # running workload → the priority that it is counted with
        self._machines_of_node: dict[str, set[str]] = defaultdict(set)
        self._ready: dict[str, tuple[list[str], Ints]] = {}  # pool → its ready nodes by name; made when asked for
        self._device_names: Counter[str] = Counter()  # the resources that pools call their devices

    # Nodes and machines

    def upsert_node(self, node: NodeState) -> None:
        """Take in a node. Room held on it by known workloads and pods is counted at once."""
        old = self.nodes.get(node.name)
        if old is not None and old.pool != node.pool:
            self.nodes_of_pool[old.pool].discard(node.name)
            self.tainted_of_pool[old.pool].discard(node.name)
        if old is None or (old.pool, takes_pods(old)) != (node.pool, takes_pods(node)):
            for pool in {node.pool, old.pool if old is not None else node.pool}:
                self._ready.pop(pool, None)
        self.nodes[node.name] = node
        self.nodes_of_pool[node.pool].add(node.name)
        if node.taints:
            self.tainted_of_pool[node.pool].add(node.name)
        else:
            self.tainted_of_pool[node.pool].discard(node.name)
        row = self.table.add(node.name)
        vector = self.table.vector(node.allocatable)
        self.table.allocatable[row] = vector
        self.attributes.update(row, node)
        if old is None:
            self.claims.node_came(node.name)
        for machine in self._machines_of_node.get(node.name, ()):
            self._sort_machine(self.machines[machine])

    def remove_node(self, name: str) -> None:
        """The node is gone; what was claimed on it stays claimed should it come back."""
        node = self.nodes.pop(name, None)
        if node is None:
            return
        self.nodes_of_pool[node.pool].discard(name)
        self.tainted_of_pool[node.pool].discard(name)
        self._ready.pop(node.pool, None)
        self.table.drop(name)
        self.claims.node_went(name)
        for machine in self._machines_of_node.get(name, ()):
            self._sort_machine(self.machines[machine])

    def upsert_machine(self, machine: MachineState) -> None:
        """Take in a machine: new, now with a node, or now going."""
        self.remove_machine(machine.name)
        self.machines[machine.name] = machine
        self.machines_of_pool[machine.pool].add(machine.name)
        if machine.node:
            self._machines_of_node[machine.node].add(machine.name)
        self._sort_machine(machine)

    def remove_machine(self, name: str) -> None:
        """The machine is gone. Its node, if there still is one, is removed by itself."""
        machine = self.machines.pop(name, None)
        if machine is None:
            return
        for index in (self.machines_of_pool, self.coming_of_pool, self.going_of_pool):
            index[machine.pool].discard(name)
        if machine.node:
            self._machines_of_node[machine.node].discard(name)
            if not self._machines_of_node[machine.node]:
                del self._machines_of_node[machine.node]

    def _sort_machine(self, machine: MachineState) -> None:
        coming = not machine.going and not self.machine_ready(machine)
        for belongs, index in ((coming, self.coming_of_pool), (machine.going, self.going_of_pool)):
            if belongs:
                index[machine.pool].add(machine.name)
            else:
                index[machine.pool].discard(machine.name)

    # Pools and tenants

    def upsert_pool(self, pool: PoolState) -> None:
        """Take in a pool."""
        self._name_devices(pool.name, pool.resource)
        before = self.pools.get(pool.name)
        self.pools[pool.name] = pool
        self._count_capacity({pool.accelerator} | ({before.accelerator} if before is not None else set()))

    def remove_pool(self, name: str) -> None:
        """The pool is gone."""
        self._name_devices(name, "")
        before = self.pools.pop(name, None)
        if before is not None:
            self._count_capacity({before.accelerator})

    def _count_capacity(self, accelerators: set[str]) -> None:
        for accelerator in sorted(accelerators):
            pools = [pool for pool in self.pools.values() if pool.accelerator == accelerator]
            devices = sum(pool.maximum * pool.per_node for pool in pools) if pools else None
            self.use.set_capacity(accelerator, devices)

    def upsert_tenant(self, tenant: TenantState) -> None:
        """Take in a tenant."""
        before = self.tenants.get(tenant.name)
        self.tenants[tenant.name] = tenant
        self.use.upsert_tenant(tenant, before)
        rights = self.rights.of.get(tenant.name)
        self.rights.put(tenant)
        if (
            before is None
            or before.priority_ceiling != tenant.priority_ceiling
            or rights is not self.rights.of[tenant.name]
        ):
            self._rank_anew(tenant.name)

    def remove_tenant(self, name: str) -> None:
        """The tenant is gone; its workloads wait with that reason."""
        before = self.tenants.pop(name, None)
        if before is not None:
            self.use.remove_tenant(before)
            self.rights.drop(name)
            self._rank_anew(name)

    def priority_of(self, workload: WorkloadState) -> int:
        """The workload's priority, under its tenant's ceiling."""
        tenant = self.tenants.get(workload.tenant)
        if tenant is None or tenant.priority_ceiling is None:
            return workload.priority
        return min(workload.priority, tenant.priority_ceiling)

    def _rank_anew(self, tenant: str) -> None:
        for key in self.backlog.of_tenant(tenant):
            self._queue(self.pending[key], self.shapes[key])

    def _queue(self, workload: WorkloadState, shape: Shape) -> None:
        self.backlog.add(workload, shape, self.priority_of(workload), self.rights.of.get(workload.tenant))

    def _name_devices(self, pool: str, resource: str) -> None:
        before, known = self.pools.get(pool), set(self._device_names)
        if before is not None:
            self._device_names -= Counter([before.resource])
        if resource:
            self._device_names[resource] += 1
        if set(self._device_names) != known:
            # What counts as a device has changed, so all charges are made anew. Rare.
            self.running = Running(self.devices_of)
            for key in list(self._ranked):
                self.upsert_workload(self.workloads[key])

    # Workloads and pods

    def upsert_workload(self, workload: WorkloadState) -> None:
        """Take in a workload; what it holds replaces what it held."""
        self._stop_running(workload.key)
        self.workloads[workload.key] = workload
        if workload.admitted and not workload.finished:
            self._ranked[workload.key] = self.priority_of(workload)
            self.standing_work.add(workload, self._ranked[workload.key])
            self.running.put(workload)
        if not workload.admitted and not workload.finished and workload.active:
            self.pending[workload.key] = workload
            self._queue(workload, self.shapes.add(workload))
        else:
            self._leave_queue(workload.key)
        requests = {
            one.name: whole_amounts(one.requests, one.milli, self._devices_among(one.requests))
            for one in workload.pod_sets
        }
        held = workload.placements if workload.admitted and not workload.finished else ()
        self.claims.hold(
            workload.key, [(node, _times(requests.get(name, {}), count)) for name, node, count in held if count > 0]
        )
        parts = [one for one in workload.pod_sets if one.milli < MILLI and self.devices_of(one.requests)]
        milli = {one.name: one.milli for one in parts}
        known = {(name, node): devices for name, node, devices in workload.devices}
        shares = [(known.get((name, node), ()), name, node, count) for name, node, count in held if name in milli]
        self.devices.hold(
            workload.key,
            [
                (node, device, milli[name])
                for devices, name, node, count in shares
                for device in devices_or_unknown(devices, count)
            ],
        )
        self._charge(workload)

    def remove_workload(self, key: str) -> None:
        """The workload is gone, and what it held is free."""
        self._stop_running(key)
        self.workloads.pop(key, None)
        self._leave_queue(key)
        self.claims.hold(key, [])
        self.devices.hold(key, [])
        self.use.uncharge(key)

    def _stop_running(self, key: str) -> None:
        priority = self._ranked.pop(key, None)
        if priority is not None:
            self.standing_work.drop(self.workloads[key], priority)
            self.running.drop(key)

    def _leave_queue(self, key: str) -> None:
        self.pending.pop(key, None)
        self.backlog.drop(key)
        self.shapes.drop(key)

    def upsert_pod(self, pod: BoundPod) -> None:
        """Take in a pod that others placed."""
        self.pods[pod.key] = pod
        self.claims.hold(_POD_HOLDER + pod.key, [(pod.node, _times(pod.requests, 1))], pod.keeps_node)

    def remove_pod(self, key: str) -> None:
        """The pod is gone, and what it held is free."""
        self.claims.hold(_POD_HOLDER + key, [])
        self.pods.pop(key, None)

    # Derived

    def machine_ready(self, machine: MachineState) -> bool:
        """Whether the machine has become a node that takes pods, or would but for being cordoned."""
        node = self.nodes.get(machine.node)
        return node is not None and node.ready

    def ready_nodes(self, pool: str) -> tuple[list[str], Ints]:
        """(names in order, rows of the table) of the pool's nodes that take pods."""
        found = self._ready.get(pool)
        if found is None:
            names = sorted(name for name in self.nodes_of_pool.get(pool, ()) if takes_pods(self.nodes[name]))
            found = names, np.array([self.table.rows[name] for name in names], dtype=np.int64)
            self._ready[pool] = found
        return found

    def standing(self, pool: str) -> int:
        """How many machines of the pool are there to stay: coming or ready."""
        return len(self.machines_of_pool.get(pool, ())) - len(self.going_of_pool.get(pool, ()))

    def label_column(self, key: str) -> Column:
        """The label's values by row of the table."""
        return self.attributes.label(key, ((self.table.rows[name], node) for name, node in self.nodes.items()))

    def workload_holders(self, node: str) -> list[str]:
        """The workloads that hold room on a node, or on one that is gone."""
        return [holder for holder in self.claims.holders(node) if not holder.startswith(_POD_HOLDER)]

    def devices_of(self, requests: Mapping[str, int]) -> int:
        """Devices in a request: of the resources that pools offer as such.

        While no pool is known, every extended resource counts, which errs towards refusing.
        """
        return sum(requests[name] for name in self._devices_among(requests))

    def _devices_among(self, requests: Mapping[str, int]) -> list[str]:
        known = self._device_names
        return [name for name in requests if (name in known if known else "/" in name)]

    def _charge(self, workload: WorkloadState) -> None:
        if not workload.accelerator or not workload.admitted or workload.finished:
            self.use.uncharge(workload.key)
            return
        by_set: dict[str, int] = defaultdict(int)
        for name, _, count in workload.placements:
            by_set[name] += count
        devices = sum(charged(self.devices_of(one.requests), by_set[one.name], one.milli) for one in workload.pod_sets)
        self.use.charge(workload.key, workload.tenant, workload.accelerator, devices)


def takes_pods(node: NodeState) -> bool:
    """Ready, and neither cordoned nor draining."""
    return node.ready and node.schedulable


def _times(requests: Mapping[str, int], count: int) -> dict[str, int]:
    amounts = {name: amount * count for name, amount in requests.items() if amount}
    amounts[_PODS] = amounts.get(_PODS, 0) + count
    return amounts
