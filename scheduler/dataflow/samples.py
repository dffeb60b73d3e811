"""Which samples can be trusted: missing, stale, from the future, not a number, negative; counters that start anew."""

from __future__ import annotations

import math
from dataclasses import dataclass

from scheduler.dataflow.model import Sample, SignalSpec, SignalState

LARGEST = 1e24  # no service moves so much; a number beyond is a fault of whoever wrote it
FUTURE_SECONDS = 30.0  # how far another machine's clock may be ahead of ours


def state_of(spec: SignalSpec, sample: Sample | None, now: float) -> SignalState:
    """How far this sample may be used at `now`."""
    if sample is None:
        return "Missing"
    if not math.isfinite(sample.at) or sample.at > now + FUTURE_SECONDS:
        return "Invalid"
    if now - sample.at > spec.max_age:
        return "Stale"
    if not 0 <= sample.value <= LARGEST:
        # An idle service has no latency: a quantile over no request is not a number.
        return "Missing" if math.isnan(sample.value) and spec.type == "latencySeconds" else "Invalid"
    return "Fresh"


@dataclass(frozen=True, slots=True)
class Counter:
    """Turns a counter's readings into a rate. A reading below the last is a restart from 0, as in Prometheus."""

    value: float = math.nan
    at: float = math.nan

    def read(self, value: float, at: float) -> tuple[Counter, float | None]:
        """The counter after this reading, and the rate since the last one; None where there is none."""
        if not (math.isfinite(value) and math.isfinite(at) and value >= 0):
            return self, None
        fresh = Counter(value, at)
        if math.isnan(self.value) or not at > self.at:
            return fresh, None
        return fresh, (value - self.value if value >= self.value else value) / (at - self.at)
