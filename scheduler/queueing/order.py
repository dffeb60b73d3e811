"""Who is next: priority first, then age. Another order is another function with this signature."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from scheduler.fleet import WorkloadState

Order = Callable[[Iterable[WorkloadState]], list[WorkloadState]]


def by_priority_then_age(pending: Iterable[WorkloadState]) -> list[WorkloadState]:
    """Higher priority first, then the older, then by name, so that the order is total."""
    return sorted(pending, key=lambda workload: (-workload.priority, workload.created_at, workload.key))
