"""What the queue must know of a kind in order to queue it: one small pure protocol, one implementation a kind.

A queued object has pods of one or several shapes (pod sets). The queue suspends it until
it is admitted, lets its controller make the pods, and pins each gated pod to a place of
its pod set. A kind that cannot be suspended (plain pods) is stopped by deleting its pods.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

from operators.runtime.resources import ResourceType
from scheduler.objects.shape import Object, Shape

Counts = Mapping[str, int]
"""Pod set → pods."""
End = tuple[bool, str, str]
"""(succeeded, reason, message) of an object that has ended."""


class QueuedKind(Protocol):
    """One kind. Every method is a function of its arguments."""

    @property
    def resource(self) -> ResourceType:
        """Where the API server serves it."""
        ...

    @property
    def mark(self) -> str:
        """How the names of its shadow Workloads begin."""
        ...

    @property
    def between(self) -> tuple[str, ...]:
        """Kinds of objects that stand between it and its pods in the chain of owners."""
        ...

    @property
    def suspendable(self) -> bool:
        """Whether its own controller takes its pods away when it is suspended."""
        ...

    def applies(self, obj: Object) -> bool:
        """Whether this object is queued by itself; False for one that is part of another queued one."""
        ...

    def shape(
        self,
        obj: Object,
        parts: Sequence[Object],
        limit_ranges: Iterable[Object],
        runtime_classes: Mapping[str, Object],
    ) -> Shape:
        """What it asks of the queue. Its pod sets have different names. `parts`: its pods, and what stands between."""
        ...

    def is_suspended(self, obj: Object) -> bool:
        """Whether its controller makes no pods now."""
        ...

    def suspension(self, obj: Object, suspend: bool, admitted: Counts) -> dict[str, Any] | None:
        """The merge patch that stops or starts it, for these pods; None when there is nothing to patch."""
        ...

    def end(self, obj: Object, pods: Sequence[Object]) -> End | None:
        """How it has ended, if it has."""
        ...

    def needed(self, obj: Object, pods: Sequence[Object], admitted: Counts) -> Counts:
        """How many pods of each set may still run at once, at most those admitted."""
        ...

    def ready(self, obj: Object, pods: Sequence[Object], admitted: Counts) -> bool:
        """Whether all that were admitted are ready or done."""
        ...

    def pod_set_of(self, pod: Object) -> str:
        """The pod set of one of its pods; "" when that cannot be told."""
        ...


def end_by_condition(obj: Object, complete: str) -> End | None:
    """The end of an object that says so by the condition `complete` or the condition Failed."""
    for one in (obj.get("status") or {}).get("conditions") or ():
        if one["status"] == "True" and one["type"] in {complete, "Failed"}:
            well = one["type"] == complete
            reason = "Succeeded" if well else str(one.get("reason") or "Failed")
            return well, reason, str(one.get("message") or "")
    return None


def less_the_done(
    admitted: Counts, pods: Iterable[Object], pod_set_of: Callable[[Object], str], done: Callable[[Object], bool]
) -> Counts:
    """All that were admitted, less the pods that are done: those are not made again."""
    gone = Counter(pod_set_of(pod) for pod in pods if done(pod))
    return {name: max(0, count - gone[name]) for name, count in admitted.items()}
