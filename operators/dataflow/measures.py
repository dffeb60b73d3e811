"""Prometheus metrics of the data flow of services."""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client import Counter, Gauge

from scheduler.dataflow import Target

_OF = ["namespace", "workload"]
REPLICAS = Gauge("kekkai_dataflow_replicas", "Replicas of a service, wanted and ready.", [*_OF, "state"])
COST = Gauge("kekkai_dataflow_cost_per_hour", "Cost of what a service shall have, in its declared currency.", _OF)
SIGNAL = Gauge(
    "kekkai_dataflow_signal", "Value, forecast and capacity of a signal, in its unit.", [*_OF, "signal", "what"]
)
LOST = Gauge("kekkai_dataflow_signals_lost", "Signals of a service that cannot be used now.", _OF)
CHANGES = Counter("kekkai_dataflow_changes", "Changes that were applied.", ["what"])
_shown: dict[tuple[str, str], set[tuple[str, str]]] = {}


def show(key: tuple[str, str], target: Target, ready: int, values: Mapping[str, float]) -> None:
    """After each decision."""
    REPLICAS.labels(*key, "wanted").set(target.replicas)
    REPLICAS.labels(*key, "ready").set(ready)
    COST.labels(*key).set(target.cost / 1e6)
    LOST.labels(*key).set(sum(state != "Fresh" for state in target.states.values()))
    now: set[tuple[str, str]] = set()
    for what, numbers in (("value", values), ("forecast", target.forecasts), ("capacity", target.capacities)):
        for signal, number in numbers.items():
            SIGNAL.labels(*key, signal, what).set(number)
            now.add((signal, what))
    for signal, what in _shown.get(key, set()) - now:
        SIGNAL.remove(*key, signal, what)
    _shown[key] = now


def forget(key: tuple[str, str]) -> None:
    """The service is gone, and so are its series."""
    for signal, what in _shown.pop(key, set()):
        SIGNAL.remove(*key, signal, what)
    for state in ("wanted", "ready"):
        REPLICAS.remove(*key, state)
    COST.remove(*key)
    LOST.remove(*key)
