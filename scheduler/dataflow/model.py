"""What the data-flow decision takes and gives. Times are seconds on one clock; rates are per second."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from crds.errors import InvalidInput

SignalType = Literal[
    "ingressBytes",  # bytes/s that arrive: demand, and what the bandwidth class must carry
    "tokens",  # tokens/s that arrive: demand
    "requests",  # requests/s that arrive: demand
    "concurrency",  # requests in flight, waiting ones included: demand
    "queueDepth",  # items that wait
    "lagSeconds",  # how far a stream's reader is behind
    "storageReadBytes",  # bytes/s read from the volumes
    "storageWriteBytes",  # bytes/s written to the volumes
    "latencySeconds",  # the latency that has a target, such as the p95
]
DEMAND: frozenset[str] = frozenset({"ingressBytes", "tokens", "requests", "concurrency"})
STORAGE: frozenset[str] = frozenset({"storageReadBytes", "storageWriteBytes"})
SignalState = Literal["Fresh", "Missing", "Stale", "Invalid"]


@dataclass(frozen=True, slots=True)
class SignalSpec:
    """One signal. `capacity` is what one replica carries, in the signal's unit: a first guess that is then learned.

    `target`: of latencySeconds, in seconds. `of`, `per_item`: of queueDepth, the demand signal that the items
    belong to and how much of its unit one item is. A sample older than `max_age` is stale.
    """

    name: str
    type: SignalType
    capacity: float = 0.0
    learn: bool = True
    target: float = 0.0
    of: str = ""
    per_item: float = 1.0
    max_age: float = 60.0


@dataclass(frozen=True, slots=True)
class RateClass:
    """A bandwidth or volume I/O class: bytes/s, and its price a replica (or volume) and hour in millionths."""

    name: str
    rate: float
    cost: int = 0


@dataclass(frozen=True, slots=True)
class FlowSpec:
    """What a service declares.

    `startup`: seconds from asking for a replica to its serving. `drain`: seconds in which a backlog shall be
    worked off. `quantile`: the part of forecasts that the replicas must be enough for. `band`: relative dead band
    between growing and shrinking. `window`: seconds for which fewer must have sufficed before shrinking.
    `shared_volume`: the volume is one for all replicas, else each has its own. `*_interval`: least seconds
    between two changes of a class. `usable`: the part of a class's rate that is planned with.
    """

    signals: tuple[SignalSpec, ...]
    min_replicas: int = 1
    max_replicas: int = 100
    startup: float = 60.0
    drain: float = 60.0
    quantile: float = 0.95
    band: float = 0.1
    window: float = 180.0
    replica_cost: int = 1_000_000
    bandwidth: tuple[RateClass, ...] = ()
    volume_io: tuple[RateClass, ...] = ()
    shared_volume: bool = False
    bandwidth_interval: float = 0.0
    volume_io_interval: float = 6 * 3600.0
    usable: float = 0.8

    def __post_init__(self) -> None:
        names = [signal.name for signal in self.signals]
        if len(set(names)) != len(names):
            raise _bad("signals", "a name is there twice", "give each signal its own name")
        if not 0 <= self.min_replicas <= self.max_replicas or self.max_replicas < 1:
            raise _bad("maxReplicas", "it is below minReplicas", "raise maxReplicas")
        if not 0.5 <= self.quantile < 1.0:
            raise _bad("quantile", f"{self.quantile} is not from 0.5 to below 1", "write 0.95")
        for what in ("startup", "drain", "band", "window", "bandwidth_interval", "volume_io_interval"):
            if not (math.isfinite(getattr(self, what)) and getattr(self, what) >= 0):
                raise _bad(what, "it is no number of at least 0", "write how long it takes")
        if not 0.0 < self.usable <= 1.0 or self.drain <= 0:
            raise _bad("usable", "usable must be above 0 and at most 1, and drain above 0", "write 0.8")
        known = {signal.name: signal for signal in self.signals}
        for signal in self.signals:
            _check(signal, known)
        for field_name, classes in (("bandwidth", self.bandwidth), ("volumeIO", self.volume_io)):
            if len({one.name for one in classes}) != len(classes):
                raise _bad(field_name, "a class is there twice", "keep one entry a class")
            if any(not (math.isfinite(one.rate) and one.rate > 0 and one.cost >= 0) for one in classes):
                raise _bad(field_name, "a class has no rate above 0", "write bytes a second")


def _check(signal: SignalSpec, known: Mapping[str, SignalSpec]) -> None:
    where = f"signals[{signal.name}]"
    if not (math.isfinite(signal.capacity) and signal.capacity >= 0):
        raise _bad(f"{where}.capacity", "it is no number of at least 0", "write what one replica carries")
    if signal.type in DEMAND - {"ingressBytes"} and not signal.capacity:
        raise _bad(f"{where}.capacity", "it is missing", "write roughly what one replica carries; it is learned then")
    if signal.type == "latencySeconds" and not (math.isfinite(signal.target) and signal.target > 0):
        raise _bad(f"{where}.target", "it is missing", "write the latency to keep, in seconds")
    if signal.type == "queueDepth" and not signal.of and signal.capacity <= 0:
        raise _bad(f"{where}.of", "it is missing", "name the demand signal whose items wait, or give capacity")
    if signal.of and (signal.of not in known or known[signal.of].type not in DEMAND):
        raise _bad(f"{where}.of", f"{signal.of!r} is no demand signal", "name one of the others")
    if signal.type == "lagSeconds" and not signal.of:
        raise _bad(f"{where}.of", "it is missing", "name the demand signal that it lags behind")
    if signal.max_age <= 0 or signal.per_item <= 0:
        raise _bad(where, "maxAge and perItem must be above 0", "raise them")


def _bad(where: str, what: str, fix: str) -> InvalidInput:
    return InvalidInput(what, where=f"dataFlow.{where}", fix=fix)


@dataclass(frozen=True, slots=True)
class Sample:
    """What a signal read, and when it was true."""

    value: float
    at: float


@dataclass(frozen=True, slots=True)
class Observation:
    """The service at `now`. A signal that could not be read is None or not there.

    `replicas`: asked for; `ready`: serving. `bandwidth`, `volume_io`: the classes in force ("" = none yet), and
    `*_asked`: those asked for, which may not be in force yet.
    """

    now: float
    samples: Mapping[str, Sample | None]
    replicas: int
    ready: int
    bandwidth: str = ""
    bandwidth_asked: str = ""
    volume_io: str = ""
    volume_io_asked: str = ""


@dataclass(frozen=True, slots=True)
class Forecast:
    """Damped Holt state of one demand: level, trend a second, and how earlier forecasts came out."""

    level: float = 0.0
    trend: float = 0.0
    at: float = -math.inf
    due: tuple[tuple[float, float], ...] = ()  # (when, forecast), not yet come
    misses: tuple[tuple[float, float, float], ...] = ()  # (when, forecast, actual - forecast)


@dataclass(frozen=True, slots=True)
class Knee:
    """What one replica carries: `saturated` flat out, `share` of it within the target."""

    saturated: float
    share: float
    measured: bool = False


@dataclass(frozen=True, slots=True)
class FlowMemory:
    """What must last between steps. A restart may begin with `start(spec, ...)` and the last known capacities."""

    knees: Mapping[str, Knee] = field(default_factory=dict)
    forecasts: Mapping[str, Forecast] = field(default_factory=dict)
    needs: tuple[tuple[float, int], ...] = ()  # (when, replicas that would have sufficed)
    storage: tuple[tuple[float, float], ...] = ()  # (when, bytes/s to plan volumes for)
    ingress: tuple[tuple[float, float], ...] = ()  # (when, bytes/s to plan bandwidth for)
    last: float = -math.inf
    began: float = math.inf  # seen without a break since
    steady_since: float = -math.inf  # the number of ready replicas has not changed since
    ready: int = -1
    backlog: Mapping[str, tuple[float, float]] = field(default_factory=dict)  # signal → (when, items)
    bandwidth_changed: float = -math.inf
    volume_io_changed: float = -math.inf


@dataclass(frozen=True, slots=True)
class Target:
    """What the service shall have. `states`: each signal's; `held`: why something is kept as it is, if it is.

    `needed`: replicas each signal asks for; `capacities`: what one replica is taken to carry; `cost`: millionths an
    hour; `short`: demand goes beyond what maxReplicas and the classes can carry.
    """

    replicas: int
    bandwidth: str
    volume_io: str
    states: Mapping[str, SignalState]
    needed: Mapping[str, int]
    capacities: Mapping[str, float]
    forecasts: Mapping[str, float]
    cost: int
    held: str = ""
    short: bool = False
