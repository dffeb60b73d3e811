"""Up to its nominal a tenant always gets there, by reclaiming from those who borrow; turns go by shares."""

from __future__ import annotations

from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler import ClassQuota, TenantState
from scheduler.queueing.entitlements import Entitlements
from tests.unit.scheduler.cohort_oracle import Oracle

NAMES = tuple("abcdef")
FEW = st.integers(0, 6)
FOREST = st.tuples(
    *[
        st.tuples(st.sampled_from(["", *NAMES[:index]]), st.integers(1, 4), FEW, FEW, st.none() | FEW)
        for index in range(len(NAMES))
    ]
)
USES = st.tuples(*[st.integers(0, 12) for _ in NAMES])


def build(forest, spare: int) -> Entitlements:
    """One class whose capacity covers all nominals, and `spare` devices."""
    tenants = [
        TenantState(name, weight, {"H200": ClassQuota(nominal, borrow, lend)}, parent=parent)
        for name, (parent, weight, nominal, borrow, lend) in zip(NAMES, forest, strict=True)
    ]
    capacity = sum(nominal for _, _, nominal, _, _ in forest) + spare
    return Entitlements(tenants, {}, {"H200": capacity})


def room(now: Entitlements, capacity: int) -> int:
    return capacity - sum(now.used(name, "H200") for name in NAMES)


def reclaim(now: Entitlements, tenant: str, wanted: int, capacity: int) -> list[str]:
    """From whom a device was taken, one after the other, until `wanted` fit."""
    taken: list[str] = []
    while now.refuse(tenant, "H200", wanted) is not None or room(now, capacity) < wanted:
        victims = [other for other in NAMES if now.may_reclaim_from(tenant, other, "H200", wanted)]
        assert victims, "a tenant within its nominal finds nobody to reclaim from"
        assert all(now.excess(victim, "H200") > 0 for victim in victims)
        now.charge(victims[0], "H200", -1)
        taken.append(victims[0])
    return taken


@settings(max_examples=60, deadline=None)
@given(FOREST, USES, st.integers(0, 6))
def test_nominal_is_always_within_reach(forest, uses, spare: int) -> None:
    """Whatever is in use, also more than any quota allows, as after quotas were lowered."""
    for tenant in NAMES:
        now = build(forest, spare).as_scratch()
        for name, devices in zip(NAMES, uses, strict=True):
            now.charge(name, "H200", devices)
        nominal = forest[NAMES.index(tenant)][2]
        capacity = sum(one[2] for one in forest) + spare
        missing = nominal - now.used(tenant, "H200")
        if missing <= 0:
            continue
        assert now.within_nominal(tenant, "H200", missing)
        before = {name: now.used(name, "H200") for name in NAMES}
        reclaim(now, tenant, missing, capacity)
        now.charge(tenant, "H200", missing)
        for name in NAMES:
            assert now.used(name, "H200") >= min(before[name], forest[NAMES.index(name)][2])
            assert not now.may_reclaim_from(name, tenant, "H200")


@settings(max_examples=60, deadline=None)
@given(FOREST, USES, st.integers(0, 3))
def test_who_may_reclaim_from_whom(forest, uses, wanted: int) -> None:
    """From those who borrow, at every level below where the two meet; never both ways."""
    now = build(forest, 2)
    plain = Oracle(dict(now.tenants), {(name, "H200"): used for name, used in zip(NAMES, uses, strict=True)})
    for (name, accelerator), devices in plain.usage.items():
        now.charge(name, accelerator, devices)
    for name, other in permutations(NAMES, 2):
        may = now.may_reclaim_from(name, other, "H200", wanted)
        assert may == plain.may_reclaim(name, other, "H200", wanted)
        assert not (may and now.may_reclaim_from(other, name, "H200"))
        if may and wanted and now.refuse(name, "H200", wanted) is None:
            assert now.entitled(name, "H200", wanted)


@settings(max_examples=40, deadline=None)
@given(FOREST, USES, st.integers(1, 4))
def test_who_is_entitled_gets_there_by_reclaim(forest, uses, wanted: int) -> None:
    """Also beyond its own nominal: those under one parent take back together what was lent of the parent's."""
    for tenant in NAMES:
        now = build(forest, 1).as_scratch()
        for name, devices in zip(NAMES, uses, strict=True):
            now.charge(name, "H200", devices)
        if now.entitled(tenant, "H200", wanted):
            reclaim(now, tenant, wanted, sum(one[2] for one in forest) + 1)
            assert now.refuse(tenant, "H200", wanted) is None


@settings(max_examples=50, deadline=None)
@given(FOREST, USES, st.integers(0, 6), st.lists(st.sampled_from(NAMES), max_size=30))
def test_after_one_round_of_reclaim_nobody_waits_below_nominal_and_nobody_is_evicted_again(
    forest, demands, spare: int, first_come
) -> None:
    """Tenants ask for single devices: first whoever comes, then all in their turns, reclaiming what is theirs."""
    now, capacity = build(forest, spare).as_scratch(), sum(one[2] for one in forest) + spare
    pending = dict(zip(NAMES, demands, strict=True))

    def admit(name: str) -> bool:
        if pending[name] == 0 or room(now, capacity) == 0 or now.refuse(name, "H200", 1) is not None:
            return False
        now.charge(name, "H200", 1)
        pending[name] -= 1
        return True

    for name in first_come:
        admit(name)
    evictions = 0
    for step in range(3):
        before = evictions
        for name in NAMES:
            while pending[name] and now.within_nominal(name, "H200", 1):
                for victim in reclaim(now, name, 1, capacity):
                    pending[victim] += 1
                    evictions += 1
                assert admit(name)
        while any(admit(name) for name in sorted(NAMES, key=lambda name: (now.path(name, "H200", 1), name))):
            pass
        if step:
            assert evictions == before
        for name in NAMES:
            assert not pending[name] or not now.within_nominal(name, "H200", 1)


@settings(max_examples=60, deadline=None)
@given(FOREST, USES, st.sampled_from(NAMES), st.integers(1, 5))
def test_a_key_only_grows_whoever_is_charged(forest, uses, who: str, devices: int) -> None:
    """So that an order may keep old keys and look again when one is on top."""
    now = build(forest, 3).as_scratch()
    for name, used in zip(NAMES, uses, strict=True):
        now.charge(name, "H200", used)
    before = {name: (now.path(name), now.path(name, "H200", 2)) for name in NAMES}
    assert all(now_ <= after for now_, after in before.values())
    now.charge(who, "H200", devices)
    for name in NAMES:
        assert before[name][0] <= now.path(name)
        assert before[name][1] <= now.path(name, "H200", 2)


@settings(max_examples=40, deadline=None)
@given(FOREST, USES, FOREST, st.sampled_from(NAMES), st.integers(10, 60))
def test_keys_are_those_from_scratch_also_after_tenants_and_capacity_changed(
    forest, uses, other, who: str, capacity: int
) -> None:
    """What was worked out before a change is asked for again after it."""
    now = build(forest, 2)
    plain = Oracle(dict(now.tenants), capacity={"H200": sum(one[2] for one in forest) + 2})
    for name, devices in zip(NAMES, uses, strict=True):
        now.charge(name, "H200", devices)
        plain.usage[name, "H200"] = devices

    def agree() -> None:
        for name in NAMES:
            assert now.path(name, "H200", 2) == pytest.approx(plain.path(name, "H200", 2, ("H200",)))

    agree()
    plain.tenants[who] = build(other, 0).tenants[who]
    now.upsert_tenant(plain.tenants[who])
    agree()
    now.set_capacity("H200", capacity)
    plain.capacity["H200"] = capacity
    agree()
    now.charge(who, "H200", 3)
    plain = plain.with_use(who, "H200", 3)
    agree()
    now.remove_tenant(who)
    del plain.tenants[who]
    agree()


def taken_in_turns(now: Entitlements, names: str, devices: int) -> dict[str, int]:
    """Who holds how many once `devices` have been given, one by one, to whoever's turn it is."""
    for _ in range(devices):
        turn = min(names, key=lambda name: (now.path(name, "H200", 1), name))
        assert now.refuse(turn, "H200", 1) is None
        now.charge(turn, "H200", 1)
    return {name: now.used(name, "H200") for name in names}


@settings(max_examples=8, deadline=None)
@given(st.lists(st.integers(1, 5), min_size=3, max_size=3), st.lists(st.integers(1, 5), min_size=3, max_size=3))
def test_what_is_borrowed_goes_by_weight_at_each_level(orgs: list[int], teams: list[int]) -> None:
    """Three organisations; that the first has three teams gives it no more than its weight."""
    quota = {"H200": ClassQuota(0, 1000)}
    tenants = [TenantState(name, weight, quota) for name, weight in zip("xyz", orgs, strict=True)]
    tenants += [TenantState(name, weight, quota, parent="x") for name, weight in zip("abc", teams, strict=True)]
    rounds = 4
    now = Entitlements(tenants, {}, {"H200": rounds * sum(orgs) * sum(teams)}).as_scratch()
    got = taken_in_turns(now, "abcyz", rounds * sum(orgs) * sum(teams))
    each = rounds * sum(teams)
    for name, weight in zip("yz", orgs[1:], strict=True):
        assert got[name] == pytest.approx(weight * each, abs=1)
    for name, weight in zip("abc", teams, strict=True):
        assert got[name] == pytest.approx(orgs[0] * each * weight / sum(teams), abs=2)


def test_who_is_within_nominal_goes_first_even_when_its_parent_borrows() -> None:
    tenants = [
        TenantState("org", quota={"H200": ClassQuota(0, 8)}),
        TenantState("idle", quota={"H200": ClassQuota(4)}, parent="org"),
        TenantState("busy", quota={"H200": ClassQuota(4, 12)}, parent="org"),
        TenantState("other", quota={"H200": ClassQuota(4, 12)}),
    ]
    now = Entitlements(tenants, {("busy", "H200"): 10, ("other", "H200"): 4}, {"H200": 30})
    assert now.path("other", "H200", 1)[1:3] < now.path("idle", "H200", 1)[1:3]  # org borrows more
    assert now.path("idle", "H200", 1) < now.path("other", "H200", 1)


def test_what_a_parent_lent_comes_back_to_those_under_it() -> None:
    """A parent's quota is a pool for its children: they take it back from outsiders, though each has none of its own."""
    tenants = [
        TenantState("org", quota={"H200": ClassQuota(8)}),
        TenantState("team", quota={"H200": ClassQuota(0, 8)}, parent="org"),
        TenantState("rest", quota={"H200": ClassQuota(0, 8)}, parent="org"),
        TenantState("other", quota={"H200": ClassQuota(4, 12)}),
    ]
    now = Entitlements(tenants, {("other", "H200"): 10, ("rest", "H200"): 2}, {"H200": 12})
    assert not now.within_nominal("team", "H200", 6)
    assert now.entitled("team", "H200", 6)
    assert now.may_reclaim_from("team", "other", "H200", 6)
    assert not now.entitled("team", "H200", 7)
    assert not now.may_reclaim_from("team", "rest", "H200", 6)
    assert not now.entitled("nobody", "H200", 1)


def test_the_parents_own_work_stands_beside_its_children() -> None:
    tenants = [
        TenantState("org", quota={"H200": ClassQuota(4)}),
        TenantState("team", quota={"H200": ClassQuota(4, 4)}, parent="org"),
    ]
    now = Entitlements(tenants, {("team", "H200"): 7}, {"H200": 8})
    assert now.excess("team", "H200") == 3
    assert now.may_reclaim_from("org", "team", "H200", 4)
    assert not now.may_reclaim_from("team", "org", "H200")
    assert now.path("org", "H200", 4) < now.path("team", "H200", 1)


def test_a_limit_in_between_is_not_helped_by_what_others_give_back() -> None:
    tenants = [
        TenantState("org", quota={"H200": ClassQuota(8)}),
        TenantState("group", quota={"H200": ClassQuota(0, 2)}, parent="org"),
        TenantState("team", quota={"H200": ClassQuota(0, 8)}, parent="group"),
        TenantState("other", quota={"H200": ClassQuota(0, 8)}),
    ]
    now = Entitlements(tenants, {("other", "H200"): 8}, {"H200": 8})
    assert now.entitled("team", "H200", 2)
    assert now.may_reclaim_from("team", "other", "H200", 2)
    assert not now.entitled("team", "H200", 3)
    assert not now.may_reclaim_from("team", "other", "H200", 3)
