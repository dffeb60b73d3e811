"""Quota over a forest of tenants: kept up to date step by step, it says what working it out from scratch says."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from scheduler import ClassQuota, TenantState
from scheduler.queueing.entitlements import Entitlements
from scheduler.queueing.forest import ROOT
from tests.unit.scheduler.cohort_oracle import Oracle

NAMES = tuple("abcdefg")
CLASSES = ("H100", "H200")
NAME = st.sampled_from(NAMES)
CLASS = st.sampled_from(CLASSES)
FEW = st.integers(0, 8)
QUOTA = st.dictionaries(CLASS, st.builds(ClassQuota, FEW, FEW, st.none() | FEW), max_size=2)


class Tenants(RuleBasedStateMachine):
    """Tenants come, change, go and use; every question is put to both."""

    def __init__(self) -> None:
        super().__init__()
        self.real = Entitlements()
        self.plain = Oracle()

    @rule(name=NAME, parent=NAME | st.sampled_from([ROOT, "missing"]), quota=QUOTA, weight=st.integers(1, 3))
    def put(self, name: str, parent: str, quota: dict[str, ClassQuota], weight: int) -> None:
        tenant = TenantState(name, weight, quota, parent=parent)
        self.real.upsert_tenant(tenant)
        self.plain.tenants[name] = tenant

    @rule(name=NAME, parent=NAME)
    def put_under(self, name: str, parent: str) -> None:
        old = self.plain.tenants.get(name)
        if old is not None:
            self.put(name, parent, dict(old.quota), old.weight)

    @rule(name=NAME)
    def remove(self, name: str) -> None:
        self.real.remove_tenant(name)
        self.plain.tenants.pop(name, None)

    @rule(accelerator=CLASS, devices=st.none() | st.integers(0, 60))
    def capacity(self, accelerator: str, devices: int | None) -> None:
        self.real.set_capacity(accelerator, devices)
        self.plain.capacity.pop(accelerator, None)
        if devices is not None:
            self.plain.capacity[accelerator] = devices

    @rule(name=NAME, accelerator=CLASS, devices=st.integers(-6, 12))
    def charge(self, name: str, accelerator: str, devices: int) -> None:
        held = self.plain.used(name, accelerator)
        if held + devices < 0:
            with pytest.raises(ValueError, match=f"tenant {name} holds {held} {accelerator} and cannot"):
                self.real.charge(name, accelerator, devices)
            devices = -held
        self.real.charge(name, accelerator, devices)
        self.plain.usage[name, accelerator] = held + devices

    @rule(charges=st.lists(st.tuples(NAME, CLASS, st.integers(0, 6)), max_size=5), name=NAME, accelerator=CLASS)
    def plan(self, charges: list[tuple[str, str, int]], name: str, accelerator: str) -> None:
        """A plan charges a scratch, tries more and takes that back."""
        scratch, plain = self.real.as_scratch(), self.plain
        for one, other, devices in charges:
            scratch.charge(one, other, devices)
            plain = plain.with_use(one, other, devices)
        before = scratch.path(name, accelerator, 1), scratch.available(name, accelerator)
        assert before[1] == plain.available(name, accelerator)
        mark = scratch.mark()
        for one, other, devices in charges:
            scratch.charge(one, other, devices)
            inner = scratch.mark()
            scratch.charge(name, accelerator, 3)
            scratch.rollback(inner)
        for one, other, devices in charges:
            scratch.charge(one, other, -2 * devices)
        scratch.rollback(mark)
        assert (scratch.path(name, accelerator, 1), scratch.available(name, accelerator)) == before

    @rule(name=NAME, accelerator=CLASS, wanted=st.integers(0, 12))
    def may_it(self, name: str, accelerator: str, wanted: int) -> None:
        refused = self.real.refuse(name, accelerator, wanted)
        assert (refused is None) == self.plain.allowed(name, accelerator, wanted)
        assert refused is None or (name in refused.message and refused.nearest)
        assert self.real.available(name, accelerator) == self.plain.available(name, accelerator)

    @rule(name=NAME, other=NAME, accelerator=CLASS, wanted=st.integers(0, 6))
    def may_it_reclaim(self, name: str, other: str, accelerator: str, wanted: int) -> None:
        may = self.real.may_reclaim_from(name, other, accelerator, wanted)
        assert may == self.plain.may_reclaim(name, other, accelerator, wanted)
        assert not (may and self.real.may_reclaim_from(other, name, accelerator))

    @rule(name=NAME, accelerator=CLASS, wanted=st.integers(0, 6))
    def whose_turn(self, name: str, accelerator: str, wanted: int) -> None:
        path = self.plain.path(name, accelerator, wanted, CLASSES)
        assert self.real.path(name, accelerator, wanted) == pytest.approx(path)
        if wanted and name in self.plain.tenants and self.plain.tenants[name].quota:
            every = [self.real.path(name, one, wanted) for one in self.plain.tenants[name].quota]
            assert self.real.path(name, "", wanted) == min(every)

    @invariant()
    def sums_agree(self) -> None:
        accounts = self.real._accounts
        for accelerator in CLASSES:
            for name in (*NAMES, ROOT):
                at = (name, accelerator)
                assert accounts.quota.get(at, 0) == self.plain.quota(name, accelerator)
                assert accounts.held[at][1] == self.plain.counted(name, accelerator)
                assert accounts.held[at][2] == self.plain.used_below(name, accelerator)

    @invariant()
    def parents_agree_and_trouble_is_told(self) -> None:
        troubled = set()
        for name, tenant in self.plain.tenants.items():
            assert list(self.real.ancestry(name)) == self.plain.ancestry(name)
            if self.plain.cycle(name) or (tenant.parent and tenant.parent not in self.plain.tenants):
                troubled.add(name)
        assert set(self.real.problems()) == troubled


def test_step_by_step_equals_from_scratch() -> None:
    run_state_machine_as_test(
        Tenants,
        settings=settings(
            max_examples=50, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )


@pytest.mark.campaign
def test_step_by_step_equals_from_scratch_for_long() -> None:
    run_state_machine_as_test(
        Tenants,
        settings=settings(
            max_examples=2000, stateful_step_count=80, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
