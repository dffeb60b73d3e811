"""The virtual clock: events in order, a plan wherever one may differ from the last, and its application."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from heapq import heapify, heappop, heappush

from scheduler.decision import Memory, Plan
from scheduler.fleet import Fleet
from scheduler.plan import plan
from scheduler.simulate.cluster import VirtualCluster
from scheduler.simulate.outcome import Arrival, Outcome, Policy, Record, Sample
from scheduler.simulate.runs import Run

_ROUNDS = 16  # plans at one instant, at most: evictions free room that the next plan of the instant may give away


class _Kind(IntEnum):
    """Events of one instant happen in this order: what frees room before what asks for it."""

    END = 0
    NODE_LOST = 1
    READY = 2
    CHECKPOINT = 3
    ARRIVE = 4


@dataclass(frozen=True, slots=True)
class Step:
    """One instant at which the policy was asked: its last plan there."""

    time: float
    plan: Plan


class Simulation:
    """Replays arrivals; one use.

    `fleet`: owned from here on. Workloads in it that are admitted already run until
    `running[key]` (forever when they are not named there).
    `boot_seconds`: from the request of a machine to its ready node, by pool name; the
    pools that are not named take `boot_default`.
    `outages`: (time, node): the node and its machine are lost then; a plan may ask for another.
    `pace`: seconds between two instants at which plans are made, at least, as the
    operator coalesces events.
    `until`: when the clock stops; None: when nothing can happen any more.
    """

    def __init__(
        self,
        fleet: Fleet,
        arrivals: Iterable[Arrival],
        *,
        policy: Policy = plan,
        start: float | None = None,
        until: float | None = None,
        running: Mapping[str, float] | None = None,
        boot_seconds: Mapping[str, float] | None = None,
        boot_default: float = 300.0,
        outages: Iterable[tuple[float, str]] = (),
        pace: float = 0.0,
        memory: Memory | None = None,
    ) -> None:
        self.cluster = VirtualCluster(fleet)
        self._policy, self._until, self._pace = policy, until, pace
        self._boot_seconds, self._boot_default = dict(boot_seconds or {}), boot_default
        self._memory = memory or Memory()
        self._arrivals = sorted(arrivals, key=lambda one: (one.time, one.workload.key))
        self._runs: dict[str, Run] = {}
        self._records: list[Run] = []
        self._series: list[Sample] = []
        self._plans = 0
        self._wake: float | None = None
        self._sequence = 0
        self._events: list[tuple[float, int, int, str, int]] = []  # time, kind, tie-breaker, name, generation
        for index, arrival in enumerate(self._arrivals):
            self._events.append((arrival.time, _Kind.ARRIVE, self._next(), "", index))
        for key, end in sorted((running or {}).items()):
            self._adopt(key, end)
        for time, node in outages:
            self._events.append((time, _Kind.NODE_LOST, self._next(), node, 0))
        heapify(self._events)
        self.now = start if start is not None else min((event[0] for event in self._events), default=0.0)

    def run(self, progress: Callable[[float, int], None] | None = None) -> Outcome:
        """To the end. `progress(now, workloads ended)` is called after each instant."""
        for step in self.steps():
            if progress is not None:
                progress(step.time, sum(1 for run in self._records if run.ended is not None))
        return self.outcome()

    def outcome(self) -> Outcome:
        """What is known so far."""
        records: tuple[Record, ...] = tuple(run.record() for run in self._records)
        return Outcome(records, tuple(self._series), self.now, self._plans)

    def record(self, key: str) -> Record:
        """The life so far of a workload that has arrived. Raises KeyError before."""
        return self._runs[key].record()

    def steps(self) -> Iterator[Step]:
        """Instant by instant; whoever reads it may stop at any time."""
        while True:
            time = self._due()
            if time is None or (self._until is not None and time > self._until):
                break
            self.now = time
            changed = self._happen() or not self._plans
            if self._wake is not None and self._wake <= self.now:
                changed, self._wake = True, None
            if changed:
                decided = self._decide()
                self._sample()
                yield Step(self.now, decided)
        if self._until is not None:
            self.now = max(self.now, self._until)

    def _due(self) -> float | None:
        """The next instant, or None when there is nothing more to come."""
        if not self._plans:
            return self.now
        times = [event[0] for event in self._events[:1]]
        if self._wake is not None:
            times.append(self._wake)
        return max(min(times), self.now + self._pace) if times else None

    def _happen(self) -> bool:
        """All events up to now. Whether a plan could see any of it."""
        changed = False
        while self._events and self._events[0][0] <= self.now:
            time, kind, _, name, generation = heappop(self._events)
            match kind:
                case _Kind.ARRIVE:
                    self._arrive(self._arrivals[generation])
                case _Kind.END:
                    run = self._runs[name]
                    if run.generation != generation or not run.working:
                        continue
                    run.end(time)
                    self.cluster.end(name)
                case _Kind.READY:
                    if not self.cluster.boot(name):
                        continue
                case _Kind.NODE_LOST:
                    self.cluster.fail(name)
                case _Kind.CHECKPOINT:
                    run = self._runs[name]
                    if run.generation == generation and run.working:
                        self.cluster.checkpoint(name, time)
                        self._push(time + run.arrival.checkpoint / run.rate, _Kind.CHECKPOINT, name, generation)
                    continue  # it frees nothing
            changed = True
        return changed

    def _arrive(self, arrival: Arrival) -> None:
        workload = arrival.workload
        run = Run(arrival, self.cluster.devices(workload))
        self._runs[workload.key] = run
        self._records.append(run)
        self.cluster.submit(workload)

    def _adopt(self, key: str, end: float) -> None:
        workload = self.cluster.fleet.workloads[key]
        run = Run(
            Arrival(workload.created_at, workload, max(end - workload.admitted_at, 0.0)), self.cluster.devices(workload)
        )
        run.start(workload.admitted_at, 1.0)
        self._runs[key] = run
        self._push(end, _Kind.END, key, run.generation)

    # Plans

    def _decide(self) -> Plan:
        for _ in range(_ROUNDS):
            decided, self._memory = self._policy(self.cluster.fleet, self._memory, self.now)
            self._plans += 1
            self._apply(decided)
            # A plan that only admits has nothing to add: the same instant would only confirm it.
            if not (decided.evictions or decided.machine_requests or decided.machine_removals):
                break
        self._wake = decided.next_wake if decided.next_wake is not None and decided.next_wake > self.now else None
        return decided

    def _apply(self, decided: Plan) -> None:
        for eviction in decided.evictions:
            self._evict(eviction.workload)
        for removal in decided.machine_removals:
            self.cluster.remove(removal.machine)
        for admission in decided.admissions:
            part = self.cluster.admit(admission, self.now)
            run = self._runs.get(admission.workload)
            if run is None:
                continue  # nobody said how long it lasts: it runs forever
            run.start(self.now, part * _throughput(run.arrival, admission.accelerator))
            if run.ends_at < math.inf:
                self._push(run.ends_at, _Kind.END, admission.workload, run.generation)
            if run.arrival.checkpoint > 0:
                first = run.since + run.arrival.checkpoint / run.rate
                self._push(first, _Kind.CHECKPOINT, admission.workload, run.generation)
        for request in decided.machine_requests:
            self.cluster.request(request)
            delay = self._boot_seconds.get(request.pool, self._boot_default)
            self._push(self.now + delay, _Kind.READY, request.name, 0)

    def _evict(self, key: str) -> None:
        if not self.cluster.fleet.workloads[key].admitted:
            return
        self.cluster.evict(key)
        run = self._runs.get(key)
        if run is not None:
            run.evict(self.now)

    def _sample(self) -> None:
        fleet, cluster = self.cluster.fleet, self.cluster
        coming = sum(len(names) for names in fleet.coming_of_pool.values())
        sample = Sample(
            self.now, cluster.devices_used, cluster.devices_ready, cluster.nodes_ready, coming, len(fleet.pending)
        )
        if self._series and self._series[-1].time == self.now:
            self._series[-1] = sample
        else:
            self._series.append(sample)

    def _push(self, time: float, kind: _Kind, name: str, generation: int) -> None:
        heappush(self._events, (time, kind, self._next(), name, generation))

    def _next(self) -> int:
        self._sequence += 1
        return self._sequence


def _throughput(arrival: Arrival, accelerator: str) -> float:
    """How fast the class works beside the one that the duration was stated for."""
    return dict(arrival.workload.flavors).get(accelerator, 1.0)
