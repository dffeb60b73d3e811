"""A workload's place in its tenant's line equals that of a plain sort."""

from __future__ import annotations

import random

from operators.planning.position import position
from scheduler import ClassQuota, Fleet, PodSet, TenantState, WorkloadState


def test_positions_are_those_of_a_sort_by_priority_and_age() -> None:
    dice = random.Random(7)
    fleet = Fleet()
    for tenant in ("a", "b"):
        fleet.upsert_tenant(TenantState(tenant, quota={"H200": ClassQuota(8)}))
    waiting: dict[str, list[tuple[int, float, str]]] = {"a": [], "b": []}
    for n in range(60):
        tenant, priority, created = dice.choice("ab"), dice.choice([-1, 0, 5]), float(dice.randrange(20))
        key = f"ns/w{n:02}"
        pods = (PodSet("main", dice.choice([1, 2]), {"nvidia.com/gpu": dice.choice([1, 8])}),)
        fleet.upsert_workload(WorkloadState(key, f"u{n}", tenant, created, pods, priority=priority))
        waiting[tenant].append((-priority, created, key))
    for line in waiting.values():
        assert [position(fleet, key) for _, _, key in sorted(line)] == list(range(1, len(line) + 1))
    assert position(fleet, "ns/none") is None
