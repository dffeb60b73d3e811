"""What a controller is: the kinds it listens to, the keys they touch, and one visit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol, runtime_checkable

from operators.runtime.workqueue import WorkQueue

Key = tuple[str, str]  # namespace ("" when cluster-scoped), name
Touches = Callable[[Mapping[str, Any]], Iterable[Key]]


class Controller(Protocol):
    """One level-triggered control loop."""

    name: str
    workers: int
    watches: Mapping[str, Touches]
    """Kind → the keys to visit when an object of that kind changes."""

    async def reconcile(self, key: Key) -> float | None:
        """Read, decide, apply, write status. Returns seconds until the next visit, or None."""
        ...


@runtime_checkable
class Attachable(Protocol):
    """A controller that also puts keys into its own queue, at another's word or by its own clock."""

    def attach(self, queue: WorkQueue[Key]) -> None:
        """Given once, before anything runs."""
        ...


@runtime_checkable
class Prioritised(Protocol):
    """A controller some of whose keys are not to wait behind thousands of others."""

    def urgent(self, key: Key) -> bool:
        """Whether this visit starts, stops or frees something. Asked at every change: it must cost next to nothing."""
        ...
