"""Every gang that fits an empty cluster runs in the end, however many small workloads keep coming.

A simulation of plans: nobody says how long it runs, though all end at some time. Without
reservations the same arrivals starve the gang, which shows that they would.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler import ClassQuota, MachineState, Memory, TenantState, WorkloadState, plan
from scheduler.reserving import Blocked, Book, Reservations
from tests.unit.scheduler.claims import CLASS, Cycle, work, world

NODES = 6


@dataclass
class Simulation:
    """One step: what is over ends; small ones arrive; a plan, in the order of `turn`."""

    seed: int
    depth: int
    forget: float = 0.0  # how often the memory is lost
    says: float = 0.0  # how often an arrival says how long it runs at most
    longest: int = 6
    now: float = 0.0
    names: int = 0
    kept: Reservations = field(default_factory=Reservations)
    ends: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self.fleet = world(NODES, racks=2)

    def arrive(self, name: str, count: int, devices: int, runtime: float, **over: object) -> None:
        said = runtime if self.rng.random() < self.says else 0.0
        one = work(name, count, devices, created_at=self.now, max_runtime=said, **over)
        self.ends[one.key] = runtime
        self.fleet.upsert_workload(one)

    def step(self) -> None:
        self.now += 1.0
        for key in [one.key for one in self.fleet.workloads.values() if one.admitted and self.over(one)]:
            self.fleet.remove_workload(key)
        self.small()
        if self.rng.random() < self.forget:
            self.kept = Reservations()
        self.plan()

    def small(self, **over: object) -> None:
        for _ in range(self.rng.randint(3, 8)):
            self.names += 1
            if len(self.fleet.pending) < 8:
                count, devices = self.rng.randint(1, 2), self.rng.randint(1, 2)
                self.arrive(f"s{self.names:05}", count, devices, float(self.rng.randint(2, self.longest)), **over)

    def over(self, one: WorkloadState) -> bool:
        return one.admitted_at + self.ends[one.key] <= self.now

    def plan(self) -> None:
        cycle = Cycle(self.fleet, now=self.now)
        supply = cycle.supply.pools["h200"]

        def asks(key: str, uid: str):
            return cycle.ask(self.fleet.pending[key]) if key in self.fleet.pending else None

        book = Book(self.kept, cycle.timelines, self.now, asks, self.depth)
        started = []
        for waiting in sorted(self.fleet.pending.values(), key=self.turn):
            blocked = Blocked(
                waiting.key, waiting.uid, waiting.priority, cycle.ask(waiting), waiting.max_runtime, waiting.created_at
            )
            placed = book.place(blocked, "h200", supply.ready)
            if placed is None:
                if self.depth:
                    book.reserve(blocked, ["h200"])
                continue
            held = tuple(("main", supply.names[row], count) for _, row, count in placed)
            started.append(replace(waiting, admitted=True, accelerator=CLASS, admitted_at=self.now, placements=held))
        for one in started:
            self.fleet.upsert_workload(one)
        assert (self.fleet.table.used <= self.fleet.table.allocatable).all()
        self.kept = book.reservations()

    def turn(self, one: WorkloadState) -> tuple[object, ...]:
        """By priority, then at random: no order of the queue may starve anybody."""
        return -one.priority, self.rng.random(), one.key

    def steps_until_started(self, names: list[str], most: int) -> int:
        for step in range(most):
            if not any(f"x/{name}" in self.fleet.pending for name in names):
                return step
            self.step()
        raise TimeoutError


@pytest.mark.parametrize(("nodes", "level"), [(5, ""), (3, "rack")])
def test_without_reservations_small_arrivals_starve_a_gang(nodes: int, level: str) -> None:
    simulation = Simulation(seed=1, depth=0)
    for _ in range(10):
        simulation.step()
    simulation.arrive("gang", nodes, 4, 5.0, required_topology=level)
    with pytest.raises(TimeoutError):
        simulation.steps_until_started(["gang"], 90)


@settings(deadline=None, max_examples=5)
@given(
    st.integers(0, 2**32),
    st.lists(st.tuples(st.integers(1, 6), st.sampled_from(["", "rack"])), min_size=1, max_size=3),
    st.sampled_from([0.0, 0.5]),
    st.sampled_from([1, 8]),
)
def test_every_gang_that_fits_an_empty_cluster_runs(
    seed: int, gangs: list[tuple[int, str]], says: float, depth: int
) -> None:
    simulation = Simulation(seed, depth, says=says)
    for _ in range(6):
        simulation.step()
    names = []
    for index, (nodes, level) in enumerate(gangs):
        names.append(f"gang{index}")
        simulation.arrive(names[-1], min(nodes, NODES // 2) if level else nodes, 4, 5.0, required_topology=level)
    # Each waits for at most the longest run on its rows, once it has a reservation; they take turns with the small.
    simulation.steps_until_started(names, 100)


@pytest.mark.parametrize(("seed", "nominal"), [(1, 1000), (2, 8)])
def test_a_gang_of_the_whole_cluster_starts_through_plan(seed: int, nominal: int) -> None:
    """With quotas, shares and evictions in between; within or beyond the tenant's nominal."""
    simulation = Simulation(seed, depth=8)
    made, memory = simulation.fleet, Memory()
    for name in made.nodes:
        made.upsert_machine(MachineState(name, "h200", name))  # the pool is at its maximum
    for name in "ab":
        made.upsert_tenant(TenantState(name, quota={CLASS: ClassQuota(nominal, 1000)}))
    for step in range(60):
        simulation.now += 1.0
        if step == 8:
            simulation.arrive("gang", NODES, 4, 5.0)
            # It has waited for more than a day: nobody's rows are drained for a borrower sooner.
            made.upsert_workload(replace(made.workloads["x/gang"], created_at=-100_000.0))
        for one in [one for one in made.workloads.values() if one.admitted and simulation.over(one)]:
            made.remove_workload(one.key)
        simulation.small(tenant=simulation.rng.choice("ab"))
        decided, memory = plan(made, memory, simulation.now)
        for gone in decided.evictions:
            stopped = replace(made.workloads[gone.workload], admitted=False, placements=(), accelerator="")
            made.upsert_workload(stopped)
        for start in decided.admissions:
            held = tuple((placed.pod_set, placed.node, placed.count) for placed in start.placements)
            waiting = replace(made.workloads[start.workload], admitted=True, admitted_at=simulation.now)
            made.upsert_workload(replace(waiting, accelerator=start.accelerator, placements=held))
        assert (made.table.used <= made.table.allocatable).all()
        if step >= 8 and "x/gang" not in made.pending:
            return
    raise AssertionError("the gang has not started")


@pytest.mark.campaign
@pytest.mark.timeout(3600)
@settings(deadline=None, max_examples=150)
@given(
    st.integers(0, 2**32),
    st.lists(st.tuples(st.integers(1, 6), st.sampled_from(["", "rack"])), min_size=1, max_size=4),
    st.sampled_from([0.0, 0.5]),
    st.sampled_from([1, 8]),
    st.sampled_from([0.0, 0.02]),
)
def test_every_gang_that_fits_an_empty_cluster_runs_though_memory_is_lost_at_times(
    seed: int, gangs: list[tuple[int, str]], says: float, depth: int, forget: float
) -> None:
    simulation = Simulation(seed, depth, forget, says)
    for _ in range(6):
        simulation.step()
    names = []
    for index, (nodes, level) in enumerate(gangs):
        names.append(f"gang{index}")
        simulation.arrive(names[-1], min(nodes, NODES // 2) if level else nodes, 4, 5.0, required_topology=level)
    simulation.steps_until_started(names, 500)
