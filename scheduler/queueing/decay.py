"""Use that fades: who took much lately goes behind who did not, though both hold the same now.

The mean of what is held, weighted so that a moment's weight halves with every half-life:
after `dt` seconds of holding `c`, a value `v` becomes `(1-A)·v + A·c` with
`A = 1 - 0.5^(dt / half-life)` (Kueue, KEP-4136 admission fair sharing). For a use that
changes in steps this is exact however seldom it is worked out, so it is only worked out
when the use changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

HALF_LIFE = 4 * 3600.0  # seconds


def left(seconds: float, half_life: float) -> float:
    """How much of a value is left after so many seconds: 1 at once, 0.5 after a half-life.

    Time that runs backwards (a clock was set) fades nothing.
    """
    return float(0.5 ** (max(seconds, 0.0) / half_life))


@dataclass(frozen=True, slots=True)
class DecayedUsage:
    """What one tenant used of one class: `value` devices at `since`, and `current` held from then on."""

    value: float = 0.0
    current: int = 0
    since: float = 0.0  # seconds since the epoch

    def at(self, now: float, half_life: float = HALF_LIFE) -> float:
        """Devices, faded to `now`."""
        return self.current + (self.value - self.current) * left(now - self.since, half_life)

    def changed(self, now: float, current: int, half_life: float = HALF_LIFE) -> Self:
        """The value once `current` devices are held, from `now` on."""
        return type(self)(self.at(now, half_life), current, max(now, self.since))

    def wire(self) -> dict[str, Any]:
        """For an object's status: to a thousandth of a device and half a second."""
        return {"milliDevices": round(self.value * 1000), "held": self.current, "since": round(self.since)}

    @classmethod
    def read(cls, stored: Mapping[str, Any]) -> Self:
        """From `wire`."""
        return cls(stored["milliDevices"] / 1000, stored.get("held", 0), float(stored["since"]))
