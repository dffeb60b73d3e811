"""Builders of small fleets, and the application of a plan to one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from scheduler import (
    ClassQuota,
    Fleet,
    MachineState,
    NodeState,
    Plan,
    PodSet,
    PoolState,
    TenantState,
    WorkloadState,
)

GPU = "nvidia.com/gpu"


def pool(name: str = "h200", **over: Any) -> PoolState:
    fields: dict[str, Any] = {
        "name": name,
        "site": "tokyo",
        "jurisdiction": "JP",
        "accelerator": "H200",
        "resource": GPU,
        "per_node": 8,
        "allocatable": {"cpu": 64_000, "memory": 2**39, "pods": 110, GPU: 8},
        "minimum": 0,
        "maximum": 10,
        "scale_down_delay": 60.0,
        "price_micro": 10_000_000,
    }
    fields.update(over)
    fields.setdefault("labels", {})
    fields["labels"] = {"kekkai.dev/accelerator": fields["accelerator"], **fields["labels"]}
    return PoolState(**fields)


def node_of(where: PoolState, machine: MachineState) -> NodeState:
    return NodeState(
        name=machine.name,
        pool=where.name,
        machine=machine.name,
        site=where.site,
        block=machine.block,
        rack=machine.rack,
        nvlink_domain=machine.nvlink_domain,
        accelerator=where.accelerator,
        confidential=where.confidential,
        allocatable=where.allocatable,
        labels={**where.labels, "kubernetes.io/hostname": machine.name},
    )


def tenant(name: str = "aurora", devices: int = 1000, **over: Any) -> TenantState:
    return TenantState(name, quota={"H200": ClassQuota(devices), "H100": ClassQuota(devices)}, **over)


def job(name: str, count: int = 1, devices: int = 8, **over: Any) -> WorkloadState:
    fields: dict[str, Any] = {
        "key": f"train/{name}",
        "uid": f"uid-{name}",
        "tenant": "aurora",
        "created_at": 0.0,
        "pod_sets": (PodSet("main", count, {"cpu": 1000, **({GPU: devices} if devices else {})}),),
    }
    fields.update(over)
    return WorkloadState(**fields)


def fleet(*, pools: list[PoolState], nodes: int = 0, tenants: list[TenantState] | None = None) -> Fleet:
    """Every pool with `nodes` ready nodes."""
    made = Fleet()
    for one in pools:
        made.upsert_pool(one)
        for index in range(nodes):
            add_node(made, one, index)
    for one in tenants or [tenant()]:
        made.upsert_tenant(one)
    return made


def add_node(made: Fleet, where: PoolState, index: int) -> None:
    machine = MachineState(f"{where.name}-{index}", where.name, f"{where.name}-{index}")
    made.upsert_machine(machine)
    made.upsert_node(node_of(where, machine))


def apply(made: Fleet, decided: Plan, boot: bool = True) -> None:
    """What the operators would do: admit, make machines (at once when `boot`), remove, evict."""
    for admission in decided.admissions:
        held = tuple((placed.pod_set, placed.node, placed.count) for placed in admission.placements)
        shares = tuple(
            (placed.pod_set, placed.node, placed.devices) for placed in admission.placements if placed.devices
        )
        running = {"admitted": True, "accelerator": admission.accelerator, "placements": held, "devices": shares}
        made.upsert_workload(replace(made.workloads[admission.workload], **running))
    for request in decided.machine_requests:
        machine = MachineState(
            request.name, request.pool, request.name, False, request.block, request.rack, request.nvlink_domain
        )
        made.upsert_machine(machine)
        if boot:
            made.upsert_node(node_of(made.pools[request.pool], machine))
    for removal in decided.machine_removals:
        made.remove_node(made.machines[removal.machine].node)
        made.remove_machine(removal.machine)
    for eviction in decided.evictions:
        made.upsert_workload(replace(made.workloads[eviction.workload], admitted=False, placements=(), accelerator=""))
