"""Bounding how fast refused requests can grow the log, without losing count of them.

Each denial is an entry of its own while tokens last: a bucket for each kind of subject and one
for all. Beyond that, denials are counted and the counts become one entry of type
`denials-suppressed` every few seconds. A refusal never depends on this.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

_MAX_SUBJECTS = 4096


class _Bucket:
    __slots__ = ("level", "seen")

    def __init__(self, level: float, seen: float) -> None:
        self.level, self.seen = level, seen

    def take(self, rate: float, burst: float, now: float) -> bool:
        self.level = min(burst, self.level + (now - self.seen) * rate)
        self.seen = now
        if self.level < 1:
            return False
        self.level -= 1
        return True


class DenialLimiter:
    """Not thread-safe: used by the journal's thread only. `clock` is monotonic seconds."""

    def __init__(self, rate: float, burst: int, clock: Callable[[], float]) -> None:
        self._rate, self._burst, self._clock = rate, burst, clock
        self._all = _Bucket(burst, clock())
        self._subjects: dict[str, _Bucket] = {}
        self._suppressed: Counter[str] = Counter()

    def admit(self, reason: str, subject: str) -> bool:
        """Whether this denial gets its own entry; otherwise it is counted under its reason."""
        now = self._clock()
        if len(self._subjects) >= _MAX_SUBJECTS:
            self._subjects.clear()
        # One subject (a key, an address) may use a quarter, so that it cannot hide the others.
        share = max(1.0, self._burst / 4)
        bucket = self._subjects.setdefault(f"{reason}\n{subject}", _Bucket(share, now))
        if bucket.take(self._rate / 4, share, now) and self._all.take(self._rate, self._burst, now):
            return True
        self._suppressed[reason] += 1
        return False

    def drain(self) -> dict[str, int]:
        """Counts since the last call, and forget them."""
        counts = dict(self._suppressed)
        self._suppressed.clear()
        return counts
