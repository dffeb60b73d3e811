"""Reclaim, preemption, reservations and backfill, as `plan` puts them together."""

from __future__ import annotations

from dataclasses import replace

from scheduler import ClassQuota, Eviction, Fleet, Memory, Plan, PodSet, TenantState, plan
from tests.unit.scheduler.fleets import GPU, apply, fleet, job, pool, tenant


def let_go(made: Fleet, evictions: tuple[Eviction, ...]) -> None:
    """What was evicted stops and is queued again."""
    for one in evictions:
        known = made.workloads[one.workload]
        stopped = replace(known, admitted=False, accelerator="", placements=(), devices=(), preemptible=True)
        made.upsert_workload(stopped)


def codes(decided: Plan, key: str) -> list[str]:
    return [reason.code for reason in decided.waiting.of(key) or ()]


def run(made: Fleet, memory: Memory, now: float) -> tuple[Plan, Memory]:
    """Apply what was decided; what is evicted is on its way out from now on, until `let_go`."""
    decided, memory = plan(made, memory, now)
    apply(made, replace(decided, evictions=()))
    for one in decided.evictions:
        made.upsert_workload(replace(made.workloads[one.workload], preemptible=False))
    return decided, memory


def two_tenants(nodes: int = 2) -> Fleet:
    quota = {"H200": ClassQuota(8 * nodes // 2, borrow=8 * nodes // 2)}
    tenants = [TenantState("first", quota=quota), TenantState("second", quota=quota)]
    return fleet(pools=[pool(maximum=nodes)], nodes=nodes, tenants=tenants)


def test_what_is_borrowed_is_given_back_to_whom_it_belongs() -> None:
    made = two_tenants()
    for index in range(2):
        made.upsert_workload(job(f"b{index}", devices=8, tenant="first", created_at=index))
    _, memory = run(made, Memory(), 10.0)
    made.upsert_workload(job("own", devices=8, tenant="second", created_at=20.0))
    decided, memory = run(made, memory, 20.0)
    assert (not decided.evictions, decided.next_wake) == (True, 25.0), "much ends by itself"
    decided, memory = run(made, memory, 25.0)
    (gone,) = decided.evictions
    assert made.workloads[gone.workload].tenant == "first"
    assert gone.reason.code == "Preempted"
    assert "takes back" in gone.reason.message
    (own,) = [key for key in made.pending if key.endswith("own")]
    assert codes(decided, own) == ["Evicting"]
    again, memory = run(made, memory, 26.0)
    assert not again.evictions, "it waits for its victim to go, and seeks no other"
    let_go(made, decided.evictions)
    last, _ = run(made, memory, 27.0)
    assert [one.workload for one in last.admissions] == [own]


def test_nobody_within_its_nominal_is_evicted_for_another_tenant() -> None:
    made = two_tenants()
    for owner in ("first", "second"):
        made.upsert_workload(job(f"{owner}-a", devices=8, tenant=owner))
    _, memory = run(made, Memory(), 10.0)
    made.upsert_workload(job("more", devices=8, tenant="second", created_at=10.0, priority=1000))
    decided, _ = run(made, memory, 20.0)
    assert [made.workloads[one.workload].tenant for one in decided.evictions] == ["second"]


def test_a_higher_priority_takes_the_place_of_its_own_tenants_lower() -> None:
    made = fleet(pools=[pool(maximum=1)], nodes=1)
    made.upsert_workload(job("low", devices=8))
    _, memory = run(made, Memory(), 1.0)
    made.upsert_workload(job("same", devices=8, created_at=2.0))
    decided, memory = run(made, memory, 2.0)
    assert not decided.evictions
    made.upsert_workload(job("high", devices=8, created_at=3.0, priority=10))
    decided, memory = run(made, memory, 8.0)
    assert [one.workload.rpartition("/")[2] for one in decided.evictions] == ["low"]
    let_go(made, decided.evictions)
    decided, _ = run(made, memory, 9.0)
    assert [one.workload.rpartition("/")[2] for one in decided.admissions] == ["high"]


def test_what_may_not_be_preempted_is_not() -> None:
    made = fleet(pools=[pool(maximum=1)], nodes=1)
    made.upsert_workload(job("low", devices=8, preemptible=False))
    _, memory = run(made, Memory(), 1.0)
    made.upsert_workload(job("high", devices=8, created_at=3.0, priority=10))
    decided, _ = run(made, memory, 30.0)
    assert not decided.evictions


def test_a_blocked_gang_is_told_when_it_may_start_and_is_not_delayed() -> None:
    made = fleet(pools=[pool(maximum=2)], nodes=2)
    made.upsert_workload(job("runs", devices=8, max_runtime=100.0, admitted_at=0.0))
    decided, memory = plan(made, Memory(), 0.0)
    apply(made, decided)
    made.upsert_workload(replace(made.workloads[decided.admissions[0].workload], admitted_at=0.0))
    made.upsert_workload(job("gang", count=2, devices=8, created_at=1.0))
    decided, memory = run(made, memory, 1.0)
    (gang,) = made.pending
    assert codes(decided, gang) == ["PoolAtMaximum", "Reserved"]
    assert "earliest 1970-01-01 00:01:40 UTC" in (decided.waiting.of(gang) or ())[-1].message
    # One that ends before that may use the other node meanwhile; one that does not say so may not.
    made.upsert_workload(job("long", devices=8, created_at=2.0, max_runtime=500.0))
    made.upsert_workload(job("unknown", devices=8, created_at=2.5))
    made.upsert_workload(job("short", devices=8, created_at=3.0, max_runtime=50.0))
    decided, memory = run(made, memory, 3.0)
    assert [one.workload.rpartition("/")[2] for one in decided.admissions] == ["short"]


def test_small_arrivals_do_not_keep_a_large_gang_waiting_for_ever() -> None:
    made = fleet(pools=[pool(maximum=4)], nodes=4, tenants=[tenant("big"), tenant("small")])
    memory, ends = Memory(), {}
    for index in range(4):
        made.upsert_workload(job(f"s{index}", devices=8, tenant="small", created_at=index - 10.0))
    made.upsert_workload(job("gang", count=4, devices=8, tenant="big", created_at=-1000.0))
    for step in range(1, 60):
        for key in [key for key, end in ends.items() if end <= step]:
            made.remove_workload(key)
            del ends[key]
        made.upsert_workload(job(f"late{step}", devices=8, tenant="small", created_at=float(step)))
        decided, memory = run(made, memory, float(step))
        if any(one.workload.endswith("gang") for one in decided.admissions):
            break
        ends.update({one.workload: step + 3 + step % 4 for one in decided.admissions})
    else:
        raise AssertionError("the gang never ran")
    assert step < 20


def test_a_node_that_is_reserved_is_not_taken_away() -> None:
    made = fleet(pools=[pool(maximum=2, scale_down_delay=5.0)], nodes=2)
    made.upsert_workload(job("runs", devices=8))
    _, memory = run(made, Memory(), 0.0)
    made.upsert_workload(job("gang", count=2, devices=8, created_at=-1000.0))
    for now in (1.0, 10.0, 100.0):
        decided, memory = run(made, memory, now)
        assert not decided.machine_removals
    made.remove_workload("train/gang")
    _, memory = run(made, memory, 101.0)
    decided, _ = run(made, memory, 110.0)
    assert len(decided.machine_removals) == 1


def test_an_elastic_gang_starts_with_what_there_is() -> None:
    made = fleet(pools=[pool(maximum=3)], nodes=3, tenants=[tenant(devices=20)])
    pods = PodSet("main", 4, {"cpu": 1000, GPU: 8}, min_count=2)
    made.upsert_workload(job("elastic", pod_sets=(pods,)))
    decided, _ = plan(made, Memory(), 0.0)
    (admission,) = decided.admissions
    assert sum(one.count for one in admission.placements) == 2, "room for three, quota for two"
    made.upsert_workload(job("rigid", count=4, devices=8, created_at=-1.0))
    decided, _ = plan(made, Memory(), 0.0)
    assert [one.workload for one in decided.admissions] == ["train/elastic"]
