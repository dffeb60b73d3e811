"""Who is told why it waits, and when.

Thousands may wait, and each word told is a write to the API server. So a workload that
is admitted soon is told nothing, another code is told as soon as it is seen, and other
words of the same code are told seldom; all of it within a budget, which is small while
work is being started, since admissions matter more than the words of those that wait.
Each look at the reasons is bounded too: the
waiting are looked at in turns, so that a plan costs no more when more wait.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from scheduler import Reason
from scheduler.decision import Reasons

_GRACE = 1.5  # seconds that a workload waits before it is told why
_LOOKS = 400  # workloads looked at in one go
_PAUSE = 0.5  # seconds between two goes, at least
_RATE_QUIET, _RATE_BUSY, _BURST = 50.0, 2.0, 100.0  # tellings a second over all; busy: work was admitted just now
_BUSY = 2.0  # seconds for which an admission counts as just now
_WORDS_AFTER = 5.0  # seconds after which new words of the same code may be told
_WORDS_RATE = 20.0  # and how many such a second, over all


@dataclass(slots=True)
class _Told:
    reasons: tuple[Reason, ...]
    at: float  # monotonic


class Telling:
    """Puts reasons on the desk (`waiting`) and tells the workloads' controller."""

    def __init__(self, waiting: dict[str, tuple[Reason, ...]], tell: Callable[[str], None]) -> None:
        self._waiting, self._tell = waiting, tell
        self._new: dict[str, float] = {}  # waits since, not told yet; the oldest first
        self._told: dict[str, _Told] = {}  # in the order in which they are looked at again
        self._unseen = 0  # how many of the told have not been looked at since the last plan
        self._last = 0.0
        self._busy = 0.0  # when the last plan admitted something
        self._tokens = _BURST  # tellings that may be made now
        self._words = 0.0  # tellings of new words that may be made now

    def queued(self, key: str) -> None:
        """It waits, from now on or again."""
        if key not in self._told:
            self._new.setdefault(key, time.monotonic())

    def forget(self, key: str) -> None:
        """It does not wait any more."""
        self._new.pop(key, None)
        self._told.pop(key, None)
        self._waiting.pop(key, None)

    def planned(self, admitted: bool = False) -> None:
        """There is a new plan: everybody's reasons may be others. `admitted`: it starts something."""
        self._unseen = len(self._told)
        if admitted:
            self._busy = time.monotonic()

    def go(self, reasons: Reasons) -> float | None:
        """Tell what is due, from reasons that are of the fleet as it is now. Returns when to come again, seconds."""
        now = time.monotonic()
        if now - self._last >= _PAUSE:
            rate = _RATE_BUSY if now - self._busy < _BUSY else _RATE_QUIET
            self._tokens = min(self._tokens + rate * (now - self._last), _BURST)
            self._words = min(self._words + _WORDS_RATE * (now - self._last), _WORDS_RATE)
            self._last = now
            looks = self._tell_new(reasons, now, _LOOKS)
            self._look_again(reasons, now, looks)
        pauses = [self._last + _PAUSE - now] if self._unseen else []
        if self._new:
            pauses.append(max(next(iter(self._new.values())) + _GRACE, self._last + _PAUSE) - now)
        return min(pauses, default=None)

    def _tell_new(self, reasons: Reasons, now: float, looks: int) -> int:
        while self._new and looks > 0 and self._tokens >= 1:
            key, since = next(iter(self._new.items()))
            if now < since + _GRACE:
                break
            del self._new[key]
            looks -= 1
            why = reasons.of(key)
            if why is not None:
                self._say(key, why, now)
        return looks

    def _look_again(self, reasons: Reasons, now: float, looks: int) -> None:
        for _ in range(min(looks, self._unseen)):
            if self._tokens < 1:
                break
            self._unseen -= 1
            key, told = next(iter(self._told.items()))
            del self._told[key]
            why = reasons.of(key)
            if why is None:
                continue
            if [one.code for one in why] != [one.code for one in told.reasons]:
                self._say(key, why, now)
            elif why != told.reasons and now >= told.at + _WORDS_AFTER and self._words >= 1:
                self._words -= 1
                self._say(key, why, now)
            else:
                self._told[key] = told

    def _say(self, key: str, why: tuple[Reason, ...], now: float) -> None:
        self._tokens -= 1
        self._told[key] = _Told(why, now)
        self._waiting[key] = why
        self._tell(key)
