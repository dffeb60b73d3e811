"""Nothing is evicted in a circle: each cycle of a closed set of workloads makes (V, R, X) larger, and it comes to rest.

The potential is worked out here from the rule's words alone, see `scheduler.preemption`.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from scheduler import ClassQuota, Fleet, PodSet, TenantState, WorkloadState
from scheduler.preemption import Rights, ask_of, extend
from scheduler.preemption.elastic import largest
from scheduler.queueing.entitlements import Entitlements as Ledger
from scheduler.running.room import take
from tests.unit.scheduler.claims import CLASS, GPU, Cycle, Flat, world

NODES, PER_NODE = 4, 4
PRIORITIES = (2, 1, 0)
Potential = tuple[tuple[int, ...], tuple[int, ...], int]


def devices(workload: WorkloadState, pods: int) -> int:
    return pods * workload.pod_sets[0].requests[GPU]


def potential(made: Fleet, nominal: dict[str, int]) -> Potential:
    """Guaranteed workloads and running ones by priority, then the extra pods."""
    guaranteed: Counter[int] = Counter()
    running: Counter[int] = Counter()
    extra = 0
    for tenant, left in nominal.items():
        line = [one for one in made.workloads.values() if one.admitted and one.tenant == tenant]
        line.sort(key=lambda one: (-one.priority, one.admitted_at, one.key))
        for one in line:
            pods = sum(count for _, _, count in one.placements)
            least = one.pod_sets[0].min_count or one.pod_sets[0].count
            running[one.priority] += 1
            extra += pods - least
            if devices(one, least) <= left:
                left -= devices(one, least)
                guaranteed[one.priority] += 1
    return tuple(guaranteed[p] for p in PRIORITIES), tuple(running[p] for p in PRIORITIES), extra


def cycle(made: Fleet, rights: Flat, now: float) -> tuple[int, int]:
    """(started, evicted or shrunk). Whoever fits starts; whoever does not evicts, and starts when they are gone."""
    at = Cycle(made, rights, now)
    supply = at.supply.pools["h200"]
    started: list[tuple[WorkloadState, tuple[tuple[str, str, int], ...]]] = []
    gone: list[str] = []
    shrunk: dict[str, tuple[tuple[str, str, int], ...]] = {}
    for waiting in sorted(made.pending.values(), key=lambda one: (-one.priority, one.created_at, one.key)):
        ask = at.ask(waiting)
        free = largest(ask, lambda part: supply.place(part, supply.ready), supply.give_back, at.rooms["h200"].device)
        if free is not None:
            used, placed = free[0].devices, list(free[1])
        else:
            claim = at.claim(waiting)
            found = at.candidates.find(claim, ["h200"])
            if found is None:
                continue
            at.candidates.commit(claim, found)
            used, placed = ask.devices, found.assignment
            for victim in found.victims:
                gone.append(victim.workload)
                at.rights.used[victim.tenant] -= victim.devices
            for shrink in found.shrinks:
                shrunk[shrink.workload] = shrink.placements
                at.rights.used[shrink.tenant] -= shrink.devices
        at.rights.used[waiting.tenant] = at.rights.used.get(waiting.tenant, 0) + used
        started.append((waiting, tuple(sorted(("main", supply.names[row], count) for _, row, count in placed))))
    for key, placements in shrunk.items():
        made.upsert_workload(replace(made.workloads[key], placements=placements))
    for key in gone:
        made.upsert_workload(replace(made.workloads[key], admitted=False, placements=(), accelerator=""))
    for waiting, held in started:
        running = replace(waiting, admitted=True, accelerator=CLASS, admitted_at=now, placements=held)
        made.upsert_workload(running)
    if not started:
        grow(made, rights, now)
    return len(started), len(gone) + len(shrunk)


def grow(made: Fleet, rights: Flat, now: float) -> None:
    at = Cycle(made, rights, now)
    supply = at.supply.pools["h200"]
    for key in sorted(made.workloads):
        workload = made.workloads[key]
        ask = ask_of(at.supply, workload)
        if not workload.admitted or ask is None:
            continue
        more = extend(workload, ask, supply, at.rooms["h200"].device)
        if more is not None:
            take(supply, more.ask, more.assignment)
            made.upsert_workload(replace(workload, placements=workload.placements + more.added))


class AtRest(RuleBasedStateMachine):
    """Workloads come and end at any time; in between, cycles."""

    @initialize(nominal=st.tuples(*[st.integers(0, 8)] * 3), cohort=st.booleans())
    def start(self, nominal: tuple[int, int, int], cohort: bool) -> None:
        self.fleet = world(NODES, PER_NODE, racks=2, names="abc")
        self.nominal = dict(zip("abc", nominal, strict=True))
        self.rights = Flat(self.nominal, cohort=cohort)
        self.now, self.made, self.named = 0.0, 0, 0

    @precondition(lambda self: self.made < 12)
    @rule(seed=st.integers(0, 2**32), many=st.integers(2, 5))
    def arrive(self, seed: int, many: int) -> None:
        # Drawn evenly: small values, which Hypothesis prefers, leave room, and nobody has to go.
        rng = random.Random(seed)
        for _ in range(many):
            count, each = rng.randint(1, 5), rng.randint(1, 4)
            pods = PodSet("main", count, {"cpu": 100, GPU: each}, min_count=rng.choice([0, 0, rng.randrange(count)]))
            name, tenant = f"w{self.named:03}", rng.choice("abc")
            one = WorkloadState(f"x/{name}", name, tenant, self.now, (pods,), rng.choice(PRIORITIES))
            level, preemptible = rng.choice(["", "", "rack"]), rng.random() < 0.8
            self.fleet.upsert_workload(replace(one, required_topology=level, preemptible=preemptible))
            self.named += 1
            self.made += 1

    @precondition(lambda self: any(one.admitted for one in self.fleet.workloads.values()))
    @rule(which=st.integers(0, 99))
    def end(self, which: int) -> None:
        running = sorted(key for key, one in self.fleet.workloads.items() if one.admitted)
        self.fleet.remove_workload(running[which % len(running)])
        self.made -= 1

    @rule()
    def one_cycle(self) -> None:
        self.step()

    @rule()
    def until_rest(self) -> None:
        for _ in range(60):
            if not self.step():
                return
        raise AssertionError("no rest after 60 cycles")

    def step(self) -> bool:
        """Whether anything changed; the potential has grown then."""
        before, held = potential(self.fleet, self.nominal), dict(self.fleet.workloads)
        self.now += 1.0
        cycle(self.fleet, self.rights, self.now)
        assert (self.fleet.table.used <= self.fleet.table.allocatable).all()
        if self.fleet.workloads == held:
            return False
        assert potential(self.fleet, self.nominal) > before
        return True


def explore(examples: int, steps: int) -> None:
    run_state_machine_as_test(
        AtRest,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


class Ledgers:
    """The real ledger, with parents, made anew whenever `used` has changed."""

    def __init__(self, tenants: dict[str, TenantState]) -> None:
        self._tenants, self.used = tenants, {}
        self._known: tuple[dict[str, int], Rights] | None = None

    def __getattr__(self, name: str) -> object:
        if self._known is None or self._known[0] != self.used:
            used = {(tenant, CLASS): devices for tenant, devices in self.used.items() if devices}
            ledger = Ledger(self._tenants.values(), used, {CLASS: NODES * PER_NODE})
            self._known = dict(self.used), Rights(ledger.as_scratch(0.0), self._tenants)
        return getattr(self._known[1], name)


def cycles_until_rest(seed: int) -> int:
    """Two organisations of two teams each and one tenant beside them."""
    rng = random.Random(seed)
    made, tenants = world(NODES, PER_NODE, racks=2, names=""), {}
    for name, parent in ("P", ""), ("Q", ""), ("p1", "P"), ("p2", "P"), ("q1", "Q"), ("q2", "Q"), ("c", ""):
        quota = {CLASS: ClassQuota(rng.choice([0, 0, 1, 2, 3, 4, 6]), 100)}
        tenants[name] = TenantState(name, parent=parent, quota=quota)
        made.upsert_tenant(tenants[name])
    for index in range(rng.randint(5, 14)):
        count, each = rng.randint(1, 4), rng.randint(1, 4)
        pods = PodSet("main", count, {"cpu": 100, GPU: each}, min_count=rng.choice([0, 0, rng.randrange(count)]))
        name, tenant = f"w{index:02}", rng.choice(["p1", "p2", "q1", "q2", "c"])
        one = WorkloadState(f"x/{name}", name, tenant, float(index), (pods,), rng.choice(PRIORITIES))
        made.upsert_workload(replace(one, required_topology=rng.choice(["", "", "rack"])))
    rights = Ledgers(tenants)
    for step in range(60):
        held = dict(made.workloads)
        cycle(made, rights, float(step + 1))  # type: ignore[arg-type]
        if made.workloads == held:
            return step
    raise AssertionError("no rest after 60 cycles")


def test_under_parents_it_comes_to_rest_too() -> None:
    assert max(cycles_until_rest(seed) for seed in range(15)) < 20


@pytest.mark.campaign
def test_under_parents_it_comes_to_rest_too_over_many_sets() -> None:
    assert max(cycles_until_rest(seed) for seed in range(15, 1000)) < 30


def test_a_closed_set_of_workloads_comes_to_rest() -> None:
    explore(10, 25)


@pytest.mark.campaign
@pytest.mark.timeout(3600)
def test_a_closed_set_of_workloads_comes_to_rest_over_many_steps() -> None:
    explore(500, 50)
