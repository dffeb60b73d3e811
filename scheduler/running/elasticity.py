"""Which pods an elastic gang gives up when it shrinks to its `min_count`.

Rule: pods on the nodes where the gang has the fewest go first, so that nodes come free
whole; ties go to the last node by name.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the fleet keeps a `Running`, so that its package comes first
    from scheduler.fleet.state import WorkloadState


def extra_pods(workload: WorkloadState) -> dict[tuple[str, str], int]:
    """(pod set, node) → pods beyond `min_count`, in the order in which they go; empty for a rigid gang."""
    least = {one.name: one.min_count for one in workload.pod_sets if 0 < one.min_count < one.count}
    if not least:
        return {}
    held: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    on_node: dict[str, int] = defaultdict(int)
    for name, node, count in workload.placements:
        held[name][node] += count
        on_node[node] += count
    extra: dict[tuple[str, str], int] = {}
    for name in sorted(least):
        spare = sum(held[name].values()) - least[name]
        for node in sorted(sorted(held[name], reverse=True), key=on_node.__getitem__):
            if spare <= 0:
                break
            extra[name, node] = min(spare, held[name][node])
            spare -= extra[name, node]
    return extra


def shrunk(workload: WorkloadState) -> tuple[tuple[str, str, int], ...]:
    """The placements that are left after it has given up its extra pods, in order."""
    extra = extra_pods(workload)
    left: dict[tuple[str, str], int] = defaultdict(int)
    for name, node, count in workload.placements:
        left[name, node] += count
    for place, count in extra.items():
        left[place] -= count
    return tuple(sorted((name, node, count) for (name, node), count in left.items() if count > 0))
