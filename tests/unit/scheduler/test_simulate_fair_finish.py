"""The fair-finish bench: its isolated times, its baselines, and its windows."""

from __future__ import annotations

import pytest

from bench import fair_finish as bench
from scheduler.simulate import Simulation
from scheduler.simulate.trace import TraceJob, arrivals_of, read_philly

DAY = bench.DAY


def jobs(*rows: tuple[float, float, int, str]) -> list[TraceJob]:
    """(at, duration, devices, tenant) each; rows are numbered from 2."""
    return [TraceJob(at, *row) for at, row in enumerate(rows, 2)]


def test_isolated_times_are_those_of_a_share_of_its_own() -> None:
    alone = bench.isolated(jobs((0.0, 100.0, 32, "a"), (10.0, 50.0, 32, "a"), (0.0, 10.0, 64, "b"), (0.0, 5.0, 1, "b")))
    assert alone[2] == 100.0  # takes all of its tenant's half
    assert alone[3] == pytest.approx(140.0)  # waits for it
    assert alone[4] == pytest.approx(20.0)  # asks for twice the share: lasts twice as long
    assert alone[5] == pytest.approx(25.0)  # in the order of submission, behind it


def test_small_jobs_of_one_tenant_run_beside_each_other() -> None:
    alone = bench.isolated(jobs((0.0, 100.0, 16, "a"), (1.0, 100.0, 16, "a"), (2.0, 100.0, 1, "a"), (0.0, 1.0, 1, "b")))
    assert [alone[row] for row in (2, 3)] == [100.0, 100.0]
    assert alone[4] == pytest.approx(198.0)


def run(policy: str, *rows: tuple[float, float, int, str]) -> list[float | None]:
    given = jobs(*rows)
    made = bench.cluster(sorted({job.tenant for job in given}))
    arrivals = arrivals_of(given, bench.POOL)
    return [one.started for one in Simulation(made, arrivals, policy=bench.POLICIES[policy]).run().records]


QUEUE = ((0.0, 100.0, 64, "a"), (1.0, 100.0, 64, "a"), (2.0, 10.0, 8, "a"), (3.0, 10.0, 8, "b"))


def test_nobody_overtakes_in_fifo() -> None:
    assert run("fifo", (0.0, 100.0, 32, "a"), (1.0, 100.0, 64, "a"), (2.0, 10.0, 8, "b")) == [0.0, 100.0, 200.0]


def test_drf_takes_the_smallest_share_and_passes_over_what_does_not_fit() -> None:
    held = run("drf", (0.0, 100.0, 56, "a"), (0.0, 300.0, 8, "a"), (1.0, 100.0, 56, "a"), (2.0, 10.0, 56, "b"))
    assert held == [0.0, 0.0, 110.0, 100.0]  # b has nothing yet, and goes before the older one of a
    assert run("drf", (0.0, 100.0, 32, "a"), (1.0, 100.0, 64, "a"), (2.0, 10.0, 8, "b")) == [0.0, 100.0, 2.0]


def test_classes_are_strict_and_only_that_policy_looks_at_them() -> None:
    given = jobs(*QUEUE)
    by_key = {one.workload.key: bench.class_of(one.workload) for one in arrivals_of(given, bench.POOL)}
    assert set(by_key.values()) <= {0, 1, 2}
    started = run("priority", *QUEUE)
    first = min(range(1, 4), key=lambda at: (-list(by_key.values())[at], at))
    assert started[first] == 100.0


@pytest.mark.parametrize("policy", sorted(bench.POLICIES))
def test_every_policy_ends_everything_within_the_devices(policy: str) -> None:
    given = jobs(*((float(at), 30.0 + at, size, "abc"[at % 3]) for at, size in enumerate((1, 8, 16, 12, 64, 3, 32, 2))))
    made = bench.cluster(["a", "b", "c"])
    outcome = Simulation(made, arrivals_of(given, bench.POOL, checkpoint=10.0), policy=bench.POLICIES[policy]).run()
    assert len(outcome.ended) == len(given)
    assert max(sample.devices_used for sample in outcome.series) <= bench.DEVICES
    found = bench.summary(outcome, bench.isolated(given), 0.0)
    assert 0.0 <= found.unfair <= 1.0
    assert found.makespan == outcome.makespan


def test_windows_keep_what_the_rule_says() -> None:
    with bench.TRACE.open() as lines:
        first = next(bench.windows(read_philly(lines)))
    assert len({int(job.at // DAY) for job in first}) == 1
    assert all(1 <= job.devices <= bench.DEVICES and job.duration <= bench.LONGEST for job in first)
    assert bench.work(first) >= bench.LOAD * bench.DEVICES * DAY


def test_a_trace_job_becomes_the_fewest_equal_pods() -> None:
    (one, two, three) = arrivals_of(jobs((0.0, 1.0, 4, "a"), (0.0, 1.0, 16, "a"), (0.0, 1.0, 12, "a")), bench.POOL)
    shapes = [(each.count, each.requests[bench.GPU]) for item in (one, two, three) for each in item.workload.pod_sets]
    assert shapes == [(1, 4), (2, 8), (2, 6)]
