"""Results of other threads, brought to the event loop many at a time.

`asyncio.wrap_future` wakes the loop once for each; when a batch of changes is done at once, or
the worker answers in bursts, one wake-up serves them all.
"""

from __future__ import annotations

import asyncio
from collections import deque
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")


class Completions:
    """For one event loop; `wait` is called on it, the futures are completed on any thread."""

    def __init__(self) -> None:
        self._done: deque[tuple[asyncio.Future[Any], Future[Any]]] = deque()
        self._woken = False
        self._loop: asyncio.AbstractEventLoop | None = None

    async def wait(self, future: Future[T]) -> T:
        """The future's result. A caller that is cancelled leaves the work to go on."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        waiter: asyncio.Future[T] = self._loop.create_future()
        future.add_done_callback(lambda done: self._completed(waiter, done))
        return await waiter

    def _completed(self, waiter: asyncio.Future[Any], done: Future[Any]) -> None:
        self._done.append((waiter, done))
        if not self._woken and self._loop is not None and not self._loop.is_closed():
            self._woken = True
            self._loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        self._woken = False  # before looking: what comes meanwhile wakes the loop again
        while self._done:
            waiter, done = self._done.popleft()
            if waiter.done():
                continue
            error = done.exception()
            if error is not None:
                waiter.set_exception(error)
            else:
                waiter.set_result(done.result())
