"""A small service in virtual time for the tests: it obeys every decision after a delay and never errs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, field

from scheduler.dataflow import FlowMemory, FlowSpec, Observation, Sample, Target, start, step


@dataclass
class Line:
    """Replicas come `startup` seconds after they are asked for; classes take effect after `class_delay`."""

    spec: FlowSpec
    demand: Callable[[float], dict[str, float]]
    replicas: int = 1
    bandwidth: str = ""
    volume_io: str = ""
    class_delay: float = 60.0
    tick: float = 15.0
    now: float = 1_000_000.0
    memory: FlowMemory = field(default_factory=FlowMemory)
    counts: list[int] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    disks: list[str] = field(default_factory=list)
    targets: list[Target] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.memory = start(self.spec)
        self.ready = self.replicas
        self._coming: list[tuple[float, int]] = []
        self._asked = (self.bandwidth, self.volume_io)
        self._due: list[tuple[float, str, str]] = []

    def run(self, seconds: float) -> None:
        """Until `seconds` from now have passed."""
        end = self.now + seconds
        while self.now < end:
            self.now += self.tick
            self.turn({name: Sample(value, self.now) for name, value in self.demand(self.now - 1_000_000.0).items()})

    def turn(self, samples: dict[str, Sample | None]) -> Target:
        """One decision at the present time."""
        self.ready = min(self.replicas, self.ready + sum(count for at, count in self._coming if at <= self.now))
        self._coming = [one for one in self._coming if one[0] > self.now]
        for at, what, name in self._due:
            if at <= self.now:
                setattr(self, what, name)
        self._due = [one for one in self._due if one[0] > self.now]
        seen = Observation(
            self.now, samples, self.replicas, self.ready, self.bandwidth, self._asked[0], self.volume_io, self._asked[1]
        )
        target, self.memory = step(self.spec, self.memory, seen)
        if target.replicas > self.replicas:
            self._coming.append((self.now + self.spec.startup, target.replicas - self.replicas))
        self.replicas = target.replicas
        self.ready = min(self.ready, self.replicas)
        if target.bandwidth != self._asked[0]:
            self._due.append((self.now + self.class_delay, "bandwidth", target.bandwidth))
        if target.volume_io != self._asked[1]:
            self._due.append((self.now + self.class_delay, "volume_io", target.volume_io))
        self._asked = (target.bandwidth, target.volume_io)
        self.counts.append(self.replicas)
        self.links.append(target.bandwidth)
        self.disks.append(target.volume_io)
        self.targets.append(target)
        return target


def reversals(values: list[int] | list[str]) -> int:
    """How often the direction of change turns (numbers), or how often a former value comes back (names)."""
    if values and isinstance(values[0], str):
        kept = [one for before, one in zip([None, *values], values, strict=False) if one != before]
        return len(kept) - len(set(kept))
    moves = [b - a for a, b in itertools.pairwise(values) if a != b]  # type: ignore[operator]
    return sum(math.copysign(1, a) != math.copysign(1, b) for a, b in itertools.pairwise(moves))
