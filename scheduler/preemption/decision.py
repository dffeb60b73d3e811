"""What a search for victims is asked and what it answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from scheduler.placement.ask import Ask
from scheduler.placement.bestfit import Assignment

Why = Literal["priority", "reclaim", "cohort"]
Cost = tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Shortfall:
    """A quota that would be exceeded: `devices` of the class, held by these tenants, must go wherever they run.

    The tenants are the claimant's alone for its own limit, and all of a cohort for that of the cohort.
    """

    accelerator: str
    devices: int
    tenants: frozenset[str]


@dataclass(frozen=True, slots=True)
class Claim:
    """A blocked workload that may make room for itself; `short`: limits that it would exceed."""

    workload: str
    tenant: str
    priority: int
    ask: Ask
    short: tuple[Shortfall, ...] = ()


@dataclass(frozen=True, slots=True)
class Victim:
    """A running workload that goes, whole."""

    workload: str
    tenant: str
    why: Why  # lower priority in the same tenant, reclaimed from a borrower, lower priority in the cohort
    devices: int
    lost: float  # device-seconds of work since it was admitted or last checkpointed


@dataclass(frozen=True, slots=True)
class Shrink:
    """A running elastic gang that goes on with its `min_count`."""

    workload: str
    tenant: str
    why: Why
    devices: int  # that it gives up
    placements: tuple[tuple[str, str, int], ...]  # (pod set, node, count) that it keeps
    dropped: tuple[tuple[str, str, int], ...]  # and those it gives up


@dataclass(frozen=True, slots=True)
class Preemption:
    """Who goes so that a workload fits, and where it will run once they are gone.

    `cost` compares sets: (any eviction?, highest priority among those that go, -least excess of
    their tenants, lost device-seconds, pods, -latest admission). `assignment` is in rows of the
    pool's supply, and holds room that is free now as well as the victims'.
    """

    workload: str
    pool: str
    victims: tuple[Victim, ...]
    shrinks: tuple[Shrink, ...]
    assignment: Assignment
    cost: Cost
    items: tuple[int, ...] = field(default=(), repr=False)  # what `Candidates.commit` goes by


@dataclass(frozen=True, slots=True)
class Budget:
    """How much may be disrupted in one plan. A shrink counts as one disruption too."""

    per_cycle: int = 64
    per_tenant: Mapping[str, int] = field(default_factory=dict)  # what is left to a tenant; unlimited when absent
