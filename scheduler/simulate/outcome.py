"""What goes into a simulation and what comes out of it. Times are seconds on the virtual clock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from scheduler.decision import Memory, Plan
from scheduler.fleet import Fleet, WorkloadState

Policy = Callable[[Fleet, Memory, float], tuple[Plan, Memory]]  # `scheduler.plan`, or what is compared with it


@dataclass(frozen=True, slots=True)
class Arrival:
    """A workload that is submitted at `time` and needs `duration` seconds with all of its pods.

    `checkpoint`: seconds of work between two checkpoints; when it is evicted, the work
    since the last one is lost. 0: it never checkpoints, and all is lost. `restart`:
    seconds that it needs before it works again after an eviction.
    """

    time: float
    workload: WorkloadState
    duration: float
    checkpoint: float = 0.0
    restart: float = 0.0


@dataclass(frozen=True, slots=True)
class Record:
    """The life of one workload. `started` and `ended` are None for what had not when the clock stopped."""

    key: str
    tenant: str
    priority: int
    devices: int  # with all of its pods
    duration: float  # of the work alone
    submitted: float
    started: float | None = None  # for the first time
    ended: float | None = None
    evictions: int = 0
    lost: float = 0.0  # seconds of work done twice, restarts included

    @property
    def wait(self) -> float | None:
        """Seconds from submission to the first start."""
        return None if self.started is None else self.started - self.submitted

    @property
    def completion(self) -> float | None:
        """Job completion time: seconds from submission to the end."""
        return None if self.ended is None else self.ended - self.submitted


@dataclass(frozen=True, slots=True)
class Sample:
    """The fleet from `time` on, until the next sample."""

    time: float
    devices_used: int
    devices_ready: int
    nodes_ready: int
    machines_coming: int
    waiting: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """A finished simulation: records in the order of submission, samples in the order of time."""

    records: tuple[Record, ...]
    series: tuple[Sample, ...]
    ended_at: float
    plans: int  # calls of the policy

    @property
    def ended(self) -> tuple[Record, ...]:
        """Those that came to their end."""
        return tuple(record for record in self.records if record.ended is not None)

    @property
    def makespan(self) -> float:
        """Seconds from the first submission to the last end; 0 when nothing ended."""
        first = min((record.submitted for record in self.records), default=0.0)
        return max((record.ended - first for record in self.records if record.ended is not None), default=0.0)

    @property
    def device_hours(self) -> float:
        """Devices in use, integrated over time."""
        return self._integral(lambda sample: sample.devices_used) / 3600

    @property
    def standing_hours(self) -> float:
        """Devices of ready nodes, integrated over time."""
        return self._integral(lambda sample: sample.devices_ready) / 3600

    def _integral(self, of: Callable[[Sample], int]) -> float:
        ends = [sample.time for sample in self.series[1:]] + [self.ended_at]
        return sum(of(sample) * (end - sample.time) for sample, end in zip(self.series, ends, strict=True))
