"""What an admitted Job holds now: its admission, less what it will not use any more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from crds.labels import HOSTNAME, SCHEDULING_GATE
from operators.planning.batch_job import BATCH_JOB
from operators.planning.queued_kind import QueuedKind
from scheduler.objects.fleet_objects import has_ended

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


def occupied_places(pods: Iterable[Object], kind: QueuedKind = BATCH_JOB) -> Counter[tuple[str, str]]:
    """(pod set, node) → pods that are on it or pinned to it and have not ended."""
    return Counter((kind.pod_set_of(pod), node) for pod in pods if not has_ended(pod) and (node := pinned_node(pod)))


def without_left_behind(
    workload: Object, pods: Sequence[Object], node_exists: Callable[[str], bool]
) -> tuple[Sequence[Object], tuple[Object, ...]]:
    """(the others, pods on nodes that are gone and that the admission does not name any more).

    Others have taken the place of the latter; no kubelet will end them.
    """
    places = {node for _, node, _ in admitted_places(workload)}
    behind = tuple(
        pod
        for pod in pods
        if not has_ended(pod) and (node := pinned_node(pod)) and node not in places and not node_exists(node)
    )
    return [pod for pod in pods if pod not in behind] if behind else pods, behind


def admitted_places(workload: Object) -> tuple[Held, ...]:
    """(pod set, node, count) of the admission as it is written."""
    placements = ((workload.get("status") or {}).get("admission") or {}).get("placements") or ()
    return tuple((one["podSet"], one["node"], one["count"]) for one in placements)


def admitted_counts(workload: Object) -> dict[str, int]:
    """Pod set → pods that were admitted."""
    counts: dict[str, int] = {}
    for pod_set, _, count in admitted_places(workload):
        counts[pod_set] = counts.get(pod_set, 0) + count
    return counts


def held(
    workload: Object, job: Object | None, pods: Sequence[Object], stopping: bool, kind: QueuedKind = BATCH_JOB
) -> tuple[Held, ...]:
    """(pod set, node, count) that the workload holds. When it stops, only what its pods still occupy.

    `job`: the object that it governs, of this `kind`; `pods`: all pods of that object.
    """
    busy = occupied_places(pods, kind)
    holds = Counter(busy)
    if not stopping:
        admitted = admitted_counts(workload)
        needed = kind.needed(job, pods, admitted) if job is not None else {}
        spare = {pod_set: min(needed.get(pod_set, 0), count) for pod_set, count in admitted.items()}
        for (pod_set, _), count in busy.items():
            spare[pod_set] = spare.get(pod_set, 0) - count
        for pod_set, node, count in admitted_places(workload):  # in its order, so that every reader finds the same
            extra = min(max(spare[pod_set], 0), max(count - busy[pod_set, node], 0))
            holds[pod_set, node] += extra
            spare[pod_set] -= extra
    return tuple((pod_set, node, count) for (pod_set, node), count in sorted(holds.items()) if count > 0)


def free_places(workload: Object, pods: Iterable[Object], kind: QueuedKind = BATCH_JOB) -> dict[str, list[str]]:
    """Pod set → the nodes that its gated pods may be pinned to, one entry a pod, in the order of the admission."""
    busy = occupied_places(pods, kind)
    free: dict[str, list[str]] = {}
    for pod_set, node, count in admitted_places(workload):
        taken = min(busy[pod_set, node], count)
        busy[pod_set, node] -= taken  # a node may be named twice for one pod set
        free.setdefault(pod_set, []).extend([node] * (count - taken))
    return free
