"""The cheapest replicas and classes for a demand: every pair of classes is tried, the fewest replicas for each."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from scheduler.dataflow.model import FlowSpec, RateClass


@dataclass(frozen=True, slots=True)
class Demand:
    """`replicas`: what the demand signals ask for; `ingress`, `storage`: bytes/s of the whole service."""

    replicas: int
    ingress: float = 0.0
    storage: float = 0.0


@dataclass(frozen=True, slots=True)
class Size:
    """A choice. `short`: even maxReplicas with these classes carry less than the demand."""

    replicas: int
    bandwidth: str
    volume_io: str
    cost: int
    short: bool

    @property
    def order(self) -> tuple[bool, int, int, str, str]:
        return self.short, self.cost, self.replicas, self.bandwidth, self.volume_io


_NONE = RateClass("", math.inf)


def size(spec: FlowSpec, demand: Demand, bandwidth: RateClass | None, volume_io: RateClass | None) -> Size:
    """The fewest replicas with these classes (None = the service has no such classes)."""
    link, disk = bandwidth or _NONE, volume_io or _NONE
    needed = max(demand.replicas, _times(demand.ingress, link.rate * spec.usable))
    short = False
    if spec.shared_volume:
        short = demand.storage > disk.rate * spec.usable
    else:
        needed = max(needed, _times(demand.storage, disk.rate * spec.usable))
    short = short or needed > spec.max_replicas
    replicas = min(max(needed, spec.min_replicas), spec.max_replicas)
    volumes = 1 if spec.shared_volume else replicas
    cost = replicas * (spec.replica_cost + link.cost) + volumes * disk.cost
    return Size(replicas, link.name, disk.name, cost, short)


def cheapest(
    spec: FlowSpec, demand: Demand, links: Iterable[RateClass | None], disks: Iterable[RateClass | None]
) -> Size:
    """The best choice among these classes. Short of the demand everywhere: the fastest classes and all replicas."""
    kept = list(disks)
    sizes = [(size(spec, demand, link, disk), link, disk) for link in links for disk in kept]
    enough = [one for one, _, _ in sizes if not one.short]
    if enough:
        return min(enough, key=lambda one: one.order)
    return min(
        sizes,
        key=lambda one: (-_rate(one[1]), -_rate(one[2]), one[0].order),
    )[0]


def classes(options: tuple[RateClass, ...]) -> list[RateClass | None]:
    """The options, or "none" where the service declares none."""
    return list(options) or [None]


def named(options: tuple[RateClass, ...], name: str) -> RateClass | None:
    """The class of that name."""
    return next((one for one in options if one.name == name), None)


def _rate(one: RateClass | None) -> float:
    return one.rate if one is not None else math.inf


def _times(amount: float, rate: float) -> int:
    return 0 if amount <= 0 or math.isinf(rate) else math.ceil(amount / rate - 1e-9)
