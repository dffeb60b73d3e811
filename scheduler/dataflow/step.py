"""One decision: what the service shall have now, from what was read and what is remembered."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from scheduler.dataflow import forecast as forecasting
from scheduler.dataflow import knee as learning
from scheduler.dataflow.choice import Classes, choose
from scheduler.dataflow.model import (
    DEMAND,
    STORAGE,
    FlowMemory,
    FlowSpec,
    Forecast,
    Observation,
    SignalSpec,
    SignalState,
    Target,
)
from scheduler.dataflow.samples import state_of
from scheduler.dataflow.sizing import Demand

_JUMP_WINDOWS = 10.0  # a gap beyond so many windows is no history any more
_MOST = 1_000_000  # replicas that are worth telling apart
_WIDEST_BAND = 0.3
_SETTLED_SECONDS = 45.0  # samples average over about this long: learn only when replicas stood still for it


@dataclass(frozen=True, slots=True)
class _Read:
    """The samples that can be used: signal → value, beside each signal's state."""

    values: Mapping[str, float]
    states: Mapping[str, SignalState]


def start(
    spec: FlowSpec,
    capacities: Mapping[str, float] | None = None,
    bandwidth_changed: float = -math.inf,
    volume_io_changed: float = -math.inf,
) -> FlowMemory:
    """The memory of a service that is new, or whose controller begins anew with what its status says.

    `capacities`: what a replica was last taken to carry, by signal; the rest begins with the user's guess.
    """
    known = capacities or {}
    knees = {}
    for one in spec.signals:
        if one.type in DEMAND and one.capacity > 0:
            low, high = one.capacity / learning.FARTHEST, one.capacity * learning.FARTHEST
            guess = known.get(one.name, one.capacity)
            knees[one.name] = learning.first(min(max(guess, low), high) if math.isfinite(guess) else one.capacity)
    return FlowMemory(knees=knees, bandwidth_changed=bandwidth_changed, volume_io_changed=volume_io_changed)


def step(spec: FlowSpec, memory: FlowMemory, seen: Observation) -> tuple[Target, FlowMemory]:
    """What the service shall have, and what to remember. Never raises on odd samples; equal input, equal result."""
    states = {one.name: state_of(one, seen.samples.get(one.name), seen.now) for one in spec.signals}
    samples = {name: seen.samples[name] for name, state in states.items() if state == "Fresh"}
    read = _Read({name: one.value for name, one in samples.items() if one is not None}, states)
    gap = seen.now - memory.last
    if gap <= 0 or gap > _JUMP_WINDOWS * max(spec.window, spec.startup, 60.0):
        memory = _anew(memory, seen.now)
    memory = _learned(spec, memory, seen, read)
    horizon = spec.startup
    moved = {
        one.name: forecasting.observe(
            memory.forecasts.get(one.name, Forecast()), read.values[one.name], seen.now, horizon
        )
        for one in spec.signals
        if one.type in DEMAND | STORAGE and one.name in read.values
    }
    memory = replace(memory, forecasts={**memory.forecasts, **moved})
    upper = {name: forecasting.upper(one, horizon, spec.quantile) for name, one in moved.items()}
    loads = _loads(spec, memory, read, upper)
    capacities = _capacities(spec, memory)
    needed = {name: _replicas(load, capacities[name]) for name, load in sorted(loads.items())}
    soft = max(
        (_replicas(load * (1 + _band(spec, memory, name, upper)), capacities[name]) for name, load in loads.items()),
        default=0,
    )
    by_type = {one.name: one.type for one in spec.signals}
    demand = Demand(
        max(needed.values(), default=0),
        sum(value for name, value in sorted(upper.items()) if by_type[name] == "ingressBytes"),
        sum(value for name, value in sorted(upper.items()) if by_type[name] in STORAGE),
    )
    blind = tuple(one.name for one in spec.signals if states[one.name] != "Fresh" and one.type != "latencySeconds")
    chosen, memory = choose(spec, memory, seen, demand, soft, blind)
    target = Target(
        replicas=chosen.replicas,
        bandwidth=chosen.bandwidth,
        volume_io=chosen.volume_io,
        states=states,
        needed=needed,
        capacities={name: capacities[name] for name in memory.knees},
        forecasts=upper,
        cost=chosen.cost,
        held=_held(chosen, blind, states),
        short=chosen.short,
    )
    return target, replace(memory, last=seen.now)


def _anew(memory: FlowMemory, now: float) -> FlowMemory:
    """The clock has jumped, or a long time went unseen: keep what was learned, drop what was measured in time."""
    calm = {name: replace(one, at=-math.inf, due=(), misses=()) for name, one in memory.forecasts.items()}
    return replace(
        memory,
        forecasts=calm,
        needs=(),
        storage=(),
        ingress=(),
        backlog={},
        steady_since=now,
        began=now,
        bandwidth_changed=min(memory.bandwidth_changed, now),
        volume_io_changed=min(memory.volume_io_changed, now),
    )


def _learned(spec: FlowSpec, memory: FlowMemory, seen: Observation, read: _Read) -> FlowMemory:
    """Update what a replica carries, and remember the backlogs."""
    steady = memory.steady_since if seen.ready == memory.ready else seen.now
    knees = dict(memory.knees)
    within = _within(spec, read)
    for one in spec.signals:
        if one.name not in knees or one.name not in read.values or not one.learn or seen.ready < 1:
            continue
        if seen.now - steady < _SETTLED_SECONDS:
            continue
        load = read.values[one.name] / seen.ready
        waits = [_flow(memory, seen, read, other) for other in spec.signals if other.of == one.name]
        known = [wait for wait in waits if wait is not None]
        if len(known) == 1 and known[0][0] > 0 and known[0][1] > 0:
            before, after, since = known[0]
            served = (read.values[one.name] * since - (after - before)) / since / seen.ready
            knees[one.name] = learning.measured(knees[one.name], served, one.capacity)
        elif within is not None and all(wait[0] <= 0 for wait in known):
            knees[one.name] = learning.judged(knees[one.name], load, within)
    backlog = {
        one.name: (seen.now, read.values[one.name] * one.per_item)
        for one in spec.signals
        if one.type == "queueDepth" and one.name in read.values
    }
    return replace(memory, knees=knees, backlog=backlog, ready=seen.ready, steady_since=steady)


def _flow(memory: FlowMemory, seen: Observation, read: _Read, one: SignalSpec) -> tuple[float, float, float] | None:
    """(backlog before, backlog now, seconds between) in the unit of the demand, if both are known."""
    if one.type != "queueDepth" or one.name not in memory.backlog or one.name not in read.values:
        return None
    at, before = memory.backlog[one.name]
    return (before, read.values[one.name] * one.per_item, seen.now - at) if seen.now > at else None


def _within(spec: FlowSpec, read: _Read) -> bool | None:
    """Whether every latency target is kept; None when no latency is known."""
    found = [read.values[one.name] <= one.target for one in spec.signals if one.target > 0 and one.name in read.values]
    return all(found) if found else None


def _loads(spec: FlowSpec, memory: FlowMemory, read: _Read, upper: Mapping[str, float]) -> dict[str, float]:
    """Signal → demand to plan for: the forecast, and what must be worked off within `drain`."""
    loads = {name: value for name, value in upper.items() if name in memory.knees}
    for one in spec.signals:
        if one.name not in read.values or one.type not in {"queueDepth", "lagSeconds"}:
            continue
        value = read.values[one.name]
        if one.of in loads:
            items = value * one.per_item if one.type == "queueDepth" else value * read.values.get(one.of, 0.0)
            loads[one.of] += items / spec.drain
        elif one.capacity > 0:
            loads[one.name] = value
    return loads


def _replicas(load: float, capacity: float) -> int:
    return min(math.ceil(load / capacity - 1e-9), _MOST)


def _band(spec: FlowSpec, memory: FlowMemory, name: str, upper: Mapping[str, float]) -> float:
    """The dead band of a demand: wider where it is noisy, so that its noise alone turns nothing."""
    if name not in upper:
        return spec.band
    expected = forecasting.point(memory.forecasts[name], spec.startup)
    noise = (upper[name] - expected) / expected if expected > 0 else 0.0
    return max(spec.band, min(noise, _WIDEST_BAND))


def _capacities(spec: FlowSpec, memory: FlowMemory) -> dict[str, float]:
    own = {one.name: one.capacity for one in spec.signals if one.capacity > 0}
    return own | {name: learning.carried(one) for name, one in memory.knees.items()}


def _held(chosen: Classes, blind: tuple[str, ...], states: Mapping[str, SignalState]) -> str:
    if blind:
        said = ", ".join(f"{name} is {states[name].lower()}" for name in blind)
        return f"{said}: nothing shrinks until it can be read"
    return chosen.held
