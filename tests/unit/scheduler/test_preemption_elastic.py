"""Gangs that start smaller and grow, and the hot replacement of one failed node."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler import Fleet, PodSet, WorkloadState
from scheduler.fleet.shape import Shape
from scheduler.preemption import ask_of, extend, largest, substitute
from scheduler.preemption.elastic import Extension
from scheduler.preemption.replace import Replacement
from scheduler.running import Running
from scheduler.running.elasticity import extra_pods, shrunk
from scheduler.running.room import take
from tests.unit.scheduler.claims import GPU, Cycle, run, work, world


def elastic(name: str, count: int, least: int, devices: int, **over: object) -> WorkloadState:
    return replace(
        work(name, count, devices, **over),
        pod_sets=(PodSet("main", count, {"cpu": 100, GPU: devices}, min_count=least),),
    )


def start(made: Fleet, one: WorkloadState, most: int | None = None) -> list[int] | None:
    """Pods placed of each set."""
    cycle = Cycle(made)
    supply, device = cycle.supply.pools["h200"], cycle.rooms["h200"].device
    before = supply.free.copy()
    found = largest(cycle.ask(one), lambda part: supply.place(part, supply.ready), supply.give_back, device, most)
    if found is None:
        assert (supply.free == before).all()
        return None
    ask, placed = found
    taken = before - supply.free
    assert int(taken[:, device].sum()) == ask.devices
    assert sum(count for _, _, count in placed) == sum(pod.count for pod in ask.pods)
    return [pod.count for pod in ask.pods]


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 16), st.integers(1, 6), st.integers(1, 6), st.integers(1, 4), st.sampled_from(["", "rack"]))
def test_the_largest_part_that_fits_starts(used: int, count: int, least: int, devices: int, level: str) -> None:
    made = world(4, racks=2)
    for index in range(used):
        run(made, work(f"r{index}", 1, 1), (index % 4, 1))
    one = elastic("w", count, min(least, count), devices, required_topology=level)
    possible = []
    for pods in range(min(least, count), count + 1):
        cycle = Cycle(made)
        supply = cycle.supply.pools["h200"]
        rigid = work("rigid", pods, devices, required_topology=level)
        if supply.place(cycle.ask(rigid), supply.ready) is not None:
            possible.append(pods)
    assert start(made, one) == ([max(possible)] if possible else None)


def test_the_quota_limits_how_many_start() -> None:
    assert start(world(4), elastic("w", 4, 1, 4), most=11) == [2]
    assert start(world(4), elastic("w", 4, 3, 4), most=11) is None
    assert start(world(4), work("w", 4, 4), most=15) is None


def test_several_pod_sets_shrink_in_proportion() -> None:
    sets = (PodSet("main", 8, {GPU: 2}, min_count=2), PodSet("side", 4, {GPU: 1}, min_count=1))
    assert start(world(4), replace(work("w", 1, 1), pod_sets=sets)) == [6, 3]


def test_a_rigid_gang_starts_whole_or_not() -> None:
    assert start(world(2), work("w", 2, 4)) == [2]
    assert start(world(2), work("w", 3, 4)) is None


def grow(made: Fleet, one: WorkloadState, most: int | None = None) -> Extension | None:
    cycle = Cycle(made)
    ask = ask_of(cycle.supply, one)
    assert ask is not None
    supply = cycle.supply.pools["h200"]
    found = extend(one, ask, supply, cycle.rooms["h200"].device, most)
    if found is not None:
        take(supply, found.ask, found.assignment)
        assert (supply.free >= 0).all()
    return found


def test_a_shrunk_gang_grows_as_far_as_there_is_room() -> None:
    made = world(4, racks=2)
    run(made, work("r", 1, 4), (2, 1))
    one = run(made, elastic("w", 4, 1, 4), (0, 1))
    found = grow(made, one)
    assert found is not None
    assert (found.added, found.devices) == ((("main", "n01", 1), ("main", "n03", 1)), 8)
    limited = grow(made, one, most=7)
    assert limited is not None
    assert limited.devices == 4
    assert grow(made, one, most=3) is None


def test_a_gang_of_one_domain_grows_inside_it() -> None:
    made = world(4, racks=2)
    one = run(made, elastic("w", 4, 1, 4, required_topology="rack"), (0, 1))
    found = grow(made, one)
    assert found is not None
    assert found.added == (("main", "n01", 1),)


@pytest.mark.parametrize("pods", [4, 2])
def test_whole_and_rigid_gangs_do_not_grow(pods: int) -> None:
    made = world(4)
    one = elastic("w", 4, 1, 1) if pods == 4 else work("w", 4, 1)
    assert grow(made, run(made, one, (0, pods))) is None


def test_the_nodes_with_the_fewest_pods_are_given_up_first() -> None:
    one = run(world(3, per_node=4), elastic("w", 6, 3, 1), (0, 3), (1, 2), (2, 1))
    assert extra_pods(one) == {("main", "n02"): 1, ("main", "n01"): 2}
    assert shrunk(one) == (("main", "n00", 3),)
    assert extra_pods(run(world(1), work("v", 3, 1), (0, 3))) == {}


def failed(made: Fleet, one: WorkloadState, node: str = "n00") -> Replacement | None:
    cycle = Cycle(made)
    ask = ask_of(cycle.supply, one)
    assert ask is not None
    supply = cycle.supply.pools["h200"]
    found = substitute(one, node, ask, supply, cycle.rooms["h200"].device)
    if found is not None:
        take(supply, found.ask, found.assignment)
        assert (supply.free >= 0).all()
    return found


def test_only_the_pods_of_the_failed_node_move() -> None:
    made = world(4, racks=2)
    one = run(made, work("w", 4, 2), (0, 2), (1, 2))
    made.remove_node("n00")
    found = failed(made, one)
    assert found is not None
    assert found.moved == (("main", "n02", 2),)
    assert found.placements == (("main", "n01", 2), ("main", "n02", 2))


def test_the_substitute_is_in_the_domain_of_the_others() -> None:
    made = world(6, racks=2)
    one = run(made, work("w", 2, 4, required_topology="rack"), (3, 1), (4, 1))
    made.remove_node("n03")
    found = failed(made, one, "n03")
    assert found is not None
    assert found.moved == (("main", "n05", 1),)
    run(made, work("r", 1, 1), (5, 1))
    assert failed(made, one, "n03") is None


def test_the_tightest_node_takes_them_and_several_if_none_can() -> None:
    made = world(5)
    one = run(made, work("w", 4, 1), (0, 3), (1, 1))
    for node, held in (1, 3), (3, 1), (4, 4):
        run(made, work(f"r{node}", 1, held), (node, 1))
    found = failed(made, one)
    assert found is not None
    assert found.moved == (("main", "n03", 3),)
    for node, held in (2, 2), (3, 2):
        run(made, work(f"r{node}", 1, held), (node, 1))
    spread = failed(made, one)
    assert spread is not None
    assert sorted(count for _, _, count in spread.moved) == [1, 2]
    run(made, work("r2", 1, 4), (2, 1))
    assert failed(made, one) is None


def test_a_failed_node_that_is_still_there_takes_nothing() -> None:
    made = world(2)
    one = run(made, work("w", 2, 1), (0, 1), (1, 1))
    run(made, work("r", 1, 3), (1, 1))
    assert failed(made, one) is None


def test_a_gang_of_one_node_is_lost_whole() -> None:
    made = world(2)
    assert failed(made, run(made, work("w", 2, 1), (0, 2))) is None


PLACED = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3), st.integers(1, 3), st.booleans()), max_size=30)


@settings(deadline=None, max_examples=60)
@given(PLACED)
def test_the_columns_are_the_same_as_made_from_scratch(events: list[tuple[int, int, int, bool]]) -> None:
    made = world(4)
    kept = Running(made.devices_of)
    for name, node, pods, gone in events:
        if gone:
            made.remove_workload(f"x/w{name}")
            kept.drop(f"x/w{name}")
        else:
            one = elastic(f"w{name}", 3, 1, 1, tenant="ab"[name % 2], priority=pods)
            kept.put(run(made, one, (node, pods), admitted_at=float(node)))
    fresh = Running(made.devices_of)
    for workload in made.workloads.values():
        fresh.put(workload)
    assert told(kept) == told(fresh)
    assert len(kept) == len(made.workloads)


def told(running: Running) -> dict[str, object]:
    columns = running.columns()
    nodes = {code: name for name, code in columns.nodes.items()}
    found: dict[str, object] = {}
    for slot, workload in enumerate(columns.workloads):
        assert bool(columns.live[slot]) == (workload is not None)
        if workload is None:
            continue
        entries = [
            (
                int(columns.part[at]),
                nodes[int(columns.node[at])],
                columns.requests[columns.request[at]],
                int(columns.count[at]),
            )
            for at in range(columns.slot.size)
            if columns.slot[at] == slot
        ]
        tenant = columns.tenants[columns.tenant[slot]]
        found[workload.key] = (
            sorted(entries),
            tenant,
            int(columns.priority[slot]),
            float(columns.admitted_at[slot]),
            columns.devices[slot].tolist(),
            columns.pods[slot].tolist(),
        )
    return found


def test_whole_columns_have_nothing_to_give_up_alone() -> None:
    made = world(2)
    index = Running(made.devices_of)
    index.put(run(made, elastic("w", 4, 1, 1), (0, 4)))
    assert index.columns().devices.tolist() == [[1, 3]]
    assert index.columns().whole().devices.tolist() == [[4, 0]]


def test_an_ask_of_what_runs_is_as_that_of_what_waits() -> None:
    made = world(2)
    one = work("w", 2, 1, required_topology="rack")
    cycle = Cycle(made)
    shape = Shape(one.pod_sets, "rack", "", frozenset())
    first, second = ask_of(cycle.supply, one), cycle.supply.ask(shape)
    assert first is not None
    assert second is not None
    assert (first.devices, first.pods[0].room) == (second.devices, second.pods[0].room)
