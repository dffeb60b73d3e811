"""What a plan says, and what must last from one plan to the next."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from scheduler.autoscale.forecast import Arrivals
from scheduler.explain.reasons import Reason
from scheduler.reserving.reservation import Reservations


@dataclass(frozen=True, slots=True, order=True)
class Placed:
    """`count` pods of a pod set on a node; `devices`: which one each pod has a share of, when it asks for a share."""

    pod_set: str
    node: str
    count: int
    devices: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Admission:
    """A workload may start, with all of its pods placed."""

    workload: str
    accelerator: str  # the class whose quota it uses; empty when it uses none
    pool: str
    placements: tuple[Placed, ...]


@dataclass(frozen=True, slots=True)
class Eviction:
    """A workload must stop and wait again."""

    workload: str
    reason: Reason


@dataclass(frozen=True, slots=True)
class Move:
    """A running workload goes on, but for its pods on nodes that are gone: these go elsewhere.

    `lost`: the nodes; `placements`: all that it holds from now on.
    """

    workload: str
    lost: tuple[str, ...]
    placements: tuple[Placed, ...]
    reason: Reason


@dataclass(frozen=True, slots=True)
class MachineRequest:
    """A machine to make. The name is deterministic: the same need asks for the same machine."""

    pool: str
    name: str
    block: str
    rack: str
    nvlink_domain: str
    reason: str
    workload: str = ""


@dataclass(frozen=True, slots=True)
class MachineRemoval:
    """A machine that is not needed any more."""

    machine: str
    reason: str


@dataclass(frozen=True, slots=True)
class Waiting:
    """Why a workload is not admitted: the reasons in the order in which they were found."""

    workload: str
    reasons: tuple[Reason, ...]


class Reasons(Protocol):
    """Why the pending workloads wait; worked out when asked for."""

    def __iter__(self) -> Iterator[Waiting]: ...

    def __len__(self) -> int: ...

    def of(self, key: str) -> tuple[Reason, ...] | None:
        """Of one workload; None when it does not wait."""


class NobodyWaits:
    """The reasons of nobody."""

    def __iter__(self) -> Iterator[Waiting]:
        return iter(())

    def __len__(self) -> int:
        return 0

    def of(self, key: str) -> tuple[Reason, ...] | None:
        return None


@dataclass(frozen=True, slots=True)
class Plan:
    """One cycle's decisions, in a deterministic order."""

    admissions: tuple[Admission, ...] = ()
    evictions: tuple[Eviction, ...] = ()
    moves: tuple[Move, ...] = ()
    machine_requests: tuple[MachineRequest, ...] = ()
    machine_removals: tuple[MachineRemoval, ...] = ()
    waiting: Reasons = field(default_factory=NobodyWaits)
    idle: tuple[str, ...] = ()  # ready nodes without a use
    next_wake: float | None = None  # when time alone may change the plan, seconds since the epoch


@dataclass(frozen=True, slots=True)
class Memory:
    """What must last between cycles.

    `idle_since`: ready machine → when it was first seen idle (seconds since the epoch).
    After a restart it starts empty, which only delays a scale-down. `reservations`: room
    held for those that have waited longest; after a restart they are made anew.
    `arrivals`: by pool, what its forecast goes by; `grown_at`: pool → when it was last grown.
    """

    idle_since: Mapping[str, float] = field(default_factory=dict)
    reservations: Reservations = field(default_factory=Reservations)
    arrivals: Mapping[str, Arrivals] = field(default_factory=dict)
    grown_at: Mapping[str, float] = field(default_factory=dict)
