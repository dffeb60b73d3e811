"""Victim sets: who may go, that the set suffices and nothing of it is spare, and in which order they go."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler import ClassQuota, Fleet, PodSet, TenantState, WorkloadState
from scheduler.fleet.state import Resources
from scheduler.placement.supply import Supply
from scheduler.preemption import Budget, Candidates, Preemption, Rights, Shortfall
from scheduler.queueing.entitlements import Entitlements as Ledger
from tests.unit.scheduler.claims import CLASS, GPU, Cycle, Flat, run, used_by, work, world


def victims(found: Preemption | None) -> list[str]:
    assert found is not None
    return sorted(one.workload.removeprefix("x/") for one in found.victims)


def test_the_lowest_priority_goes_and_only_as_much_as_is_needed() -> None:
    made = world(2)
    run(made, work("low", 1, 4, priority=1), (0, 1))
    run(made, work("lower", 1, 4, priority=0), (1, 1))
    found = Cycle(made).find(work("w", 1, 4, priority=5))
    assert victims(found) == ["lower"]
    assert found is not None
    assert found.assignment == [(0, 1, 1)]
    assert found.victims[0].why == "priority"


@pytest.mark.parametrize("priority", [0, -1])
def test_equal_or_higher_priority_of_the_same_tenant_stays(priority: int) -> None:
    made = world(1)
    run(made, work("r", 1, 4, priority=0), (0, 1))
    assert Cycle(made).find(work("w", 1, 4, priority=priority)) is None


def test_what_is_not_preemptible_stays() -> None:
    made = world(1)
    run(made, work("r", 1, 4, preemptible=False), (0, 1))
    assert Cycle(made).find(work("w", 1, 4, priority=9)) is None


def test_of_other_tenants_only_borrowed_work_goes_and_only_for_one_within_nominal() -> None:
    made = world(2)
    run(made, work("first", 1, 4, tenant="b", admitted_at=1.0), (0, 1))
    run(made, work("second", 1, 4, tenant="b", admitted_at=2.0), (1, 1))
    within = Flat({"a": 4, "b": 4})
    found = Cycle(made, within).find(work("w", 1, 4, priority=-5))
    assert victims(found) == ["second"]  # the first is within b's nominal quota
    assert found is not None
    assert found.victims[0].why == "reclaim"
    assert Cycle(made, Flat({"a": 3, "b": 4})).find(work("w", 1, 4, priority=5)) is None
    assert Cycle(made, Flat({"a": 4, "b": 8})).find(work("w", 1, 4, priority=5)) is None


def test_a_gang_larger_than_its_tenants_nominal_is_borrowed_whole() -> None:
    made = world(1)
    run(made, work("big", 1, 4, tenant="b"), (0, 1))
    assert victims(Cycle(made, Flat({"a": 1, "b": 3})).find(work("w", 1, 1))) == ["big"]


def test_in_a_cohort_borrowed_work_of_lower_priority_goes_where_the_policy_allows_it() -> None:
    made = world(1)
    run(made, work("r", 1, 4, tenant="b", priority=1), (0, 1))
    assert Cycle(made, Flat({}, cohort=False)).find(work("w", 1, 4, priority=2)) is None
    found = Cycle(made, Flat({}, cohort=True)).find(work("w", 1, 4, priority=2))
    assert victims(found) == ["r"]
    assert Cycle(made, Flat({}, cohort=True)).find(work("w", 1, 4, priority=1)) is None
    assert Cycle(made, Flat({"b": 4}, cohort=True)).find(work("w", 1, 4, priority=2)) is None


def test_borrowing_work_does_not_displace_guaranteed_work_of_its_own_tenant() -> None:
    made = world(2)
    run(made, work("r", 1, 4), (0, 1))
    assert Cycle(made, Flat({"a": 4})).find(work("w", 2, 4, priority=2)) is None
    assert victims(Cycle(made, Flat({"a": 8})).find(work("w", 2, 4, priority=2))) == ["r"]
    assert victims(Cycle(made, Flat({"a": 3})).find(work("w", 2, 4, priority=2))) == ["r"]


def test_less_lost_work_then_fewer_pods_then_the_younger_then_the_key() -> None:
    made = world(2, per_node=2)
    run(made, work("old", 1, 2, admitted_at=0.0), (0, 1))
    run(made, work("kept", 1, 2, admitted_at=0.0, checkpointed_at=95.0), (1, 1))
    claimant = work("w", 1, 2, priority=1)
    assert victims(Cycle(made).find(claimant)) == ["kept"]
    run(made, work("kept", 2, 1, admitted_at=0.0), (1, 2))
    assert victims(Cycle(made).find(claimant)) == ["old"]
    run(made, work("kept", 1, 2, admitted_at=0.0), (1, 1))
    assert victims(Cycle(made).find(claimant)) == ["kept"]  # all alike: by key
    run(made, work("old", 1, 2, admitted_at=200.0), (0, 1))
    run(made, work("kept", 1, 2, admitted_at=150.0), (1, 1))
    assert victims(Cycle(made).find(claimant)) == ["old"]  # neither has lost anything: the younger


def test_those_furthest_above_their_share_go_first() -> None:
    made = world(3, names="abc")
    run(made, work("b1", 1, 4, tenant="b", admitted_at=1.0), (0, 1))
    run(made, work("c1", 1, 4, tenant="c", admitted_at=1.0), (1, 1))
    run(made, work("c2", 1, 4, tenant="c", admitted_at=1.0), (2, 1))
    assert victims(Cycle(made, Flat({"a": 4})).find(work("w", 1, 4))) in (["c1"], ["c2"])


def test_a_whole_gang_goes_wherever_it_runs() -> None:
    made = world(3)
    run(made, work("gang", 3, 4), (0, 1), (1, 1), (2, 1))
    found = Cycle(made).find(work("w", 1, 4, priority=1))
    assert victims(found) == ["gang"]
    assert found is not None
    assert found.victims[0].devices == 12


def test_a_required_domain_is_freed_where_that_is_cheapest() -> None:
    made = world(4, racks=2)
    for node, priority in enumerate([3, 0, 1, 1]):
        run(made, work(f"r{node}", 1, 4, priority=priority), (node, 1))
    found = Cycle(made).find(work("w", 2, 4, priority=9, required_topology="rack"))
    assert victims(found) == ["r2", "r3"]
    assert found is not None
    assert found.assignment == [(0, 2, 1), (0, 3, 1)]


def test_an_elastic_gang_is_shrunk_rather_than_another_evicted() -> None:
    made = world(3)
    elastic = replace(work("e", 2, 4), pod_sets=(PodSet("main", 2, {"cpu": 100, GPU: 4}, min_count=1),))
    run(made, elastic, (0, 1), (1, 1))
    run(made, work("r", 1, 4), (2, 1))
    cycle = Cycle(made)
    found = cycle.find(work("w", 1, 4, priority=1))
    assert found is not None
    assert found.victims == ()
    (shrink,) = found.shrinks
    assert (shrink.workload, shrink.devices) == ("x/e", 4)
    assert shrink.placements == (("main", "n00", 1),)
    assert shrink.dropped == (("main", "n01", 1),)
    run(made, work("r", 1, 4, checkpointed_at=50.0), (2, 1))
    cycle = Cycle(made)
    assert victims(cycle.find(work("v", 2, 4, priority=1))) == ["r"]
    assert victims(cycle.find(work("u", 3, 4, priority=1))) == ["e", "r"]


def test_a_limit_of_its_own_tenant_is_met_by_its_own_work_wherever_it_runs() -> None:
    made = world(3)
    run(made, work("low", 1, 4, priority=0), (0, 1))
    run(made, work("other", 1, 4, tenant="b", priority=0), (1, 1))
    cycle = Cycle(made)
    claimant = work("w", 1, 4, priority=1)
    assert victims(cycle.find(claimant)) == []  # there is room
    assert victims(cycle.find(claimant, short=(Shortfall(CLASS, 3, frozenset("a")),))) == ["low"]
    assert cycle.find(claimant, short=(Shortfall(CLASS, 5, frozenset("a")),)) is None


def test_budgets_of_the_plan_and_of_a_tenant_hold() -> None:
    made = world(2, names="abc")
    for node in range(2):
        for index in range(4):
            run(made, work(f"{node}{index}", 1, 1, tenant="bc"[node], admitted_at=float(node)), (node, 1))
    claimant = work("w", 1, 4)
    rights = {"a": 4}
    assert len(victims(Cycle(made, Flat(rights)).find(claimant))) == 4
    assert Cycle(made, Flat(rights), budget=Budget(per_cycle=3)).find(claimant) is None
    for tenant, spared in ("b", "0"), ("c", "1"):
        found = Cycle(made, Flat(rights), budget=Budget(per_tenant={tenant: 3})).find(claimant)
        assert all(not name.startswith(spared) for name in victims(found))


def test_few_large_victims_are_taken_when_many_small_ones_exceed_the_budget() -> None:
    made = world(2)
    for index in range(4):
        run(made, work(f"s{index}", 1, 1, admitted_at=99.0), (0, 1))
    run(made, work("large", 1, 4, admitted_at=1.0), (1, 1))
    claimant = work("w", 1, 4, priority=1)
    assert len(victims(Cycle(made).find(claimant))) == 4
    assert victims(Cycle(made, budget=Budget(per_cycle=2)).find(claimant)) == ["large"]


def test_a_second_claim_of_a_plan_neither_takes_the_room_of_the_first_nor_a_victim_twice() -> None:
    made = world(2)
    run(made, work("r0", 1, 4), (0, 1))
    run(made, work("r1", 1, 4), (1, 1))
    cycle = Cycle(made)
    chosen = []
    for name in ("w0", "w1"):
        claimant = work(name, 1, 3, priority=1)
        found = cycle.find(claimant)
        chosen.append(victims(found))
        assert found is not None
        cycle.candidates.commit(cycle.claim(claimant), found)
    assert sorted(itertools.chain(*chosen)) == ["r0", "r1"]
    left = cycle.find(work("w2", 2, 1, priority=1))
    assert left is not None
    assert (left.victims, left.assignment) == ((), [(0, 0, 1), (0, 1, 1)])
    assert cycle.find(work("w3", 1, 2, priority=1)) is None
    assert cycle.candidates.disruptions == 2


def test_a_gang_that_has_given_up_pods_before_has_only_the_others_to_lose() -> None:
    made = world(2)
    one = replace(work("e", 2, 4), pod_sets=(PodSet("main", 2, {"cpu": 100, GPU: 4}, min_count=1),))
    run(made, one, (0, 1), (1, 1), admitted_at=0.0)
    cycle = Cycle(made, now=10.0)
    lost = []
    for name in ("w0", "w1"):
        claimant = work(name, 1, 4, priority=1)
        found = cycle.find(claimant)
        assert found is not None
        cycle.candidates.commit(cycle.claim(claimant), found)
        lost += [(gone.devices, getattr(gone, "lost", None)) for gone in (*found.shrinks, *found.victims)]
    assert lost == [(4, None), (4, 40.0)]


def test_shares_of_devices_evict_nobody() -> None:
    made = world(1)
    run(made, work("r", 1, 4), (0, 1))
    share = replace(work("w", 1, 1, priority=1), pod_sets=(PodSet("main", 1, {GPU: 1}, milli=500),))
    assert Cycle(made).find(share) is None


RUNNING = st.lists(
    st.tuples(
        st.sampled_from("ab"),
        st.integers(0, 2),  # priority
        st.lists(st.tuples(st.integers(0, 3), st.integers(1, 2)), min_size=1, max_size=2, unique_by=lambda at: at[0]),
        st.integers(1, 3),  # devices a pod
        st.integers(0, 3),  # admitted at
        st.booleans(),
    ),
    max_size=7,
)


def populate(made: Fleet, running: list) -> None:
    for index, (tenant, priority, at, devices, admitted, preemptible) in enumerate(running):
        free = {node: 4 - used_on(made, node) for node, _ in at}
        if any(free[node] < pods * devices for node, pods in at):
            continue
        count = sum(pods for _, pods in at)
        one = work(f"r{index}", count, devices, tenant=tenant, priority=priority, preemptible=preemptible)
        run(made, one, *at, admitted_at=float(admitted))


def used_on(made: Fleet, node: int) -> int:
    row, column = made.table.rows[f"n{node:02}"], made.table.column(GPU)
    return int(made.table.used[row, column])


def fits_without(made: Fleet, gone: frozenset[str], claimant: WorkloadState) -> bool:
    kept = world(4, racks=2)
    for key, workload in made.workloads.items():
        if key not in gone:
            kept.upsert_workload(workload)
    cycle = Cycle(kept)
    supply = cycle.supply.pools["h200"]
    return supply.place(cycle.ask(claimant), supply.ready) is not None


@given(
    RUNNING, st.integers(1, 3), st.integers(1, 4), st.integers(0, 3), st.sampled_from(["", "rack"]), st.integers(0, 16)
)
def test_a_set_suffices_is_minimal_and_is_found_whenever_there_is_one(
    running: list, count: int, devices: int, priority: int, level: str, nominal: int
) -> None:
    made = world(4, racks=2)
    populate(made, running)
    claimant = work("w", count, devices, priority=priority, required_topology=level)
    cycle = Cycle(made, Flat({"a": nominal, "b": nominal}))
    found = cycle.find(claimant)
    may = {
        key
        for key, workload in made.workloads.items()
        if workload.preemptible and allowed(made, workload, claimant, nominal)
    }
    if found is None:
        assert not fits_without(made, frozenset(may), claimant)
        return
    gone = frozenset(one.workload for one in found.victims)
    assert gone <= may
    assert fits_without(made, gone, claimant)
    for one in gone:
        assert not fits_without(made, gone - {one}, claimant)


def allowed(made: Fleet, victim: WorkloadState, claimant: WorkloadState, nominal: int) -> bool:
    """The rules once more, in words as plain as can be."""

    def devices(one: WorkloadState) -> int:
        return one.pod_sets[0].count * amount(one.pod_sets[0].requests)

    def guaranteed(tenant: str, extra: WorkloadState | None = None) -> set[str]:
        line = [one for one in made.workloads.values() if one.tenant == tenant]
        line.sort(key=lambda one: (-one.priority, one.admitted_at, one.key))
        if extra is not None:
            line = [one for one in line if one.priority >= extra.priority] + [extra]
        inside: set[str] = set()
        left = nominal
        for one in line:
            if devices(one) <= left:
                left -= devices(one)
                inside.add(one.key)
        return inside

    borrowed = victim.key not in guaranteed(victim.tenant)
    if victim.tenant == claimant.tenant:
        mine = claimant.key in guaranteed(claimant.tenant, claimant)
        return victim.priority < claimant.priority and (mine or borrowed)
    used = sum(devices(one) for one in made.workloads.values() if one.tenant == claimant.tenant)
    return borrowed and used + devices(claimant) <= nominal


def amount(requests: Resources) -> int:
    return requests[GPU]


@settings(max_examples=40, deadline=None)
@given(RUNNING, st.integers(1, 3), st.integers(1, 4))
def test_equal_fleets_give_equal_sets_in_whatever_order_they_came_to_be(
    running: list, count: int, devices: int
) -> None:
    first, second = world(4, racks=2), world(4, racks=2)
    populate(first, running)
    for key in sorted(first.workloads, reverse=True):
        second.upsert_workload(first.workloads[key])
    claimant = work("w", count, devices, priority=2)
    one, two = Cycle(first), Cycle(second)
    assert _outcome(one.find(claimant)) == _outcome(two.find(claimant))


def _outcome(found: Preemption | None) -> object:
    return None if found is None else (found.victims, found.shrinks, found.assignment, found.cost)


def test_the_supply_is_as_before_after_a_search() -> None:
    made = world(4, racks=2)
    run(made, work("r", 4, 4), (0, 1), (1, 1), (2, 1), (3, 1))
    cycle = Cycle(made)
    before = cycle.supply.pools["h200"].free.copy()
    assert cycle.find(work("w", 1, 4, priority=1)) is not None
    assert (cycle.supply.pools["h200"].free == before).all()
    assert isinstance(cycle.supply, Supply)


def test_of_an_organisation_no_more_is_reclaimed_than_it_borrows_together() -> None:
    """Its teams have no nominal of their own and use what the organisation has, and 4 devices beyond."""
    made = world(4, names="")
    for name, parent, nominal in ("org", "", 8), ("left", "org", 0), ("right", "org", 0), ("w", "", 12):
        made.upsert_tenant(TenantState(name, parent=parent, quota={CLASS: ClassQuota(nominal, 100)}))
    for node, owner in enumerate(["left", "right", "left"]):
        run(made, work(f"r{node}", 1, 4, tenant=owner, admitted_at=float(node)), (node, 1))
    run(made, work("other", 1, 4, tenant="w", preemptible=False), (3, 1))
    ledger = Ledger(made.tenants.values(), {(name, CLASS): used for name, used in used_by(made).items()}, {CLASS: 20})

    def find(count: int) -> Preemption | None:
        cycle = Cycle(made)
        rights = Rights(ledger.as_scratch(100.0), made.tenants)
        candidates = Candidates(cycle.running, cycle.rooms, rights, 100.0)
        return candidates.find(cycle.claim(work("c", count, 4, tenant="w")), ["h200"])

    assert len(victims(find(1))) == 1
    assert find(2) is None
