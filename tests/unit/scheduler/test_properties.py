"""Invariants that hold for every fleet and every sequence of events."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler import ClassQuota, Fleet, Memory, PodSet, TenantState, plan
from scheduler.fleet.fleet import devices_of
from scheduler.placement.bestfit import fit_gang
from tests.unit.scheduler.fleets import GPU, add_node, apply, fleet, job, pool

JOBS = st.lists(
    st.tuples(st.integers(1, 6), st.sampled_from([0, 1, 2, 3, 4, 8]), st.integers(-2, 2), st.sampled_from(["a", "b"])),
    max_size=12,
)


def build(jobs, nodes: int, quota: int) -> Fleet:
    tenants = [TenantState(name, quota={"H200": ClassQuota(quota)}) for name in "ab"]
    made = fleet(pools=[pool(maximum=6, scale_down_delay=5.0)], nodes=nodes, tenants=tenants)
    for index, (count, devices, priority, owner) in enumerate(jobs):
        made.upsert_workload(job(f"j{index}", count, devices, priority=priority, tenant=owner, created_at=float(index)))
    return made


@given(JOBS, st.integers(0, 4), st.integers(0, 40))
def test_no_node_is_overcommitted_no_gang_split_no_quota_exceeded(jobs, nodes: int, quota: int) -> None:
    made = build(jobs, nodes, quota)
    memory = Memory()
    for step in range(4):
        decided, memory = plan(made, memory, float(step))
        apply(made, decided)
        assert (made.table.used <= made.table.allocatable).all()
        assert all(used <= quota for used in made.usage.values())
        for workload in made.workloads.values():
            placed = sum(count for _, _, count in workload.placements)
            assert placed == (workload.pod_sets[0].count if workload.admitted else 0)
        for name in made.pools:
            assert len(made.machines_of_pool[name]) <= made.pools[name].maximum


@given(JOBS, st.integers(0, 4), st.integers(0, 40))
def test_equal_inputs_give_equal_plans_and_the_fleet_stays_as_it_was(jobs, nodes: int, quota: int) -> None:
    made = build(jobs, nodes, quota)
    used = made.table.used.copy()
    first = plan(made, Memory(), 7.0)
    assert plan(made, Memory(), 7.0) == first
    assert plan(build(jobs, nodes, quota), Memory(), 7.0) == first
    assert (made.table.used == used[:, : made.table.used.shape[1]]).all()


@given(JOBS, st.integers(0, 4), st.integers(0, 40))
def test_once_settled_a_plan_changes_nothing_more(jobs, nodes: int, quota: int) -> None:
    made = build(jobs, nodes, quota)
    memory = Memory()
    for _ in range(4):
        decided, memory = plan(made, memory, 0.0)
        apply(made, decided)
    decided, _ = plan(made, memory, 0.0)
    assert (decided.admissions, decided.machine_requests, decided.machine_removals) == ((), (), ())
    waiting = {waiting.workload for waiting in decided.waiting}
    assert waiting == set(made.pending)
    assert all(entry.reasons for entry in decided.waiting)


@given(JOBS, st.integers(0, 30), st.integers(0, 60))
def test_a_machine_that_was_asked_for_is_used_or_stays_for_the_delay(jobs, quota: int, seconds: int) -> None:
    made = build(jobs, 0, quota)
    memory, asked = Memory(), {}
    for now in np.linspace(0.0, float(seconds), 8):
        decided, memory = plan(made, memory, float(now))
        for removal in decided.machine_removals:
            assert now - asked[removal.machine] >= 5.0
        for request in decided.machine_requests:
            asked[request.name] = now
        apply(made, decided)


EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("node+"), st.integers(0, 4)),
        st.tuples(st.just("node-"), st.integers(0, 4)),
        st.tuples(st.just("job"), st.integers(0, 5), st.integers(0, 4), st.integers(0, 3)),
        st.tuples(st.just("job-"), st.integers(0, 5)),
    ),
    max_size=40,
)


@given(EVENTS)
def test_incremental_state_equals_the_state_from_scratch(events) -> None:
    made = fleet(pools=[pool()])
    where = made.pools["h200"]
    for event in events:
        match event:
            case ("node+", index):
                add_node(made, where, index)
            case ("node-", index):
                made.remove_node(f"h200-{index}")
                made.remove_machine(f"h200-{index}")
            case ("job", index, node, count):
                held = (("main", f"h200-{node}", count),) if count else ()
                made.upsert_workload(job(f"j{index}", 3, 2, admitted=bool(count), accelerator="H200", placements=held))
            case ("job-", index):
                made.remove_workload(f"train/j{index}")
    fresh = fleet(pools=[pool()])
    for node in made.nodes.values():
        fresh.upsert_node(node)
    for machine in made.machines.values():
        fresh.upsert_machine(machine)
    for workload in made.workloads.values():
        fresh.upsert_workload(workload)
    assert made.usage == fresh.usage
    assert made.pending == fresh.pending
    assert made.holders == fresh.holders
    for name, row in made.table.rows.items():
        other = fresh.table.rows[name]
        for resource, column in made.table.columns.items():
            if resource in fresh.table.columns:
                assert made.table.used[row, column] == fresh.table.used[other, fresh.table.columns[resource]]
    assert plan(made, Memory(), 0.0) == plan(fresh, Memory(), 0.0)


@settings(max_examples=200)
@given(
    st.lists(st.integers(0, 8), min_size=1, max_size=4),
    st.lists(st.tuples(st.integers(1, 5), st.integers(1, 3)), min_size=1, max_size=2),
)
def test_one_shape_is_placed_whenever_brute_force_can(free: list[int], sets: list[tuple[int, int]]) -> None:
    rows = np.array(free, dtype=np.int64).reshape(-1, 1)
    requests = [np.array([size], dtype=np.int64) for size, _ in sets]
    counts = [count for _, count in sets]
    mask = np.ones(len(free), dtype=np.bool_)
    found = fit_gang(rows, requests, counts, [mask] * len(sets))
    pods = [size for size, count in sets for _ in range(count)]
    possible = any(
        all(
            sum(s for s, where in zip(pods, spots, strict=True) if where == row) <= room
            for row, room in enumerate(free)
        )
        for spots in itertools.product(range(len(free)), repeat=len(pods))
    )
    if len(sets) == 1:
        assert (found is not None) == possible
    if found is not None:
        assert possible
        assert sorted(sum(c for i, _, c in found if i == index) for index in range(len(sets))) == sorted(counts)


def test_devices_are_the_extended_resources() -> None:
    assert devices_of({"cpu": 4000, "memory": 1, GPU: 3, "amd.com/gpu": 2}) == 5
    assert PodSet("main", 1, {}) == replace(PodSet("other", 1, {}), name="main")
