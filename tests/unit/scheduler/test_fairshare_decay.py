"""Use that fades: exact however seldom it is worked out, for tenants and for whole subtrees."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler import ClassQuota, TenantState
from scheduler.queueing.decay import HALF_LIFE, DecayedUsage
from scheduler.queueing.entitlements import Entitlements
from scheduler.queueing.forest import ROOT

STEPS = st.lists(st.tuples(st.floats(0, 3e4), st.integers(0, 500)), min_size=1, max_size=12)


def integral(steps: list[tuple[float, int]], half_life: float, points: int = 2000) -> float:
    """The weighted mean by numeric integration (midpoints): each moment weighs ln2/h · 2^(-age/h), what was before is 0."""
    age, total = sum(seconds for seconds, _ in steps), 0.0
    for seconds, devices in steps:
        ages = age - (np.arange(points) + 0.5) * (seconds / points)
        total += devices * float((np.log(2) / half_life * 0.5 ** (ages / half_life)).sum()) * (seconds / points)
        age -= seconds
    return total


@settings(deadline=None)
@given(STEPS, st.floats(600, 1e5))
def test_the_value_is_the_integral(steps, half_life: float) -> None:
    used, now = DecayedUsage(), 0.0
    for seconds, devices in steps:
        used = used.changed(now, devices, half_life)
        now += seconds
    assert used.at(now, half_life) == pytest.approx(integral(steps, half_life), abs=0.02)


@settings(deadline=None)
@given(st.floats(0, 1000), st.integers(0, 500), st.floats(1, 1e5), st.integers(1, 40))
def test_sampling_often_gives_what_one_step_gives(value: float, devices: int, seconds: float, samples: int) -> None:
    """Kueue's recurrence, usage = (1-A)·previous + A·current, at any sampling interval."""
    sampled = value
    for _ in range(samples):
        part = 1 - 0.5 ** (seconds / samples / HALF_LIFE)
        sampled = (1 - part) * sampled + part * devices
    assert DecayedUsage(value, devices, 50.0).at(50.0 + seconds) == pytest.approx(sampled)


def test_half_is_left_after_a_half_life_and_a_clock_set_back_fades_nothing() -> None:
    used = DecayedUsage(8.0, 0, 100.0)
    assert used.at(100.0 + HALF_LIFE) == 4.0
    assert used.at(0.0) == 8.0
    assert used.changed(0.0, 3) == DecayedUsage(8.0, 3, 100.0)


@settings(deadline=None)
@given(st.floats(0, 1e6), st.integers(0, 1000), st.floats(0, 2e9), st.floats(0, 1e6))
def test_it_survives_a_restart(value: float, devices: int, since: float, later: float) -> None:
    """To a thousandth of a device and half a second."""
    used = DecayedUsage(value, devices, since)
    wire = used.wire()
    assert all(isinstance(one, int) for one in wire.values())
    back = DecayedUsage.read(wire)
    slope = abs(value - devices) * np.log(2) / HALF_LIFE
    assert back.at(since + later) == pytest.approx(used.at(since + later), abs=0.001 + 0.501 * slope)


EVENTS = st.lists(
    st.tuples(
        st.sampled_from("abcd"),
        st.sampled_from(["charge", "move", "remove"]),
        st.integers(-8, 12),
        st.sampled_from([ROOT, "a", "b", "c", "d"]),
        st.floats(0, 2e4),
    ),
    max_size=20,
)


@settings(max_examples=60, deadline=None)
@given(EVENTS)
def test_a_subtree_fades_as_its_tenants_do(events) -> None:
    """The share that a parent used is the sum of those under it, whoever moved when."""
    real = Entitlements([TenantState(name, 1) for name in "abcd"], capacity={"H200": 1000}, half_life=HALF_LIFE)
    plain = {name: DecayedUsage() for name in "abcd"}
    now = 0.0
    for name, what, devices, parent, seconds in events:
        now += seconds
        devices = max(devices, -plain[name].current)
        if name not in real.tenants:
            real.upsert_tenant(TenantState(name, 1))
        elif what == "charge" and devices:
            real.charge(name, "H200", devices, now)
            plain[name] = plain[name].changed(now, plain[name].current + devices)
        elif what == "move":
            real.upsert_tenant(TenantState(name, 1, {"H200": ClassQuota(abs(devices), 0, 1)}, parent=parent))
        elif what == "remove" and plain[name].current == 0:
            real.remove_tenant(name)
            plain[name] = DecayedUsage()
    real.now = now
    for name in real.tenants:
        assert real.decayed(name, "H200") == pytest.approx(plain[name].at(now), abs=1e-6)
        total = sum(plain[one].at(now) for one in real.tenants if name in real.ancestry(one))
        assert real.share(name)[1] * 1000 == pytest.approx(total, abs=1e-6)


def test_who_used_much_lately_goes_behind_who_did_not() -> None:
    tenants = [TenantState(name, quota={"H200": ClassQuota(50)}) for name in "ab"]
    real = Entitlements(tenants, {("a", "H200"): 20}, {"H200": 100}, half_life=HALF_LIFE, now=0.0)
    real.charge("a", "H200", -20, HALF_LIFE)
    real.charge("b", "H200", 4, HALF_LIFE)
    soon, late = real.as_scratch(HALF_LIFE), real.as_scratch(6 * HALF_LIFE)
    assert soon.decayed("a", "H200") == 10.0
    assert soon.path("b", "H200", 1) < soon.path("a", "H200", 1)
    assert late.path("a", "H200", 1) < late.path("b", "H200", 1)


def test_what_a_plan_gives_counts_in_full_so_that_tenants_still_take_turns() -> None:
    tenants = [TenantState(name, quota={"H200": ClassQuota(50)}) for name in "ab"]
    scratch = Entitlements(tenants, {}, {"H200": 100}, half_life=HALF_LIFE).as_scratch(1.0)
    taken = []
    for _ in range(6):
        taken.append(min("ab", key=lambda name: (scratch.path(name, "H200", 4), name)))
        scratch.charge(taken[-1], "H200", 4)
    assert taken == ["a", "b", "a", "b", "a", "b"]


@pytest.mark.parametrize("books_first", [True, False])
def test_past_use_is_taken_in_again_after_a_restart(books_first: bool) -> None:
    """In whatever order tenants, their parents and what they hold come to be known again."""
    tenants = [TenantState("a", quota={"H200": ClassQuota(50)}, parent="org"), TenantState("org")]
    first = Entitlements(tenants, {}, {"H200": 100}, half_life=HALF_LIFE)
    first.charge("a", "H200", 8, 1000.0)
    first.charge("a", "H200", -2, 9000.0)
    again = Entitlements((), {}, {"H200": 100}, half_life=HALF_LIFE)
    if books_first:
        again.charge("a", "H200", 6, 20_000.0)
    again.remember("a", first.remembered("a"), 20_000.0)
    for tenant in tenants:
        again.upsert_tenant(tenant)
    if not books_first:
        again.charge("a", "H200", 6, 20_000.0)
    for one in (first, again):
        one.now = 30_000.0
    assert again.decayed("a", "H200") == pytest.approx(first.decayed("a", "H200"), abs=0.001)
    for name in ("a", "org"):
        assert again.share(name) == pytest.approx(first.share(name), abs=1e-5)


def test_without_a_half_life_past_use_is_not_taken_in() -> None:
    plain = Entitlements([TenantState("a")], {("a", "H200"): 6})
    plain.remember("a", {"H200": {"milliDevices": 9000, "held": 9, "since": 5}}, 7.0)
    assert (plain.remembered("a"), plain.decayed("a", "H200")) == ({}, 6.0)
