"""How many devices may be asked for while a machine is on its way: a quantile of what was asked for lately.

Time is cut into windows as long as a machine takes to come. What arrived in each is kept as
a histogram in which old windows count less and less, so that the memory is small, and what
is kept ready shrinks again by itself, down to nothing, when nobody comes any more.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import ceil, inf

# Upper edges of the bins, devices; about a quarter apart.
EDGES = (
    0,
    1,
    2,
    3,
    4,
    5,
    6,
    8,
    10,
    12,
    16,
    20,
    24,
    32,
    40,
    48,
    64,
    80,
    96,
    128,
    160,
    192,
    256,
    320,
    384,
    512,
    768,
    1024,
)
_CATCH_UP = 100_000  # windows that passed unseen and are counted one by one at most


@dataclass(frozen=True, slots=True)
class Outlook:
    """What a pool keeps ready for. Seconds; `quantile` 0 turns it off."""

    quantile: float = 0.0
    window: float = 300.0  # as long as a machine takes to come
    half_life: float = 3600.0


@dataclass(frozen=True, slots=True)
class Arrivals:
    """Devices that started in a pool, window by window. `start`: of the open window, seconds since the epoch."""

    start: float
    open: int = 0  # devices so far in the open window
    weights: tuple[float, ...] = (0.0,) * (len(EDGES) + 1)

    def at(self, now: float, outlook: Outlook) -> Arrivals:
        """The same with all windows closed that have passed."""
        passed = int((now - self.start) // outlook.window) if now >= self.start else 0
        if passed <= 0:
            return self
        keep = 0.5 ** (outlook.window / outlook.half_life)
        weights = [one * keep for one in self.weights]
        weights[bisect_left(EDGES, self.open)] += 1.0
        empty = min(passed - 1, _CATCH_UP)
        if empty:
            weights = [one * keep**empty for one in weights]
            weights[0] += (1.0 - keep**empty) / (1.0 - keep)
        return Arrivals(self.start + passed * outlook.window, 0, tuple(weights))

    def add(self, devices: int) -> Arrivals:
        """So many more in the open window."""
        return replace(self, open=self.open + devices) if devices else self

    def need(self, outlook: Outlook) -> int:
        """Devices that the next window stays within, as often as the quantile says; at most the last edge."""
        total = sum(self.weights)
        if outlook.quantile <= 0 or total <= 0:
            return 0
        reached, bound = 0.0, outlook.quantile * total
        for edge, weight in zip((*EDGES, EDGES[-1]), self.weights, strict=True):
            reached += weight
            if reached >= bound - 1e-9:
                return edge
        return EDGES[-1]

    def lapses(self, outlook: Outlook) -> float:
        """When the open window closes, and the need may change; inf while nothing is needed."""
        return self.start + outlook.window if self.need(outlook) or self.open else inf


def machines_short(need: int, free: int, per_node: int) -> int:
    """Machines to ask for so that `need` devices are free."""
    return max(ceil((need - free) / per_node), 0)


def observed(
    before: Mapping[str, Arrivals], outlooks: Mapping[str, Outlook], started: Mapping[str, int], now: float
) -> dict[str, Arrivals]:
    """With what has started in each pool in this plan, devices. Pools whose outlook is off are left out."""
    out: dict[str, Arrivals] = {}
    for pool, outlook in sorted(outlooks.items()):
        if outlook.quantile > 0:
            known = before[pool].at(now, outlook) if pool in before else Arrivals(now)
            out[pool] = known.add(started.get(pool, 0))
    return out
