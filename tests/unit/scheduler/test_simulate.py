"""The virtual clock: what a workload's life becomes, and that the same arrivals give the same lives."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler import Eviction, Fleet, Memory, Plan, plan
from scheduler.explain.reasons import Reason
from scheduler.simulate import Arrival, Simulation
from tests.unit.scheduler.fleets import add_node, fleet, job, pool


def arrivals(*rows: tuple[float, int, float]) -> list[Arrival]:
    """(time, pods of 8 devices, duration) each."""
    return [
        Arrival(time, job(f"j{index}", count, created_at=time), duration)
        for index, (time, count, duration) in enumerate(rows)
    ]


def test_one_after_the_other_on_one_node() -> None:
    made = fleet(pools=[pool(maximum=1)], nodes=1)
    outcome = Simulation(made, arrivals((10.0, 1, 100.0), (20.0, 1, 50.0))).run()
    assert [(one.started, one.ended) for one in outcome.records] == [(10.0, 110.0), (110.0, 160.0)]
    assert [one.wait for one in outcome.records] == [0.0, 90.0]
    assert outcome.makespan == 150.0
    assert outcome.device_hours == pytest.approx(8 * 150.0 / 3600)
    assert not made.workloads
    assert not made.use.devices


def test_machines_come_after_the_providers_delay_and_go_when_idle() -> None:
    made = fleet(pools=[pool(maximum=4, scale_down_delay=60.0)])
    outcome = Simulation(made, arrivals((0.0, 2, 100.0)), boot_seconds={"h200": 240.0}).run()
    assert [(one.started, one.ended) for one in outcome.records] == [(240.0, 340.0)]
    assert [sample.machines_coming for sample in outcome.series[:1]] == [2]
    assert outcome.series[-1].nodes_ready == 0
    assert outcome.ended_at == 400.0
    assert not made.machines
    assert outcome.standing_hours == pytest.approx(16 * 160.0 / 3600)


def test_a_node_that_is_lost_makes_its_workload_wait_and_start_again() -> None:
    made = fleet(pools=[pool(minimum=2, maximum=2)], nodes=2)
    one = Arrival(0.0, job("j"), 100.0, checkpoint=30.0, restart=5.0)
    first = Simulation(made, [one], outages=[(70.0, "h200-0")])
    (record,) = first.run().records
    assert (record.evictions, record.started) == (1, 0.0)
    assert record.lost == pytest.approx(15.0)  # ten seconds since the checkpoint at 60, five to start again
    assert record.ended == pytest.approx(115.0)


def test_without_checkpoints_all_work_is_lost() -> None:
    made = fleet(pools=[pool(minimum=2, maximum=2)], nodes=2)
    (record,) = Simulation(made, arrivals((0.0, 1, 100.0)), outages=[(70.0, "h200-0")]).run().records
    assert (record.lost, record.ended) == (70.0, 170.0)


def test_what_a_policy_evicts_lets_go_at_once() -> None:
    made = fleet(pools=[pool(maximum=1)], nodes=1)
    evicted: list[str] = []

    def policy(state: Fleet, memory: Memory, now: float) -> tuple[Plan, Memory]:
        decided, memory = plan(state, memory, now)
        if now >= 20.0 and not evicted and state.workloads["train/j0"].admitted:
            evicted.append("train/j0")
            decided = replace(decided, evictions=(Eviction("train/j0", Reason("Preempted", "")),))
        return decided, memory

    (record, later) = Simulation(made, arrivals((0.0, 1, 100.0), (20.0, 1, 10.0)), policy=policy).run().records
    assert record.evictions == 1
    assert record.ended == 120.0
    assert later.ended == 130.0


def test_work_stops_at_its_maximum_run_time() -> None:
    made = fleet(pools=[pool(maximum=1)], nodes=1)
    (record,) = Simulation(made, [Arrival(0.0, job("j", max_runtime=40.0), 100.0)]).run().records
    assert record.ended == 40.0


def test_a_faster_class_ends_sooner() -> None:
    made = fleet(pools=[pool("h100", accelerator="H100", maximum=1)], nodes=1)
    work = job("j", flavors=(("H200", 1.0), ("H100", 0.5)))
    (record,) = Simulation(made, [Arrival(0.0, work, 100.0)]).run().records
    assert record.ended == 200.0


def test_what_ran_before_ends_when_it_was_said_to() -> None:
    made = fleet(pools=[pool(maximum=1)], nodes=1)
    held = (("main", "h200-0", 1),)
    made.upsert_workload(job("old", admitted=True, accelerator="H200", placements=held, admitted_at=5.0))
    simulation = Simulation(made, arrivals((10.0, 1, 1.0)), running={"train/old": 30.0})
    assert simulation.run().records[0].started == 30.0
    assert simulation.record("train/old").ended == 30.0


def test_what_ran_before_and_nobody_knows_the_end_of_runs_on() -> None:
    made = fleet(pools=[pool(maximum=1)], nodes=1)
    made.upsert_workload(job("old", admitted=True, accelerator="H200", placements=(("main", "h200-0", 1),)))
    outcome = Simulation(made, arrivals((10.0, 1, 1.0)), until=1000.0).run()
    assert outcome.records[0].started is None
    assert outcome.ended_at == 1000.0


def test_the_pace_puts_instants_together() -> None:
    many = arrivals(*((float(index), 1, 500.0) for index in range(10)))
    made = fleet(pools=[pool(maximum=10)], nodes=10)
    close = Simulation(made, many, pace=5.0).run()
    alone = Simulation(fleet(pools=[pool(maximum=10)], nodes=10), many).run()
    assert close.plans < alone.plans
    assert [one.started for one in close.records][:7] == [0.0, *[5.0] * 5, 10.0]


@settings(max_examples=20, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 50), st.integers(1, 3), st.integers(1, 60)).map(
            lambda row: (float(row[0]), row[1], float(row[2]))
        ),
        min_size=1,
        max_size=12,
    ),
    st.randoms(use_true_random=False),
)
def test_the_order_in_which_arrivals_are_given_does_not_matter(rows, rng) -> None:
    given = arrivals(*rows)
    shuffled = list(given)
    rng.shuffle(shuffled)
    one, other = (
        Simulation(fleet(pools=[pool(maximum=4, scale_down_delay=20.0)]), each).run() for each in (given, shuffled)
    )
    assert one == other
    assert all(record.ended is not None for record in one.records)
    assert all(sample.devices_used <= sample.devices_ready for sample in one.series)


def test_samples_count_the_nodes_that_were_there_before() -> None:
    made = fleet(pools=[pool(maximum=2, minimum=2)], nodes=1)
    add_node(made, made.pools["h200"], 1)
    outcome = Simulation(made, arrivals((0.0, 1, 10.0))).run()
    assert {(one.nodes_ready, one.devices_ready) for one in outcome.series} == {(2, 16)}
