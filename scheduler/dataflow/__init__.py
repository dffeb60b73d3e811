"""Data flow of services, pure: from signals to replicas, a bandwidth class and a volume I/O class.

`step(spec, memory, observation)` is the whole of it: it checks the samples, learns what one
replica carries, forecasts demand over the time that a replica takes to start, and chooses
the cheapest replicas and classes that meet it. It must not know Prometheus, Kubernetes or
any clock: time comes with the observation.
"""

from __future__ import annotations

from scheduler.dataflow.model import (
    FlowMemory,
    FlowSpec,
    Observation,
    RateClass,
    Sample,
    SignalSpec,
    SignalState,
    SignalType,
    Target,
)
from scheduler.dataflow.step import start, step

__all__ = [
    "FlowMemory",
    "FlowSpec",
    "Observation",
    "RateClass",
    "Sample",
    "SignalSpec",
    "SignalState",
    "SignalType",
    "Target",
    "start",
    "step",
]
