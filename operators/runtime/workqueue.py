"""A work queue of keys: coalescing, one visit a key at a time, retried with back-off.

kopf logs errors of `on.event` handlers and never retries; so handlers only add keys
here, and a visit that fails comes again after 0.1 s, 0.2 s … up to a minute, with jitter.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
import random
import time
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from prometheus_client import Counter, Gauge, Histogram

K = TypeVar("K", bound=Hashable)
log = logging.getLogger(__name__)

DEPTH = Gauge("kekkai_operator_queue_depth", "Keys that wait for a visit.", ["controller"])
VISITS = Histogram("kekkai_operator_visit_seconds", "Time of one reconcile visit.", ["controller"])
_URGENT_IN_A_ROW = 16  # then one of the others, so that they come on too
_TURN = 0.005  # seconds of visits without a wait, after which reading and answering have their turn

RETRIES = Counter("kekkai_operator_retries_total", "Visits that failed and will be retried.", ["controller"])


class WorkQueue(Generic[K]):
    """`visit(key)` returns None, or seconds after which to come again."""

    def __init__(
        self,
        name: str,
        visit: Callable[[K], Awaitable[float | None]],
        workers: int = 4,
        base_delay: float = 0.1,
        max_delay: float = 60.0,
        urgent: Callable[[K], bool] = lambda key: False,
    ) -> None:
        """`urgent`: asked when a key is added; what is urgent is visited before the rest."""
        self.name = name
        self._visit = visit
        self._workers = workers
        self._base, self._max = base_delay, max_delay
        self._ready: dict[K, None] = {}  # insertion order is the order of visits
        self._first: dict[K, None] = {}  # the same, of those that are urgent
        self._is_urgent = urgent
        self._in_a_row = 0
        self._turn_ends = 0.0
        self._busy: set[K] = set()
        self._again: set[K] = set()  # changed while it was being visited
        self._failures: dict[K, int] = {}
        self._later: list[tuple[float, int, K]] = []
        self._due: dict[K, float] = {}
        self._tick = itertools.count()
        self._wake = asyncio.Event()
        # Looked up once: a visit may be shorter than three look-ups of a labelled metric.
        self._depth, self._seconds = DEPTH.labels(name), VISITS.labels(name)

    def add(self, key: K) -> None:
        """Visit soon. Many adds before the visit are one visit."""
        if key in self._busy:
            self._again.add(key)
        elif key in self._first:
            pass
        elif self._is_urgent(key):
            self._ready.pop(key, None)
            self._first[key] = None
        else:
            self._ready[key] = None
        self._due.pop(key, None)
        self._wake.set()

    def add_after(self, key: K, seconds: float) -> None:
        """Visit after a while, unless it is visited before; the earliest wish counts."""
        due = time.monotonic() + max(0.0, seconds)
        if key not in self._due or due < self._due[key]:
            self._due[key] = due
            heapq.heappush(self._later, (due, next(self._tick), key))
            self._wake.set()

    @property
    def idle(self) -> bool:
        """Nothing to do now and nothing in the works (delayed keys may remain)."""
        return not self._ready and not self._first and not self._busy

    async def run(self) -> None:
        """Serve until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self._workers):
                group.create_task(self._serve())
            group.create_task(self._clock())

    async def _clock(self) -> None:
        while True:
            now = time.monotonic()
            while self._later and self._later[0][0] <= now:
                due, _, key = heapq.heappop(self._later)
                if self._due.get(key) == due:
                    self.add(key)
            pause = min(self._later[0][0] - now, 1.0) if self._later else 1.0
            # Short naps keep this simple: delays need no better than this precision.
            await asyncio.sleep(min(max(pause, 0.01), 0.2))

    async def _serve(self) -> None:
        while True:
            if not self._ready and not self._first:
                self._wake.clear()
                await self._wake.wait()
                continue
            if time.monotonic() >= self._turn_ends:
                # Many visits wait for nothing, and would otherwise keep events and answers waiting.
                await asyncio.sleep(0)
                self._turn_ends = time.monotonic() + _TURN
                continue
            key = self._take()
            self._depth.set(len(self._ready) + len(self._first))
            self._busy.add(key)
            try:
                await self._one(key)
            finally:
                self._busy.discard(key)
                if key in self._again:
                    self._again.discard(key)
                    self.add(key)

    def _take(self) -> K:
        urgent = bool(self._first) and not (self._ready and self._in_a_row >= _URGENT_IN_A_ROW)
        self._in_a_row = self._in_a_row + 1 if urgent else 0
        found = self._first if urgent else self._ready
        key = next(iter(found))
        del found[key]
        return key

    async def _one(self, key: K) -> None:
        started = time.monotonic()
        try:
            again = await self._visit(key)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            count = self._failures[key] = self._failures.get(key, 0) + 1
            delay = min(self._base * 2 ** min(count - 1, 16), self._max) * random.uniform(0.8, 1.2)  # noqa: S311
            RETRIES.labels(self.name).inc()
            level = logging.INFO if count < 3 else logging.WARNING
            log.log(
                level,
                "%s %s failed (try %d, again in %.1f s): %s",
                self.name,
                key,
                count,
                delay,
                error,
                exc_info=not hasattr(error, "problem"),
            )
            self.add_after(key, delay)
        else:
            self._failures.pop(key, None)
            if again is not None:
                self.add_after(key, again)
        finally:
            self._seconds.observe(time.monotonic() - started)
