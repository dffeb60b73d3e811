"""What one replica carries, learned while it runs.

Two numbers: what it does flat out, measured while work waits at every moment, and the share
of that within which the latency target holds, which moves down fast when the target is
missed below it and up slowly while it is kept at it. Both stay within bounds around what the
user wrote, so that no stretch of odd samples can make a service starve or explode.
"""

from __future__ import annotations

from dataclasses import replace

from scheduler.dataflow.model import Knee

FIRST_SHARE = 0.8
LEAST_SHARE, MOST_SHARE = 0.3, 0.97
FARTHEST = 8.0  # times the user's guess, either way
_GAIN = 0.15
_DOWN, _UP = 0.96, 1.004
_TRIED, _PROBE = 0.6, 1.01


def first(capacity: float) -> Knee:
    """From the user's guess of what a replica carries within the target."""
    return Knee(capacity / FIRST_SHARE, FIRST_SHARE)


def carried(knee: Knee) -> float:
    """What a replica carries within the target."""
    return knee.saturated * knee.share


def measured(knee: Knee, served: float, guess: float) -> Knee:
    """One replica served so much while work waited all the time."""
    low, high = guess / FIRST_SHARE / FARTHEST, guess / FIRST_SHARE * FARTHEST
    if not low / 2 <= served <= high * 2:
        return knee
    gain = _GAIN if knee.measured else 0.5
    value = knee.saturated + gain * (served - knee.saturated)
    return Knee(min(max(value, low), high), knee.share, True)


def judged(knee: Knee, load: float, within: bool) -> Knee:
    """At `load` a replica, with nothing left over from before, the target was kept or missed."""
    planned = carried(knee)
    if not within and load <= planned:
        return replace(knee, share=max(LEAST_SHARE, knee.share * _DOWN))
    if within and load > knee.saturated:
        return replace(knee, saturated=knee.saturated + _GAIN * (load - knee.saturated))
    if within and load >= _TRIED * planned:
        if not knee.measured:
            return replace(knee, saturated=knee.saturated * _PROBE)
        return replace(knee, share=min(MOST_SHARE, knee.share * _UP))
    return knee
