"""What tenants are told, and what stays as it was for tenants that stand side by side."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler import ClassQuota, TenantState
from scheduler.queueing.entitlements import Entitlements
from tests.unit.scheduler import plain_quota

FEW = st.integers(0, 9)


def tenant(name: str, nominal: int, borrow: int = 0, lend: int | None = None, **over: Any) -> TenantState:
    return TenantState(name, quota={"H200": ClassQuota(nominal, borrow, lend)}, **over)


@settings(deadline=None)
@given(st.lists(st.tuples(FEW, FEW, FEW), min_size=1, max_size=4), FEW, st.integers(0, 20))
def test_side_by_side_and_lending_all_nominal_and_borrow_are_the_only_limit(flat, wanted: int, capacity: int) -> None:
    tenants = [tenant(f"t{index}", nominal, borrow) for index, (nominal, borrow, _) in enumerate(flat)]
    usage = {(f"t{index}", "H200"): min(used, nominal + borrow) for index, (nominal, borrow, used) in enumerate(flat)}
    made = Entitlements(tenants, usage, {"H200": capacity})
    for one in tenants:
        assert made.refuse(one.name, "H200", wanted) == plain_quota.refuse(one, "H200", wanted, usage)
        assert made.refuse(one.name, "H100", wanted) == plain_quota.refuse(one, "H100", wanted, usage)


@settings(deadline=None)
@given(FEW, FEW, st.integers(0, 12), st.integers(1, 12))
def test_what_is_kept_back_is_never_lent(nominal: int, lend: int, used: int, wanted: int) -> None:
    """A flat pair: the borrower gets at most what the other lends, and what belongs to nobody."""
    lend = min(lend, nominal)
    tenants = [tenant("lender", nominal, 0, lend), tenant("borrower", 2, 100)]
    made = Entitlements(tenants, {("borrower", "H200"): used}, {"H200": nominal + 5})
    lends_all = lend == nominal
    assert (made.refuse("borrower", "H200", wanted) is None) == (used + wanted <= (102 if lends_all else 2 + lend + 3))


def test_the_cohort_that_is_in_the_way_is_named_with_the_least_change() -> None:
    made = Entitlements(
        [tenant("org", 4, 2), tenant("team", 4, 20, parent="org"), tenant("peer", 4, 20, parent="org")],
        {("peer", "H200"): 9},
        {"H200": 40},
    )
    refused = made.refuse("team", "H200", 6)
    assert refused is not None
    assert refused.code == "CohortQuotaExceeded"
    assert refused.message == (
        "tenant team asks for 6 H200 more, and tenants under org use 9 of 14 (quota 12, borrow 2)"
    )
    assert refused.nearest.startswith("wait until 1 of them are free, or raise spec.quota[].nominal or borrow of H200")
    made.charge("peer", "H200", -1)
    assert made.refuse("team", "H200", 6) is None


def test_what_a_tenant_keeps_is_its_own_also_while_those_above_it_are_beyond_their_limit() -> None:
    made = Entitlements(
        [tenant("org", 0), tenant("team", 4, 9, 1, parent="org"), tenant("peer", 4, 9, parent="org")],
        {("peer", "H200"): 9},
        {"H200": 40},
    )
    assert made.refuse("team", "H200", 3) is None
    assert made.available("team", "H200") == 3
    assert made.refuse("team", "H200", 4).code == "CohortQuotaExceeded"  # type: ignore[union-attr]


def test_what_the_roots_do_not_lend_is_said() -> None:
    made = Entitlements([tenant("a", 10, 0, 3), tenant("b", 5, 20)], {("b", "H200"): 6}, {"H200": 16})
    refused = made.refuse("b", "H200", 5)
    assert refused is not None
    assert refused.code == "NothingToBorrow"
    assert "6 of the 9 for all tenants are in use, and 7 more are kept" in refused.message
    assert refused.nearest.startswith("wait until 2 borrowed H200 are given back")
    made.upsert_tenant(tenant("a", 10, 0, 5))
    assert made.refuse("b", "H200", 5) is None


def test_a_quota_below_its_use_takes_nothing_away_and_gives_nothing() -> None:
    made = Entitlements([tenant("a", 10)], {("a", "H200"): 10}, {"H200": 16})
    made.upsert_tenant(tenant("a", 6))
    refused = made.refuse("a", "H200", 1)
    assert refused is not None
    assert refused.code == "QuotaExceeded"
    assert "uses 10 H200 and may now use 6; what runs goes on" in refused.message
    assert (made.used("a", "H200"), made.excess("a", "H200"), made.available("a", "H200")) == (10, 4, 0)
    made.charge("a", "H200", -5)
    assert (made.refuse("a", "H200", 1), made.available("a", "H200")) == (None, 1)


def test_a_parent_that_is_missing_counts_as_none_until_it_comes() -> None:
    made = Entitlements([tenant("team", 2, 9, parent="org")], {}, {"H200": 20})
    assert "spec.parent of tenant team names org, which does not exist" in made.problems()["team"].message
    assert made.ancestry("team") == ("team",)
    made.upsert_tenant(tenant("org", 3))
    assert made.problems() == {}
    assert made.ancestry("team") == ("team", "org")
    assert made.available("team", "H200") == 5
    made.remove_tenant("org")
    assert made.available("team", "H200") == 11
    assert list(made.problems()) == ["team"]


@settings(deadline=None)
@given(st.permutations("abcd"))
def test_a_cycle_is_cut_at_the_same_place_whoever_came_first(order: list[str]) -> None:
    under = {"a": "c", "b": "a", "c": "b", "d": "b"}
    made = Entitlements([tenant(name, 1, parent=under[name]) for name in order])
    assert [made.ancestry(name) for name in "abcd"] == [("a",), ("b", "a"), ("c", "b", "a"), ("d", "b", "a")]
    assert list(made.problems()) == ["a", "b", "c"]
    message = made.problems()["b"].message
    assert message.endswith("a is taken to have no parent")
    assert "a under c under b under a" in message
    made.upsert_tenant(tenant("b", 1))
    assert made.problems() == {}
    assert made.ancestry("a") == ("a", "c", "b")


def test_strangers_and_tenants_that_went_with_work_still_running() -> None:
    made = Entitlements([tenant("a", 4), tenant("b", 4, 9, 1)], {("a", "H200"): 3}, {"H200": 9})
    assert made.refuse("x", "H200", 1).code == "TenantUnknown"  # type: ignore[union-attr]
    made.remove_tenant("a")
    assert made.used("a", "H200") == 3
    assert made.may_reclaim_from("b", "a", "H200", 4)
    assert made.path("a", "H200", 1)[0] == 1.0
    made.charge("a", "H200", -3)
    assert made.used("a", "H200") == 0
    assert (made.available("a", "H200"), made.share("x"), made.path("x")) == (0, (0.0, 0.0), (0.0, 0.0, 0.0))


def test_a_scratch_is_not_where_tenants_are_changed() -> None:
    scratch = Entitlements([tenant("a", 4)]).as_scratch()
    for call in (
        lambda: scratch.upsert_tenant(tenant("a", 5)),
        lambda: scratch.remove_tenant("a"),
        lambda: scratch.set_capacity("H200", 5),
        lambda: scratch.remember("a", {}, 0.0),
    ):
        with pytest.raises(TypeError, match="of a scratch: change the entitlements it was made from"):
            call()


def calls_to_build(tenants: int) -> int:
    """Calls of Python functions that making so many tenants, 25 under each organisation, takes."""
    made, count = Entitlements(capacity={"H200": 10**6}), 0

    def watch(_frame: object, event: str, _arg: object) -> None:
        nonlocal count
        count += event == "call"

    given_names = [f"t{index}" for index in range(tenants)]
    sys.setprofile(watch)
    try:
        for index, name in enumerate(given_names):  # organisations come last, after who names them
            made.upsert_tenant(tenant(name, 3, 5, 2, parent=f"org{index // 25}"))
        for index in range(tenants // 25):
            made.upsert_tenant(replace(tenant(f"org{index}", 1), parent=f"group{index % 3}"))
        for name in ("group0", "group1", "group2"):
            made.upsert_tenant(tenant(name, 0))
        for name in given_names:
            made.charge(name, "H200", 1)
    finally:
        sys.setprofile(None)
    assert made.used_below("group0", "H200") + made.used_below("group1", "H200") < tenants
    return count


def test_ten_times_the_tenants_at_once_cost_ten_times_as_much() -> None:
    assert calls_to_build(2_000) < 10.1 * calls_to_build(200)
