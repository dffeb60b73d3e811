"""Where and when a blocked workload will start, and on what that estimate rests."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler import Fleet, WorkloadState
from scheduler.reserving import Basis, reserve
from scheduler.reserving.reserve import Spot
from scheduler.running.room import by_row
from tests.unit.scheduler.claims import GPU, Cycle, add_node, run, work, world

NOW = 100.0


def spot(made: Fleet, waiting: WorkloadState) -> Spot | None:
    cycle = Cycle(made, now=NOW)
    timeline = cycle.timelines["h200"]
    return reserve(cycle.ask(waiting), timeline, cycle.supply.pools["h200"].free)


def test_the_start_is_when_the_last_that_must_end_has_ended() -> None:
    made = world(3)
    run(made, work("a", 1, 4, max_runtime=500.0), (0, 1), admitted_at=50.0)
    run(made, work("b", 1, 4, max_runtime=100.0), (1, 1), admitted_at=50.0)
    run(made, work("c", 1, 4), (2, 1))
    assert spot(made, work("w", 1, 4)) == Spot("h200", [(0, 1, 1)], 150.0, Basis("ends", "x/b"), 0.0)
    assert spot(made, work("w", 2, 4)) == Spot("h200", [(0, 0, 1), (0, 1, 1)], 550.0, Basis("ends", "x/a"), 0.0)


def test_room_that_is_there_starts_now() -> None:
    assert spot(world(1), work("w", 1, 4)) == Spot("h200", [(0, 0, 1)], NOW, Basis("free"), 0.0)


def test_work_that_outstays_its_time_is_taken_to_end_now() -> None:
    made = world(1)
    run(made, work("late", 1, 4, max_runtime=10.0), (0, 1), admitted_at=0.0)
    found = spot(made, work("w", 1, 4))
    assert found is not None
    assert (found.start, found.basis) == (NOW, Basis("ends", "x/late"))


def test_a_required_domain_is_the_one_that_is_free_first() -> None:
    made = world(4, racks=2)
    for node, end in enumerate([300.0, 900.0, 500.0, 600.0]):
        run(made, work(f"r{node}", 1, 4, max_runtime=end), (node, 1), admitted_at=0.0)
    found = spot(made, work("w", 2, 4, required_topology="rack"))
    assert found is not None
    assert (found.start, found.assignment) == (600.0, [(0, 2, 1), (0, 3, 1)])


def test_when_no_end_is_known_the_rows_with_the_least_to_free_are_drained() -> None:
    made = world(4, racks=2)
    for node, held in enumerate([4, 1, 3, 3]):
        run(made, work(f"r{node}", 1, held), (node, 1))
    loose = spot(made, work("w", 2, 4))
    assert loose is not None
    assert (loose.start, loose.basis) == (None, Basis("drains", missing=2))
    assert [row for _, row, _ in loose.assignment] in ([1, 2], [1, 3])
    tied = spot(made, work("w", 2, 4, required_topology="rack"))
    assert tied is not None
    assert [row for _, row, _ in tied.assignment] == [0, 1]


def test_nothing_is_reserved_for_what_would_not_fit_an_empty_pool() -> None:
    assert spot(world(2), work("w", 3, 4)) is None
    assert spot(world(2), work("w", 1, 5)) is None
    assert spot(world(4, racks=2), work("w", 3, 4, required_topology="rack")) is None


RUNNING = st.lists(
    st.tuples(st.integers(0, 3), st.integers(1, 4), st.sampled_from([0.0, 50.0, 150.0, 250.0, 350.0])), max_size=8
)


@settings(max_examples=60, deadline=None)
@given(RUNNING, st.integers(1, 4), st.integers(1, 4), st.sampled_from(["", "rack"]))
def test_a_known_start_is_the_earliest_at_which_it_fits(
    running: list[tuple[int, int, float]], count: int, devices: int, level: str
) -> None:
    made = world(4, racks=2)
    held = [0] * 4
    for index, (node, size, runtime) in enumerate(running):
        if held[node] + size <= 4:
            held[node] += size
            run(made, work(f"r{index}", 1, size, max_runtime=runtime), (node, 1), admitted_at=0.0)
    waiting = work("w", count, devices, required_topology=level)

    def fits(at: float) -> bool:
        later = world(4, racks=2)
        for one in made.workloads.values():
            if not one.max_runtime or max(one.max_runtime, NOW) > at:
                later.upsert_workload(one)
        cycle = Cycle(later)
        supply = cycle.supply.pools["h200"]
        return supply.place(cycle.ask(waiting), supply.ready) is not None

    times = sorted({NOW, *(max(one.max_runtime, NOW) for one in made.workloads.values() if one.max_runtime)})
    found = spot(made, waiting)
    first = next((at for at in times if fits(at)), None)
    if found is None:
        empty = Cycle(world(4, racks=2))
        assert empty.supply.pools["h200"].place(empty.ask(waiting), 4) is None
        return
    assert found.start == first
    cycle = Cycle(made, now=NOW)
    rows, amounts = by_row(cycle.ask(waiting), found.assignment)
    then = cycle.supply.pools["h200"].free[rows]
    if found.start is not None:
        then = then + cycle.timelines["h200"].released(rows, found.start)
        assert (amounts <= then).all()
    if level:
        assert len({row // 2 for row in rows.tolist()}) == 1


def test_releases_are_summed_by_row_and_time() -> None:
    made = world(2)
    run(made, work("a", 1, 2, max_runtime=200.0), (0, 1), admitted_at=0.0)
    run(made, work("b", 1, 1, max_runtime=300.0), (0, 1), admitted_at=0.0)
    run(made, work("c", 1, 1), (1, 1))
    timeline = Cycle(made, now=NOW).timelines["h200"]
    device = made.table.columns[GPU]
    rows = np.array([1, 0])
    for until, freed in (199.0, 0), (200.0, 2), (300.0, 3), (np.inf, 3):
        assert timeline.released(rows, until)[:, device].tolist() == [0, freed]


@pytest.mark.parametrize("at", [200.0, 300.0])
def test_who_ends_last_is_named(at: float) -> None:
    made = world(1)
    run(made, work("a", 1, 1, max_runtime=300.0), (0, 1), admitted_at=0.0)
    run(made, work("b", 1, 1, max_runtime=200.0), (0, 1), admitted_at=0.0)
    timeline = Cycle(made, now=NOW).timelines["h200"]
    assert timeline.last_to_end(np.array([0]), at) == ("x/b" if at == 200.0 else "x/a")


def test_a_pool_without_nodes_has_neither_victims_nor_reservations() -> None:
    made = world(1)
    made.remove_node("n00")
    assert spot(made, work("w", 1, 1)) is None
    assert Cycle(made).find(work("w", 1, 1, priority=1)) is None


def test_nodes_outside_every_domain_are_of_no_use_where_one_is_required() -> None:
    made = world(2)
    add_node(made, made.pools["h200"], 2, 4, "")
    run(made, work("r", 1, 4), (0, 1))
    tied = work("w", 2, 4, required_topology="rack", priority=1)
    found = Cycle(made).find(tied)
    assert found is not None
    assert [row for _, row, _ in found.assignment] == [0, 1]
    drained = spot(made, tied)
    assert drained is not None
    assert [row for _, row, _ in drained.assignment] == [0, 1]
    assert spot(made, work("v", 1, 4, required_topology="nvlinkDomain")) is None
