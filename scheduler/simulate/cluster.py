"""A fleet that obeys plans: what the operators, the provider and the kubelets do to a real cluster."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from crds.labels import BLOCK, HOSTNAME, MACHINE, NVLINK_DOMAIN, RACK
from scheduler.decision import Admission, MachineRequest
from scheduler.fleet import Fleet, MachineState, NodeState, PoolState, WorkloadState

_LABEL_OF = {"block": BLOCK, "rack": RACK, "nvlink_domain": NVLINK_DOMAIN}


class VirtualCluster:
    """Changes the fleet as the cluster would. It keeps no clock: its owner says when."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.devices_used = sum(self._held(one) for one in fleet.workloads.values())
        self.devices_ready = 0
        self.nodes_ready = 0
        for node in fleet.nodes.values():
            self._count(node, 1)

    # Workloads

    def submit(self, workload: WorkloadState) -> None:
        """It waits from here on."""
        self.fleet.upsert_workload(workload)

    def admit(self, admission: Admission, now: float) -> float:
        """The workload holds its placements. Returns the part of its pods that run, in (0, 1]."""
        before = self.fleet.workloads[admission.workload]
        held = tuple((placed.pod_set, placed.node, placed.count) for placed in admission.placements)
        self._upsert(
            replace(
                before,
                admitted=True,
                accelerator=admission.accelerator,
                placements=held,
                devices=tuple((one.pod_set, one.node, one.devices) for one in admission.placements if one.devices),
                admitted_at=before.admitted_at if before.admitted else now,
                checkpointed_at=before.checkpointed_at if before.admitted else now,
            )
        )
        asked = sum(pod_set.count for pod_set in before.pod_sets)
        return sum(count for _, _, count in held) / asked if asked else 1.0

    def checkpoint(self, key: str, now: float) -> None:
        """Work done until now would not be lost."""
        self.fleet.upsert_workload(replace(self.fleet.workloads[key], checkpointed_at=now))

    def evict(self, key: str) -> None:
        """It lets go of everything at once and waits again."""
        before = self.fleet.workloads[key]
        self._upsert(
            replace(
                before,
                admitted=False,
                placements=(),
                devices=(),
                accelerator="",
                admitted_at=0.0,
                checkpointed_at=0.0,
            )
        )

    def end(self, key: str) -> None:
        """It has finished, and its object is gone."""
        before = self.fleet.workloads[key]
        self._upsert(replace(before, admitted=False, finished=True, placements=()))
        self.fleet.remove_workload(key)

    def devices(self, workload: WorkloadState) -> int:
        """Devices that all of its pods take together."""
        return sum(self.fleet.devices_of(one.requests) * one.count for one in workload.pod_sets)

    def _upsert(self, workload: WorkloadState) -> None:
        before = self.fleet.workloads[workload.key]
        self.fleet.upsert_workload(workload)
        self.devices_used += self._held(workload) - self._held(before)

    def _held(self, workload: WorkloadState) -> int:
        if not workload.admitted or workload.finished or not workload.accelerator:
            return 0
        each = {one.name: self.fleet.devices_of(one.requests) for one in workload.pod_sets}
        return sum(each[name] * count for name, _, count in workload.placements)

    # Machines

    def request(self, request: MachineRequest) -> None:
        """The machine is on its way."""
        self.fleet.upsert_machine(
            MachineState(request.name, request.pool, "", False, request.block, request.rack, request.nvlink_domain)
        )

    def boot(self, name: str) -> bool:
        """The machine has become a ready node; False when it was given up meanwhile."""
        machine = self.fleet.machines.get(name)
        if machine is None or machine.going:
            return False
        self.fleet.upsert_machine(replace(machine, node=name))
        self.put_node(node_of(self.fleet.pools[machine.pool], machine))
        return True

    def remove(self, name: str) -> None:
        """The machine and its node go away."""
        node = self.fleet.machines[name].node
        self.drop_node(node)
        self.fleet.remove_machine(name)

    def fail(self, node: str) -> None:
        """The node and its machine are gone; what ran on it will be evicted by the next plan."""
        known = self.fleet.nodes.get(node)
        self.drop_node(node)
        if known is not None and known.machine:
            self.fleet.remove_machine(known.machine)

    def put_node(self, node: NodeState) -> None:
        """The node is there, or has changed."""
        self._uncount(node.name)
        self.fleet.upsert_node(node)
        self._count(node, 1)

    def drop_node(self, name: str) -> None:
        """The node is gone."""
        self._uncount(name)
        self.fleet.remove_node(name)

    def _uncount(self, name: str) -> None:
        before = self.fleet.nodes.get(name)
        if before is not None:
            self._count(before, -1)

    def _count(self, node: NodeState, sign: int) -> None:
        if node.ready and node.pool:
            self.nodes_ready += sign
            self.devices_ready += sign * self.fleet.devices_of(node.allocatable)


def node_of(pool: PoolState, machine: MachineState) -> NodeState:
    """The node that a machine of a pool becomes; it has the machine's name."""
    domains: Mapping[str, str] = {
        "block": machine.block,
        "rack": machine.rack,
        "nvlink_domain": machine.nvlink_domain,
    }
    labels = {**pool.labels, HOSTNAME: machine.name, MACHINE: machine.name}
    labels.update({_LABEL_OF[level]: domain for level, domain in domains.items() if domain})
    return NodeState(
        name=machine.name,
        pool=pool.name,
        machine=machine.name,
        site=pool.site,
        block=machine.block,
        rack=machine.rack,
        nvlink_domain=machine.nvlink_domain,
        accelerator=pool.accelerator,
        confidential=pool.confidential,
        allocatable=pool.allocatable,
        labels=labels,
        taints=pool.taints,
    )
