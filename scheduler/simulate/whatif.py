"""One what-if: a trace's jobs on a pool under a rule of quotas, and what came of it.

Both are plain values, so that they can be sent to another process.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any

from scheduler.fleet import ClassQuota, Fleet, PoolState, TenantState
from scheduler.simulate.driver import Simulation
from scheduler.simulate.outcome import Outcome
from scheduler.simulate.trace import TraceJob, arrivals_of


class QuotaRule(StrEnum):
    """How the pool's devices are given to the n tenants of the jobs."""

    fair = "fair"  # nominal 1/n each, the rest may be borrowed
    isolated = "isolated"  # nominal 1/n each, no borrowing
    open = "open"  # nothing is anybody's own, everything may be borrowed


@dataclass(frozen=True, slots=True)
class Scenario:
    """`seed` 0: the jobs as they are; another: the same submission times, with jobs drawn anew from them."""

    jobs: tuple[TraceJob, ...]
    pool: PoolState
    quota: QuotaRule = QuotaRule.fair
    seed: int = 0
    boot_seconds: float = 300.0
    checkpoint: float = 0.0
    restart: float = 0.0


@dataclass(frozen=True, slots=True)
class Summary:
    """Times in seconds. `use`: devices in use / devices of the nodes that stood, over the whole run."""

    pool: str
    maximum: int
    quota: str
    seed: int
    jobs: int
    ended: int
    mean_wait: float
    p95_wait: float
    mean_completion: float
    makespan: float
    device_hours: float
    standing_hours: float
    use: float
    peak_nodes: int
    evictions: int
    lost_device_hours: float
    cost: float  # of the nodes while they stood, in the currency of the pool's price
    plans: int

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def run(scenario: Scenario) -> Summary:
    """Simulate it to the end."""
    jobs, pool = resampled(scenario.jobs, scenario.seed), scenario.pool
    arrivals = arrivals_of(jobs, pool, checkpoint=scenario.checkpoint, restart=scenario.restart)
    simulation = Simulation(
        fleet_of(pool, sorted({job.tenant for job in jobs}), scenario.quota),
        arrivals,
        boot_seconds={pool.name: scenario.boot_seconds},
    )
    return summary(scenario, simulation.run())


def fleet_of(pool: PoolState, tenants: Sequence[str], rule: QuotaRule) -> Fleet:
    """The pool without a node yet, and its tenants."""
    made, devices = Fleet(), pool.maximum * pool.per_node
    made.upsert_pool(pool)
    for at, name in enumerate(tenants):
        nominal = 0 if rule is QuotaRule.open else devices // len(tenants) + (at < devices % len(tenants))
        borrow = 0 if rule is QuotaRule.isolated else devices - nominal
        made.upsert_tenant(TenantState(name, quota={pool.accelerator: ClassQuota(nominal, borrow)}))
    return made


def resampled(jobs: Sequence[TraceJob], seed: int) -> list[TraceJob]:
    """Bootstrap: each submission becomes that of a job drawn with replacement; seed 0 draws nothing."""
    if seed == 0:
        return list(jobs)
    rng = random.Random(seed)  # noqa: S311 - a simulation, not a secret
    drawn = rng.choices(jobs, k=len(jobs))
    return [replace(one, row=at.row, at=at.at) for at, one in zip(jobs, drawn, strict=True)]


def summary(scenario: Scenario, outcome: Outcome) -> Summary:
    """The figures of an outcome."""
    waits = sorted(record.wait for record in outcome.records if record.wait is not None)
    completions = [record.completion for record in outcome.ended if record.completion is not None]
    standing = outcome.standing_hours
    return Summary(
        pool=scenario.pool.name,
        maximum=scenario.pool.maximum,
        quota=scenario.quota.value,
        seed=scenario.seed,
        jobs=len(outcome.records),
        ended=len(completions),
        mean_wait=statistics.fmean(waits) if waits else 0.0,
        p95_wait=waits[int(0.95 * (len(waits) - 1))] if waits else 0.0,
        mean_completion=statistics.fmean(completions) if completions else 0.0,
        makespan=outcome.makespan,
        device_hours=outcome.device_hours,
        standing_hours=standing,
        use=outcome.device_hours / standing if standing else 0.0,
        peak_nodes=max((sample.nodes_ready for sample in outcome.series), default=0),
        evictions=sum(record.evictions for record in outcome.records),
        lost_device_hours=sum(record.lost * record.devices for record in outcome.records) / 3600,
        cost=standing / scenario.pool.per_node * scenario.pool.price_micro / 1e6,
        plans=outcome.plans,
    )
