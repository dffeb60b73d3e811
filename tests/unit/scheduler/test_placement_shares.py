"""Shares of devices through `plan`: nothing above capacity, whole or shared, and refused only when there is no room."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler import Fleet, Memory, PodSet, plan
from scheduler.fleet.devices import UNKNOWN, DeviceTable, charged, devices_or_unknown, whole_amounts
from scheduler.placement.shared_rows import SharedRows
from tests.unit.scheduler.fleets import GPU, apply, fleet, job, pool

SMALL = {"cpu": 8_000, "memory": 2**40, "pods": 110, GPU: 2}


def shared_job(name: str, milli: int, count: int = 1, devices: int = 1, cpu: int = 1000, **over):
    return job(name, pod_sets=(PodSet("main", count, {"cpu": cpu, GPU: devices}, milli=milli),), **over)


def held_on(made: Fleet) -> dict[str, dict[int, int]]:
    """Milli-devices by node and device, straight from the workloads."""
    found: dict[str, dict[int, int]] = defaultdict(lambda: defaultdict(int))
    for workload in made.workloads.values():
        milli = {one.name: one.milli for one in workload.pod_sets}
        for name, node, devices in workload.devices if workload.admitted and not workload.finished else ():
            for device in devices:
                found[node][device] += milli[name]
    return {node: dict(devices) for node, devices in found.items()}


def check(made: Fleet) -> None:
    held = held_on(made)
    assert {node: dict(devices) for node, devices in made.devices.of_node.items()} == held
    assert all(0 <= device < 2 and milli <= 1000 for devices in held.values() for device, milli in devices.items())
    assert (made.table.used <= made.table.allocatable).all()
    for node in held:
        assert made.table.used[made.table.rows[node], made.table.columns[GPU]] == 0
    for workload in made.workloads.values():
        if workload.admitted and not workload.finished and workload.pod_sets[0].milli < 1000:
            chosen = sum(len(devices) for _, _, devices in workload.devices)
            assert chosen == sum(count for _, _, count in workload.placements) == workload.pod_sets[0].count


def fits_somewhere(made: Fleet, milli: int, cpu: int) -> bool:
    """Whether one pod fits on a node, by the definition."""
    held = held_on(made)
    for node, row in made.table.rows.items():
        free = made.table.allocatable[row] - made.table.used[row]
        devices, total = free[made.table.columns[GPU]], made.table.allocatable[row][made.table.columns[GPU]]
        if free[made.table.columns["cpu"]] < cpu:
            continue
        if milli == 1000 and node not in held and devices >= 1:
            return True
        if (
            milli < 1000
            and devices == total
            and any(held.get(node, {}).get(d, 0) + milli <= 1000 for d in range(total))
        ):
            return True
    return False


STEPS = st.lists(
    st.tuples(
        st.sampled_from([1000, 700, 500, 300, 50]), st.integers(1, 3), st.sampled_from([500, 3000]), st.booleans()
    ),
    min_size=1,
    max_size=14,
)


@settings(max_examples=15, deadline=None)
@given(STEPS, st.integers(1, 3))
def test_no_device_is_overcommitted_and_a_single_pod_waits_only_when_it_fits_nowhere(steps, nodes: int) -> None:
    made = fleet(pools=[pool(allocatable=SMALL, per_node=2, maximum=nodes)], nodes=nodes)
    for number, (milli, count, cpu, ends) in enumerate(steps):
        possible = fits_somewhere(made, milli, cpu)
        one = shared_job(f"j{number}", milli, count, cpu=cpu)
        made.upsert_workload(one)
        decided, _ = plan(made, Memory(), float(number))
        mine = [admission for admission in decided.admissions if admission.workload == one.key]
        assert bool(mine) <= possible
        if count == 1:
            assert bool(mine) == possible
        apply(made, replace(decided, machine_removals=()))
        check(made)
        if not mine:
            made.remove_workload(one.key)
        if ends:
            done = sorted(key for key, workload in made.workloads.items() if workload.admitted)
            for key in done[:1]:
                made.remove_workload(key)
            check(made)


@settings(max_examples=6, deadline=None)
@given(STEPS)
def test_the_order_in_which_things_came_to_be_known_decides_nothing(steps) -> None:
    jobs = [shared_job(f"j{i}", milli, count, cpu=cpu) for i, (milli, count, cpu, _) in enumerate(steps)]
    where = pool(allocatable=SMALL, per_node=2, maximum=3)
    plans = []
    for order in (jobs, jobs[::-1]):
        made = fleet(pools=[where], nodes=0 if order is jobs else 3)
        if order is jobs:
            other = fleet(pools=[where], nodes=3)
            for name in sorted(other.nodes, reverse=True):
                made.upsert_machine(other.machines[name])
                made.upsert_node(other.nodes[name])
        for one in order:
            made.upsert_workload(one)
        plans.append(plan(made, Memory(), 0.0)[0])
    assert plans[0].admissions == plans[1].admissions


def test_shares_fill_a_device_before_they_open_another_node() -> None:
    made = fleet(pools=[pool(allocatable=SMALL, per_node=2, maximum=2)], nodes=2)
    for index in range(4):
        made.upsert_workload(shared_job(f"j{index}", 500))
    decided, _ = plan(made, Memory(), 0.0)
    apply(made, decided)
    assert sorted(made.devices.of_node) == ["h200-0"]
    assert made.devices.of_node["h200-0"] == {0: 1000, 1: 1000}


def test_a_share_whose_device_is_unknown_closes_its_node() -> None:
    made = fleet(pools=[pool(allocatable=SMALL, per_node=2, maximum=2)], nodes=2)
    lost = shared_job("lost", 100, admitted=True, accelerator="H200", placements=(("main", "h200-0", 1),))
    made.upsert_workload(lost)
    assert made.devices.of_node == {"h200-0": {UNKNOWN: 100}}
    for index in range(4):
        made.upsert_workload(shared_job(f"j{index}", 500))
    decided, _ = plan(made, Memory(), 0.0)
    assert {placed.node for admission in decided.admissions for placed in admission.placements} == {"h200-1"}
    assert len(decided.admissions) == 4


def test_shares_of_several_devices_fit_nowhere_and_shares_count_rounded_up() -> None:
    made = fleet(pools=[pool(allocatable=SMALL, per_node=2, maximum=1)], nodes=1)
    made.upsert_workload(shared_job("two", 500, devices=2))
    assert plan(made, Memory(), 0.0)[0].admissions == ()
    made.remove_workload("train/two")
    made.upsert_workload(shared_job("three", 500, count=3))
    apply(made, plan(made, Memory(), 0.0)[0])
    assert made.use.devices["aurora", "H200"] == 2
    assert charged(1, 3, 500) == 2


def test_the_table_forgets_what_is_given_back() -> None:
    table = DeviceTable()
    table.hold("a", [("n", 0, 300), ("n", 1, 200)])
    table.hold("b", [("n", 0, 700)])
    assert table.of_node == {"n": {0: 1000, 1: 200}}
    table.hold("a", [("m", 0, 10)])
    table.hold("b", [])
    assert table.of_node == {"m": {0: 10}}
    with pytest.raises(ValueError, match="not within"):
        table.hold("a", [("n", 0, 1000)])
    assert devices_or_unknown([3], 2) == [3, UNKNOWN]
    assert whole_amounts({"cpu": 1, GPU: 1}, 500, [GPU]) == {"cpu": 1}


def test_a_row_is_whole_again_when_all_shares_are_given_back() -> None:
    rows = SharedRows(3, 2)
    rows.open(1, 2, {})
    rows.take(1, 1, 400)
    assert 1 in rows
    assert rows.free(np.array([1])).tolist() == [[1000, 600]]
    assert rows.give_back(1, 1, 400)
    assert 1 not in rows
    rows.open(2, 1, {0: 1500, 5: 10})
    assert rows.free(np.array([2])).tolist() == [[0, 0]]


def test_machines_are_bought_for_shares_as_many_as_they_need() -> None:
    made = fleet(pools=[pool(allocatable=SMALL, per_node=2, maximum=5)], nodes=0)
    made.upsert_workload(shared_job("gang", 400, count=9))  # two of them to a device
    decided, memory = plan(made, Memory(), 0.0)
    assert len(decided.machine_requests) == 3
    apply(made, decided)
    decided, _ = plan(made, memory, 1.0)
    apply(made, replace(decided, machine_removals=()))
    assert len(made.devices.of_node) == 3
    check(made)
