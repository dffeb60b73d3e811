"""How long a slot of a pool waits after its machines failed to start: a fault is not bought over and over."""

from __future__ import annotations

from collections.abc import Callable

_FIRST, _MOST = 10.0, 600.0  # seconds
_FORGET = 3600.0  # seconds after the last failure


class Backoff:
    """By machine name: doubling from 10 s to 10 min. It lives as long as the process."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._failures: dict[str, tuple[int, float]] = {}  # name → (failures in a row, seconds of the last)

    def failed(self, name: str) -> None:
        """A machine of this name was given up before it was of use."""
        count, _ = self._failures.get(name, (0, 0.0))
        self._failures[name] = (count + 1, self._clock())

    def succeeded(self, name: str) -> None:
        self._failures.pop(name, None)

    def wait(self, name: str) -> float:
        """Seconds until another machine of this name may be asked for; 0: now."""
        count, last = self._failures.get(name, (0, 0.0))
        if not count:
            return 0.0
        passed = self._clock() - last
        if passed > _FORGET:
            del self._failures[name]
            return 0.0
        return max(min(_FIRST * 2.0 ** (count - 1), _MOST) - passed, 0.0)
