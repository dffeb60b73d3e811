"""What an admitted Job holds now: its admission, less what it will not use any more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from crds.labels import HOSTNAME, SCHEDULING_GATE
from operators.planning.fleet_objects import has_ended
from operators.planning.job_shape import POD_SET, pods_at_once

Object = Mapping[str, Any]
Held = tuple[str, str, int]  # pod set, node, count


def pinned_node(pod: Object) -> str:
    """The node that a pod is on or pinned to; "" while it is gated."""
    spec = pod["spec"]
    if spec.get("nodeName"):
        return str(spec["nodeName"])
    if any(gate["name"] == SCHEDULING_GATE for gate in spec.get("schedulingGates") or ()):
        return ""
    return str((spec.get("nodeSelector") or {}).get(HOSTNAME, ""))


def occupied(pods: Iterable[Object]) -> Counter[str]:
    """Node → pods that are on it or pinned to it and have not ended."""
    return Counter(node for pod in pods if not has_ended(pod) and (node := pinned_node(pod)))


def admitted_slots(workload: Object) -> Counter[str]:
    """Node → pods that the admission allows on it."""
    slots: Counter[str] = Counter()
    for one in ((workload.get("status") or {}).get("admission") or {}).get("placements") or ():
        slots[one["node"]] += one["count"]
    return slots


def admitted_places(workload: Object) -> tuple[Held, ...]:
    """(pod set, node, count) of the admission as it is written."""
    placements = ((workload.get("status") or {}).get("admission") or {}).get("placements") or ()
    return tuple((one["podSet"], one["node"], one["count"]) for one in placements)


def needed(job: Object | None, pods: Iterable[Object], admitted: int) -> int:
    """How many pods may still run at once. Shrinks as the last completions are reached."""
    if job is None:
        return 0
    if (job["spec"].get("completions")) is None and (job.get("status") or {}).get("succeeded"):
        return sum(1 for pod in pods if not has_ended(pod))  # a work queue that runs out
    return min(admitted, pods_at_once(job))


def held(
    workload: Object, job: Object | None, pods: Sequence[Object], stopping: bool
) -> tuple[tuple[str, str, int], ...]:
    """(pod set, node, count) that the workload holds. When it stops, only what its pods still occupy."""
    slots, busy = admitted_slots(workload), occupied(pods)
    holds = Counter(busy)
    if not stopping:
        spare = needed(job, pods, sum(slots.values())) - sum(busy.values())
        for node in slots:  # in the order of the admission, so that every reader finds the same
            extra = min(max(spare, 0), max(slots[node] - busy[node], 0))
            holds[node] += extra
            spare -= extra
    return tuple((POD_SET, node, count) for node, count in sorted(holds.items()) if count > 0)


def free_slots(workload: Object, pods: Iterable[Object]) -> list[str]:
    """The nodes that gated pods may be pinned to, one entry a pod, in the order of the admission."""
    slots, busy = admitted_slots(workload), occupied(pods)
    return [node for node, count in slots.items() for _ in range(count - busy[node])]
