"""Turns are taken as a plain search for the smallest would take them, and heads of lines stay those of the lines."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from scheduler import TenantState
from scheduler.fleet import Fleet
from scheduler.fleet.backlog import Lines
from scheduler.queueing.order import Turns
from tests.unit.scheduler.fleets import job

FEW = st.integers(0, 4)
NAMES = "abc"


class Counted:
    """The tenant that has taken fewer devices goes first."""

    def __init__(self) -> None:
        self.taken: Counter[str] = Counter()

    def ranked(self, tenants):
        return iter(sorted(((0,), tenant) for tenant in tenants))

    def floor(self, tenant):
        return (self.taken[tenant],)

    def after(self, tenant, shape):
        return (self.taken[tenant] + shape.pod_sets[0].count,)


class AllOpen:
    any_left = True

    def live(self, tenant, shapes):
        return set(shapes)

    def closed(self, tenant, shape):
        return False

    def turn(self, workload):
        return workload.checks_passed


@given(st.lists(st.tuples(st.sampled_from(NAMES), st.integers(1, 3), FEW, st.booleans()), max_size=14))
def test_each_turn_is_that_of_the_smallest_share_and_the_oldest(jobs) -> None:
    made, order = Fleet(), Counted()
    for name in NAMES:
        made.upsert_tenant(TenantState(name))
    for index, (tenant, count, created, passed) in enumerate(jobs):
        one = job(f"j{index}", count, tenant=tenant, created_at=float(created), checks_passed=passed)
        made.upsert_workload(one)
    left = {one.key: one for one in made.pending.values() if one.checks_passed}
    for turn in Turns(made, order, AllOpen()):
        heads = {}
        for one in sorted(left.values(), key=lambda one: (one.created_at, one.key)):
            heads.setdefault(one.tenant, one)
        expected = min(
            heads.values(), key=lambda one: (order.after(one.tenant, one), one.created_at, one.key, one.tenant)
        )
        assert turn.key == expected.key
        order.taken[turn.tenant] += turn.pod_sets[0].count
        del left[turn.key]
    assert not left


@given(st.lists(st.tuples(st.booleans(), FEW, FEW), max_size=30))
def test_heads_are_the_oldest_of_each_line(events) -> None:
    lines, held = Lines(), set()
    for comes, shape, created in events:
        entry = (float(created), f"j{created}")
        if comes and (shape, entry) not in held:
            lines.put(shape, entry)
            held.add((shape, entry))
        elif not comes and (shape, entry) in held:
            lines.take(shape, entry)
            held.discard((shape, entry))
        oldest = {one: min(entry for at, entry in held if at == one) for one, _ in held}
        assert lines.heads() == sorted((entry, one) for one, entry in oldest.items())
