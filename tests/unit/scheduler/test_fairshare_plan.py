"""The guarantee of nominal quota, as `plan` keeps it: within a few cycles, by evicting those who borrow."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from scheduler import ClassQuota, Fleet, Memory, Plan, TenantState, plan
from tests.unit.scheduler.fleets import apply, fleet, job, pool

NAMES = tuple("abcd")
FOREST = st.tuples(
    *[
        st.tuples(
            st.sampled_from(["", *NAMES[:index]]), st.integers(0, 6), st.integers(0, 12), st.none() | st.integers(0, 6)
        )
        for index in range(len(NAMES))
    ]
)
DEMANDS = st.tuples(*[st.integers(0, 10) for _ in NAMES])


def build(forest) -> Fleet:
    """Nodes of eight devices, as many as cover all nominals."""
    tenants = [
        TenantState(name, quota={"H200": ClassQuota(nominal, borrow, lend)}, parent=parent)
        for name, (parent, nominal, borrow, lend) in zip(NAMES, forest, strict=True)
    ]
    nodes = max(1, -(-sum(nominal for _, nominal, _, _ in forest) // 8))
    return fleet(pools=[pool(maximum=nodes)], nodes=nodes, tenants=tenants)


def submit(made: Fleet, name: str, jobs: int, since: float, priority: int) -> None:
    for index in range(jobs):
        key = f"train/{name}-{since:.0f}-{index}"
        made.upsert_workload(
            job("x", 1, 1, key=key, uid=key, tenant=name, created_at=since + index / 100, priority=priority)
        )


def run(made: Fleet, cycles: int, since: float) -> list[Plan]:
    """Plans, each applied, until one decides nothing."""
    memory, plans = Memory(), []
    for step in range(cycles):
        decided, memory = plan(made, memory, since + 10.0 + step)  # past the grace of those that came then
        plans.append(decided)
        apply(made, decided)
        if not decided.admissions and not decided.evictions:
            break
    return plans


ARRIVALS = (FOREST, DEMANDS, st.sampled_from(NAMES), st.tuples(*[st.integers(0, 1) for _ in NAMES]))


# A parent at its own limit, while its subtree is not: evicting others does not help it.
OWN_LIMIT = (("", 0, 4, None), ("", 0, 0, None), ("", 5, 0, None), ("c", 1, 0, None)), (4, 0, 0, 0), "c", (0, 0, 0, 0)
# Who was evicted is older than who evicted it, and would take the room back.
OLDER = (("", 1, 0, None), ("", 0, 1, None), ("", 0, 1, None), ("", 0, 6, None)), (0, 1, 1, 7), "a", (0, 0, 0, 0)


@settings(max_examples=20, deadline=None)
@given(*ARRIVALS)
@example(*OWN_LIMIT)
@example(*OLDER)
def test_nobody_waits_below_nominal_whoever_came_first(forest, demands, late: str, priorities) -> None:
    comes_to_rest(forest, demands, late, priorities)


@pytest.mark.campaign
@settings(max_examples=1000, deadline=None)
@given(*ARRIVALS)
def test_nobody_waits_below_nominal_whoever_came_first_for_long(forest, demands, late: str, priorities) -> None:
    comes_to_rest(forest, demands, late, priorities)


def comes_to_rest(forest, demands, late: str, priorities) -> None:
    """All but `late` submit and settle; then it submits, and all settle again."""
    made = build(forest)
    for name, jobs, priority in zip(NAMES, demands, priorities, strict=True):
        if name != late:
            submit(made, name, jobs, 0.0, priority)
    run(made, 30, 0.0)
    before = {name: made.use.devices.get((name, "H200"), 0) for name in NAMES}
    submit(made, late, 6, 100.0, priorities[NAMES.index(late)])
    plans = run(made, 30, 100.0)
    nominal = {name: one[1] for name, one in zip(NAMES, forest, strict=True)}
    waiting = Counter(one.tenant for one in made.pending.values())
    for name in NAMES:
        used = made.use.devices.get((name, "H200"), 0)
        assert not waiting[name] or used >= nominal[name]
        assert used >= min(before[name], nominal[name])
    assert not plans[-1].evictions, "tenants evict each other in turns"


def test_what_a_parent_lent_comes_back_to_those_under_it() -> None:
    tenants = [
        TenantState("org", quota={"H200": ClassQuota(6)}),
        TenantState("team", quota={"H200": ClassQuota(0, 6)}, parent="org"),
        TenantState("other", quota={"H200": ClassQuota(2, 6)}),
    ]
    made = fleet(pools=[pool(maximum=1)], nodes=1, tenants=tenants)
    submit(made, "other", 8, 0.0, 0)
    run(made, 5, 0.0)
    assert made.use.devices == {("other", "H200"): 8}
    submit(made, "team", 8, 100.0, 0)
    plans = run(made, 30, 100.0)
    assert made.use.devices == {("other", "H200"): 2, ("team", "H200"): 6}
    assert not plans[-1].evictions
