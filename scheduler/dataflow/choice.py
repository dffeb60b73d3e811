"""Choosing without flapping: grow at once, shrink when less has sufficed for long, change a class seldom."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from scheduler.dataflow.model import FlowMemory, FlowSpec, Observation, RateClass
from scheduler.dataflow.sizing import Demand, Size, cheapest, classes, named, size


@dataclass(frozen=True, slots=True)
class Classes:
    """The choice, and what kept it from being another."""

    replicas: int
    bandwidth: str
    volume_io: str
    cost: int
    short: bool
    held: str = ""


def choose(
    spec: FlowSpec, memory: FlowMemory, seen: Observation, demand: Demand, soft: int, blind: tuple[str, ...]
) -> tuple[Classes, FlowMemory]:
    """`soft`: replicas that suffice with the dead band on top; `blind`: signals without a usable sample."""
    if blind:
        memory = replace(memory, began=seen.now)  # what was not seen is no reason to shrink
    memory = _remember(spec, memory, seen, demand)
    peak = Demand(
        max(soft, demand.replicas),
        max((value for _, value in memory.ingress), default=0.0) * (1 + spec.band),
        max((value for _, value in memory.storage), default=0.0) * (1 + spec.band),
    )
    now_link = named(spec.bandwidth, seen.bandwidth_asked or seen.bandwidth)
    now_disk = named(spec.volume_io, seen.volume_io_asked or seen.volume_io)
    links, link_wait = _allowed(
        spec.bandwidth,
        now_link,
        seen,
        seen.bandwidth,
        memory.bandwidth_changed,
        spec.bandwidth_interval,
        blind,
        seen.now - memory.began >= max(spec.window, spec.bandwidth_interval),
    )
    disks, disk_wait = _allowed(
        spec.volume_io,
        now_disk,
        seen,
        seen.volume_io,
        memory.volume_io_changed,
        spec.volume_io_interval,
        blind,
        seen.now - memory.began >= max(spec.window, spec.volume_io_interval),
    )
    best = _classes(spec, demand, peak, (now_link, now_disk), (links, disks))
    link, disk = named(spec.bandwidth, best.bandwidth), named(spec.volume_io, best.volume_io)
    up = size(spec, demand, link, disk)
    down = size(
        spec,
        replace(
            demand, replicas=soft, ingress=demand.ingress * (1 + spec.band), storage=demand.storage * (1 + spec.band)
        ),
        link,
        disk,
    )
    needs = (*memory.needs, (seen.now, down.replicas))
    memory = replace(memory, needs=tuple(one for one in needs if one[0] > seen.now - spec.window))
    replicas, held = _replicas(spec, memory, seen, up.replicas, blind)
    volumes = 1 if spec.shared_volume else replicas
    cost = replicas * (spec.replica_cost + (link.cost if link else 0)) + volumes * (disk.cost if disk else 0)
    if link is not now_link and now_link is not None:
        memory = replace(memory, bandwidth_changed=seen.now)
    if disk is not now_disk and now_disk is not None:
        memory = replace(memory, volume_io_changed=seen.now)
    wait = "; ".join(
        one for one in (link_wait and f"bandwidth: {link_wait}", disk_wait and f"volumeIO: {disk_wait}") if one
    )
    return Classes(replicas, best.bandwidth, best.volume_io, cost, up.short, held or (wait if up.short else "")), memory


def _remember(spec: FlowSpec, memory: FlowMemory, seen: Observation, demand: Demand) -> FlowMemory:
    """A class is left for a slower one only when the peak of so long a time fits into the slower one."""
    link, disk = max(spec.window, spec.bandwidth_interval), max(spec.window, spec.volume_io_interval)
    return replace(
        memory,
        ingress=_peaks(memory.ingress, seen.now, demand.ingress, link) if spec.bandwidth else (),
        storage=_peaks(memory.storage, seen.now, demand.storage, disk) if spec.volume_io else (),
    )


def _peaks(
    past: tuple[tuple[float, float], ...], now: float, value: float, window: float
) -> tuple[tuple[float, float], ...]:
    """What can still become the highest of the window: older and lower values are dropped."""
    return (*(one for one in past if one[0] > now - window and one[1] > value), (now, value))


def _allowed(
    options: tuple[RateClass, ...],
    asked: RateClass | None,
    seen: Observation,
    in_force: str,
    changed: float,
    interval: float,
    blind: tuple[str, ...],
    covered: bool,
) -> tuple[list[RateClass | None], str]:
    """The classes that may be chosen now, and why no other. `covered`: the peak of a whole interval is known."""
    if asked is None:
        return classes(options), ""
    if blind:
        return [asked], "a signal cannot be read"
    if in_force and in_force != asked.name:
        return [asked], f"{asked.name} is not in force yet"
    if seen.now - changed < interval:
        return [asked], f"another change is possible in {math.ceil(interval - (seen.now - changed))} s"
    if not covered:
        return [one for one in options if one.rate >= asked.rate], ""
    return classes(options), ""


def _classes(
    spec: FlowSpec,
    demand: Demand,
    peak: Demand,
    now: tuple[RateClass | None, RateClass | None],
    allowed: tuple[list[RateClass | None], list[RateClass | None]],
) -> Size:
    """The cheapest classes; those in force stay unless they fall short, or the others save more than the band."""
    keep = size(spec, demand, *now)
    best = cheapest(spec, demand, *allowed)
    if best.bandwidth == keep.bandwidth and best.volume_io == keep.volume_io:
        return keep
    if _undeclared(spec, now):
        return best
    if keep.short and not best.short:
        return best
    # What is given up must not be wanted again at once: it is judged by the peak of the window.
    kept_at_peak = size(spec, peak, *now)
    best_at_peak = cheapest(spec, peak, *allowed)
    if best_at_peak.short and not kept_at_peak.short:
        return keep
    if best_at_peak.short or best_at_peak.cost * (1 + spec.band) < kept_at_peak.cost:
        return best_at_peak
    return keep


def _undeclared(spec: FlowSpec, now: tuple[RateClass | None, RateClass | None]) -> bool:
    """Whether a class is declared and none is asked for yet."""
    return bool((spec.bandwidth and now[0] is None) or (spec.volume_io and now[1] is None))


def _replicas(
    spec: FlowSpec, memory: FlowMemory, seen: Observation, up: int, blind: tuple[str, ...]
) -> tuple[int, str]:
    """Grow at once; shrink to what has sufficed during the whole window; never shrink blind."""
    present = seen.replicas
    bounded = min(max(present, spec.min_replicas), spec.max_replicas)
    if up > bounded:
        return up, ""
    if blind:
        return bounded, ""
    sufficed = max((count for _, count in memory.needs), default=bounded)
    if sufficed >= bounded:
        return bounded, ""
    covered = seen.now - memory.began >= spec.window
    return (max(sufficed, up), "") if covered else (bounded, "fewer have not sufficed for long enough yet")
