"""Small worlds for preemption and reservations: a fleet, what runs in it, and a flat ledger."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from scheduler import ClassQuota, Fleet, NodeState, PodSet, PoolState, TenantState, WorkloadState
from scheduler.fleet.shape import Shape
from scheduler.placement.ask import Ask
from scheduler.placement.supply import Supply
from scheduler.preemption import Budget, Candidates, Claim
from scheduler.reserving import Timeline
from scheduler.running import Running
from scheduler.running.room import PoolRoom
from tests.unit.scheduler.fleets import GPU, pool

CLASS = "H200"


@dataclass
class Flat:
    """Entitlements of tenants side by side: anybody within nominal may have back what anybody borrows."""

    nominal_of: dict[str, int]
    used: dict[str, int] = field(default_factory=dict)
    cohort: bool = False

    def nominal(self, tenant: str, accelerator: str) -> int:
        return self.nominal_of.get(tenant, 0)

    def within_nominal(self, tenant: str, accelerator: str, wanted: int) -> bool:
        return self.used.get(tenant, 0) + wanted <= self.nominal(tenant, accelerator)

    def excess(self, tenant: str, accelerator: str) -> float:
        return max(0, self.used.get(tenant, 0) - self.nominal(tenant, accelerator))

    def may_reclaim_from(self, tenant: str, other: str, accelerator: str, wanted: int) -> bool:
        return self.excess(other, accelerator) > 0

    def reclaimable(self, tenant: str, accelerator: str, wanted: int, losses: Sequence[tuple[str, int]]) -> int:
        left = dict(self.used)
        for many, (other, devices) in enumerate(losses):
            if left.get(other, 0) <= self.nominal(other, accelerator):
                return many
            left[other] -= devices
        return len(losses)

    def same_cohort(self, tenant: str, other: str) -> bool:
        return self.cohort


def world(nodes: int, per_node: int = 4, racks: int = 1, names: str = "ab", where: PoolState | None = None) -> Fleet:
    """Nodes n00, n01 … in `racks` racks of equal size."""
    made = Fleet()
    where = where or pool(maximum=nodes, per_node=per_node, nodes_per_rack=max(nodes // racks, 1))
    made.upsert_pool(where)
    for index in range(nodes):
        add_node(made, where, index, per_node, f"r{index * racks // nodes}")
    for name in names:
        made.upsert_tenant(TenantState(name, quota={CLASS: ClassQuota(1000)}))
    return made


def add_node(made: Fleet, where: PoolState, index: int, per_node: int, rack: str) -> None:
    made.upsert_node(
        NodeState(
            f"n{index:02}",
            where.name,
            rack=rack,
            accelerator=where.accelerator,
            allocatable={"cpu": 64_000, "pods": 110, GPU: per_node},
            labels=where.labels,
        )
    )


def work(name: str, count: int, devices: int, **over: object) -> WorkloadState:
    fields: dict[str, object] = {
        "key": f"x/{name}",
        "uid": f"uid-{name}",
        "tenant": "a",
        "created_at": 0.0,
        "pod_sets": (PodSet("main", count, {"cpu": 100, GPU: devices}),),
    }
    fields.update(over)
    return WorkloadState(**fields)  # type: ignore[arg-type]


def run(made: Fleet, workload: WorkloadState, *at: tuple[int, int], **over: object) -> WorkloadState:
    """It runs with (node index, pods)."""
    held = tuple((workload.pod_sets[0].name, f"n{node:02}", count) for node, count in at)
    running = replace(workload, admitted=True, accelerator=CLASS, placements=held, **over)  # type: ignore[arg-type]
    made.upsert_workload(running)
    return running


def used_by(made: Fleet) -> dict[str, int]:
    used: Counter[str] = Counter()
    for one in made.workloads.values():
        each = {pods.name: pods.requests.get(GPU, 0) for pods in one.pod_sets}
        used[one.tenant] += sum(count * each[name] for name, _, count in one.placements)
    return dict(used)


class Cycle:
    """What a plan would make of a fleet before it decides."""

    def __init__(
        self, made: Fleet, rights: Flat | None = None, now: float = 100.0, budget: Budget | None = None
    ) -> None:
        self.fleet, self.now = made, now
        self.supply = Supply(made)
        index = Running(made.devices_of)
        for key in sorted(made.workloads):
            index.put(made.workloads[key])
        self.running = index.columns()
        self.rooms = {
            name: PoolRoom.of(supply, made.table.columns, self.running) for name, supply in self.supply.pools.items()
        }
        self.timelines = {name: Timeline(room, self.running, now) for name, room in self.rooms.items()}
        self.rights = rights or Flat({name: 1000 for name in made.tenants})
        self.rights.used = used_by(made)
        self.candidates = Candidates(self.running, self.rooms, self.rights, now, budget)

    def ask(self, workload: WorkloadState) -> Ask:
        shape = Shape(
            workload.pod_sets, workload.required_topology, workload.preferred_topology, workload.jurisdictions
        )
        found = self.supply.ask(shape)
        assert found is not None
        return found

    def claim(self, workload: WorkloadState, **over: object) -> Claim:
        return Claim(workload.key, workload.tenant, workload.priority, self.ask(workload), **over)  # type: ignore[arg-type]

    def find(self, workload: WorkloadState, **over: object):
        return self.candidates.find(self.claim(workload, **over), sorted(self.rooms))
