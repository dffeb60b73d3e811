"""Who is next: priority first, then the tenant with the smaller share, then age.

An order is a generator over the pending workloads. It may read the usage as it stands
when it is asked for the next one, since the plan counts each decision at once. Another
order is another function with this signature.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping
from heapq import heapify, heappop, heappush

from crds.labels import ACCELERATOR
from scheduler.fleet import Fleet, WorkloadState
from scheduler.fleet.shape import Shape

Usage = Mapping[tuple[str, str], int]  # (tenant, accelerator) → devices
Order = Callable[[Fleet, Usage], Iterator[WorkloadState]]


def by_priority_then_age(fleet: Fleet, usage: Usage) -> Iterator[WorkloadState]:
    """Higher priority first, then the older, then by name, so that the order is total."""
    return iter(sorted(fleet.pending.values(), key=_rank))


def by_priority_then_share(fleet: Fleet, usage: Usage) -> Iterator[WorkloadState]:
    """Higher priority first; among equals the tenant with the smallest share, with its oldest workload.

    Shares (see `Shares`) are taken as they stand after each decision, so that tenants
    take turns until a pool is full instead of the first to come taking all.
    """
    shares = Shares(fleet, usage)
    queues: dict[int, dict[str, deque[WorkloadState]]] = defaultdict(lambda: defaultdict(deque))
    for workload in sorted(fleet.pending.values(), key=_rank):
        queues[workload.priority][workload.tenant].append(workload)
    for priority in sorted(queues, reverse=True):
        waiting = queues[priority]
        heap = [(*shares.after(queue[0]), queue[0].created_at, tenant) for tenant, queue in waiting.items()]
        heapify(heap)
        while heap:
            tenant = heappop(heap)[-1]
            queue = waiting[tenant]
            yield queue.popleft()
            if queue:
                # Only this tenant's usage has changed meanwhile: the other entries still hold.
                heappush(heap, (*shares.after(queue[0]), queue[0].created_at, tenant))


class Shares:
    """How much of the cloud a tenant has, for its weight."""

    def __init__(self, fleet: Fleet, usage: Usage) -> None:
        self._fleet, self._usage = fleet, usage
        self._wanted: dict[Shape, tuple[int, str]] = {}
        self._total: dict[str, int] = defaultdict(int)
        for pool in fleet.pools.values():
            self._total[pool.accelerator] += pool.maximum * pool.per_node

    def after(self, workload: WorkloadState) -> tuple[float, float]:
        """(what its tenant would borrow with this workload, what it uses now), each ÷ weight.

        Each is the largest part of any class's devices. What the workload would add counts
        for the first, so that nobody begins to borrow while another is within its nominal
        quota; where several classes would do, the one where it borrows least.
        """
        tenant = self._fleet.tenants.get(workload.tenant)
        if tenant is None:
            return 0.0, 0.0  # it is told that its tenant does not exist, and takes nothing
        devices, chosen = self._wants(workload)
        borrows = uses = 0.0
        would = []
        for accelerator, quota in tenant.quota.items():
            used, total = self._usage.get((tenant.name, accelerator), 0), max(self._total.get(accelerator, 0), 1)
            uses = max(uses, used / total)
            borrows = max(borrows, (used - quota.nominal) / total)
            if devices and chosen in {"", accelerator}:
                would.append((used + devices - quota.nominal) / total)
        return max(borrows, min(would, default=0.0), 0.0) / tenant.weight, uses / tenant.weight

    def _wants(self, workload: WorkloadState) -> tuple[int, str]:
        """(devices, the class that it selects; empty when any will do)."""
        shape = self._fleet.shapes[workload.key]
        wanted = self._wanted.get(shape)
        if wanted is None:
            devices = sum(self._fleet.devices_of(one.requests) * one.count for one in shape.pod_sets)
            classes = [one.node_selector[ACCELERATOR] for one in shape.pod_sets if ACCELERATOR in one.node_selector]
            wanted = self._wanted[shape] = devices, classes[0] if classes else ""
        return wanted


def _rank(workload: WorkloadState) -> tuple[int, float, str]:
    return -workload.priority, workload.created_at, workload.key
