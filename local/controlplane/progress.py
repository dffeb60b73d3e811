"""Progress of long work: a spinner with the time spent on a terminal, heartbeat lines elsewhere."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from types import TracebackType

from rich.console import Console

_HEARTBEAT_SECONDS = 20.0


class Progress:
    """`with Progress() as p: with p.step("building …"): …`; steps may nest, the innermost shows."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._steps: list[tuple[str, float]] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._status = self._console.status("") if self._console.is_terminal else None

    def __enter__(self) -> Progress:
        if self._status:
            self._status.start()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
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
        last_line = time.monotonic()
        while not self._stop.wait(0.5):
            if not self._steps:
                continue
            title, started = self._steps[-1]
            spent = time.monotonic() - started
            if self._status:
                self._status.update(f"{title} … {spent:.0f} s")
            elif time.monotonic() - last_line >= _HEARTBEAT_SECONDS:
                last_line = time.monotonic()
                self._console.print(f"  {title} … {spent:.0f} s", highlight=False)
