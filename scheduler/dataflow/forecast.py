"""Short-term demand: damped Holt trend, and a margin from how forecasts of this service came out.

The margin is a quantile of the misses of those earlier forecasts whose level was nearest to
the present one, so that a quiet service that bursts and a busy one that is steady each keep
the margin that they need. Source of the smoothing: Holt (1957), damped after Gardner and
McKenzie (1985), with gains for uneven steps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from scheduler.dataflow.model import Forecast

LEVEL_SECONDS = 30.0
TREND_SECONDS = 120.0
DAMPING_SECONDS = 90.0
HISTORY_SECONDS = 2400.0
MOST_BEYOND = 1.5  # times the highest demand of the history: a trend is not followed further
_FEW = 8  # misses; with fewer the margin is a guess
_FIRST_MARGIN = 0.25
_NEAREST = 0.4  # of the misses


def observe(forecast: Forecast, value: float, now: float, horizon: float) -> Forecast:
    """Take in a value at `now`, and note what is forecast for `now + horizon`. `value` is finite and at least 0."""
    step = now - forecast.at
    if not 0 < step <= 10 * max(horizon, LEVEL_SECONDS):
        return replace(forecast, level=value, trend=0.0, at=now, due=((now + horizon, value),))
    expected = max(0.0, forecast.level + forecast.trend * step)
    level = expected + (1 - math.exp(-step / LEVEL_SECONDS)) * (value - expected)
    slope = (level - forecast.level) / step
    trend = forecast.trend + (1 - math.exp(-step / TREND_SECONDS)) * (slope - forecast.trend)
    misses = [miss for miss in forecast.misses if miss[0] > now - HISTORY_SECONDS]
    misses += [(now, said, value - said) for when, said in forecast.due if when <= now]
    due = [one for one in forecast.due if one[0] > now]
    fresh = Forecast(level, trend, now, (), tuple(misses))
    return replace(fresh, due=(*due, (now + horizon, point(fresh, horizon))))


def point(forecast: Forecast, horizon: float) -> float:
    """The expected demand `horizon` seconds on, at least 0."""
    ahead = DAMPING_SECONDS * (1 - math.exp(-horizon / DAMPING_SECONDS))
    return max(0.0, forecast.level + forecast.trend * ahead)


def upper(forecast: Forecast, horizon: float, quantile: float) -> float:
    """The demand that will not be exceeded then in `quantile` of the cases, within reason."""
    expected = point(forecast, horizon)
    if len(forecast.misses) < _FEW:
        return expected * (1 + _FIRST_MARGIN)
    nearest = sorted(forecast.misses, key=lambda miss: (abs(miss[1] - expected), -miss[0]))
    kept = nearest[: max(_FEW, math.ceil(_NEAREST * len(nearest)))]
    seen = max(max(miss[1] + miss[2] for miss in forecast.misses), forecast.level)
    return min(max(0.0, expected + quantile_of([miss[2] for miss in kept], quantile)), MOST_BEYOND * seen)


def quantile_of(values: Sequence[float], quantile: float) -> float:
    """Linear interpolation between order statistics; `values` is not empty."""
    ordered = sorted(values)
    place = quantile * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])
