"""Progress of long work: a spinner with the time spent on a terminal, heartbeat lines elsewhere."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from types import TracebackType

from rich.console import Console

_FIRST_SECONDS = 2.0  # what takes longer is named while it runs
_HEARTBEAT_SECONDS = 15.0


class Progress:
    """`with Progress() as p: with p.step("building …"): …`; both may nest, the innermost step shows."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._steps: list[tuple[str, float]] = []
        self._depth = 0
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._status = self._console.status("") if self._console.is_terminal else None

    def __enter__(self) -> Progress:
        self._depth += 1
        if self._depth == 1:
            if self._status:
                self._status.start()
            self._stop.clear()
            self._thread = threading.Thread(target=self._beat, daemon=True)
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._depth -= 1
        if self._depth or self._thread is None:
            return
        self._stop.set()
        self._thread.join()
        if self._status:
            self._status.stop()

    @contextlib.contextmanager
    def step(self, title: str) -> Iterator[None]:
        """Show `title` while the body runs, and how long it took when that was long."""
        started = time.monotonic()
        self._steps.append((title, started))
        try:
            yield
        finally:
            self._steps.pop()
        spent = time.monotonic() - started
        if spent >= 1.0:
            self._console.print(f"  {title} ({spent:.0f} s)", highlight=False)

    def _beat(self) -> None:
        shown, due = "", 0.0
        while not self._stop.wait(0.25):
            current = self._steps[-1:]  # one look: the list changes in another thread
            if not current:
                continue
            title, started = current[0]
            spent = time.monotonic() - started
            if title != shown:
                shown, due = title, _FIRST_SECONDS
            if self._status:
                self._status.update(f"{title} … {spent:.0f} s")
            elif spent >= due:
                due = spent + _HEARTBEAT_SECONDS
                self._console.print(f"  {title} … {spent:.0f} s", highlight=False)
