"""Where and when one workload would start: a plan now, and the queue run forward when it would wait."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from scheduler.decision import Memory, Placed
from scheduler.explain.reasons import Reason
from scheduler.fleet import Fleet, WorkloadState
from scheduler.plan import plan
from scheduler.simulate.driver import Simulation
from scheduler.simulate.outcome import Arrival

_INSTANTS = 2000  # looked at, at most


@dataclass(frozen=True, slots=True)
class Forecast:
    """`start`: seconds since the epoch; now, when it would start at once; None when no start can be foreseen."""

    now: float
    reasons: tuple[Reason, ...]  # why it would wait; empty when it would not
    start: float | None
    pool: str
    placements: tuple[Placed, ...]  # where, as far as is known
    evicts: tuple[str, ...]  # workloads that the plan would stop for it, or for those before it
    requests: tuple[str, ...]  # machines that would be asked for
    basis: str  # what the start rests on, in words

    @property
    def starts_now(self) -> bool:
        """Whether it would start at once."""
        return self.start is not None and self.start <= self.now


def forecast(
    fleet: Callable[[], Fleet],
    workload: WorkloadState,
    now: float,
    *,
    boot_seconds: Mapping[str, float] | None = None,
    boot_default: float = 300.0,
    horizon: float = 30 * 86_400.0,
) -> Forecast:
    """`fleet` makes the fleet anew each time it is called: the first is planned on, the second run forward.

    Work that states `max_runtime` is taken to last that long, all other work to last beyond
    the horizon, so that a start that is named does not rest on a guess of ends.
    """
    today = fleet()
    today.upsert_workload(workload)
    decided, _ = plan(today, Memory(), now)
    admitted = {one.workload: one for one in decided.admissions}
    reasons = decided.waiting.of(workload.key) or ()
    found = admitted.get(workload.key)
    evicts = tuple(one.workload for one in decided.evictions)
    requests = tuple(one.name for one in decided.machine_requests if one.workload in {"", workload.key})
    if found is not None:
        basis = "room and quota are free"
        return Forecast(now, (), now, found.pool, found.placements, evicts, requests, basis)
    start, where, basis = _run_forward(fleet(), workload, now, boot_seconds or {}, boot_default, horizon)
    pool, placements = where
    return Forecast(now, reasons, start, pool, placements, evicts, requests, basis)


def _run_forward(
    fleet: Fleet, workload: WorkloadState, now: float, boot: Mapping[str, float], boot_default: float, horizon: float
) -> tuple[float | None, tuple[str, tuple[Placed, ...]], str]:
    running = [one for one in fleet.workloads.values() if one.admitted]
    limited = {one.key: max(one.admitted_at + one.max_runtime, now) for one in running if one.max_runtime > 0}
    waiting = [one for one in fleet.pending.values() if one.max_runtime > 0]
    arrivals = [Arrival(now, one, one.max_runtime) for one in waiting]
    arrivals.append(Arrival(now, workload, workload.max_runtime or horizon))
    simulation = Simulation(
        fleet,
        arrivals,
        start=now,
        until=now + horizon,
        running=limited,
        boot_seconds=boot,
        boot_default=boot_default,
    )
    unlimited = len(running) - len(limited)
    basis = f"{len(limited)} of {len(running)} running workloads state a maximum run time"
    if unlimited:
        basis += f"; the other {unlimited} are taken to run on"
    for count, step in enumerate(simulation.steps()):
        for one in step.plan.admissions:
            if one.workload == workload.key:
                return step.time, (one.pool, one.placements), basis + _growing(simulation, boot_default)
        if count >= _INSTANTS:
            return None, ("", ()), basis + f"; no start within the next {_INSTANTS} changes of the cluster"
    return None, ("", ()), basis + "; nothing that is known to end makes room"


def _growing(simulation: Simulation, boot: float) -> str:
    grew = any(sample.machines_coming for sample in simulation.outcome().series)
    return f"; a machine is ready {boot:.0f} s after it is asked for" if grew else ""
