"""What waits and may start by its tenants' quotas, counted by shape: what growth is advised for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping

from scheduler.autoscale.advice import Waiting
from scheduler.fleet import Fleet, PoolState
from scheduler.fleet.rights import Rights
from scheduler.fleet.shape import Shape
from scheduler.queueing.entitlements import Entitlements

PoolsFor = Callable[[Rights, Shape], tuple[list[PoolState], dict[str, str]]]


def waiting_for_machines(
    fleet: Fleet, entitlements: Entitlements, taken: Mapping[Shape, int], pools_for: PoolsFor
) -> list[Waiting]:
    """`taken`: workloads by shape that this plan gave room to already."""
    left: dict[tuple[str, str], int] = {}  # devices by tenant and class
    counts: Counter[tuple[frozenset[str], Shape]] = Counter()
    for priority in sorted(fleet.backlog.lines, reverse=True):
        tenants = fleet.backlog.lines[priority]
        for name in sorted(tenants):
            tenant = fleet.tenants.get(name)
            if tenant is None or tenant.hold:
                continue
            for _, shape in tenants[name].heads():
                pools, _ = pools_for(fleet.rights.of[name], shape)
                if not pools:
                    continue
                each = sum(fleet.devices_of(one.requests) * one.count for one in shape.pod_sets)
                count = len(tenants[name][shape])
                if each:
                    classes = {pool.accelerator for pool in pools}
                    for one in sorted(classes):
                        left.setdefault((name, one), entitlements.available(name, one))
                    best = max(sorted(classes), key=lambda one: left[name, one])
                    count = min(count, max(left[name, best], 0) // each)
                    left[name, best] -= count * each
                counts[frozenset(pool.name for pool in pools), shape] += count
    gone = dict(taken)
    out = []
    for (pools_of, shape), count in counts.items():
        less = min(gone.get(shape, 0), count)
        gone[shape] = gone.get(shape, 0) - less
        if count > less:
            out.append(Waiting(shape, pools_of, count - less))
    return out
