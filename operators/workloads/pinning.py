"""Which gated pod goes to which node of the admission, and the one patch that sends it there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from crds.labels import HOSTNAME, SCHEDULING_GATE
from operators.planning.batch_job import BATCH_JOB
from operators.planning.holding import admitted_places, free_places
from operators.planning.outlook import pod_annotations
from operators.planning.queued_kind import QueuedKind
from scheduler.objects.fleet_objects import has_ended
from scheduler.objects.pod_requests import exceeds, pod_requests, read_amounts

Object = Mapping[str, Any]
_INDEX = "batch.kubernetes.io/job-completion-index"
_JOB_OF_SET = "jobset.sigs.k8s.io/job-index"


@dataclass(frozen=True, slots=True)
class Pin:
    """Send this pod to this node."""

    pod: Object
    node: str
    annotations: Mapping[str, str] = field(default_factory=dict)  # that it gets with it


def gated(pods: Iterable[Object]) -> list[Object]:
    """Pods that wait behind our gate, in rank order: completion index, then age, then name."""
    found = [
        pod
        for pod in pods
        if any(gate["name"] == SCHEDULING_GATE for gate in pod["spec"].get("schedulingGates") or ())
        and not pod["metadata"].get("deletionTimestamp")
        and not has_ended(pod)
    ]
    return sorted(found, key=_rank)


def assign(workload: Object, pods: Sequence[Object], kind: QueuedKind = BATCH_JOB) -> tuple[tuple[Pin, ...], int]:
    """Pins for the gated pods, and how many of them are left without a place.

    What is already pinned is read from the pods themselves, so a restart in the middle
    goes on with what is left. A pod that is larger than what was admitted gets no place.
    """
    too_large = set(larger_than_admitted(workload, pods, kind))
    places: dict[str, list[str]] = {}
    for pod_set, node, count in admitted_places(workload):
        places.setdefault(pod_set, []).extend([node] * count)
    free = free_places(workload, pods, kind)
    waiting: dict[str, list[Object]] = {}
    for pod in gated(pods):
        if pod["metadata"]["name"] not in too_large:
            waiting.setdefault(kind.pod_set_of(pod), []).append(pod)
    pins: list[Pin] = []
    left = 0
    for pod_set, those in waiting.items():
        more, without = _assign(those, places.get(pod_set, []), free.get(pod_set, []))
        pins += more
        left += without
    notes = pod_annotations(workload)
    return tuple(replace(pin, annotations=notes) if notes else pin for pin in pins), left


def _assign(pods: Sequence[Object], places: Sequence[str], free: list[str]) -> tuple[list[Pin], int]:
    """Within one pod set. `places`: of the admission, by rank; `free`: those that nobody has, used up here."""
    pins: list[Pin] = []
    others: list[Object] = []
    for pod in pods:
        # Rank i has place i, in whatever order the pods turn up: neighbours in rank are neighbours in space.
        rank = _index(pod) if _set_index(pod) == 0 else None
        place = places[rank % len(places)] if rank is not None and places else None
        if place is not None and place in free and _own_place(pod) in {None, place}:
            free.remove(place)
            pins.append(Pin(pod, place))
        else:
            others.append(pod)
    left = 0
    for pod in others:
        own = _own_place(pod)
        place = next((node for node in free if own is None or node == own), None)
        if place is None:
            left += 1
            continue
        free.remove(place)
        pins.append(Pin(pod, place))
    return pins, left


def larger_than_admitted(workload: Object, pods: Iterable[Object], kind: QueuedKind = BATCH_JOB) -> list[str]:
    """Names of gated pods that ask for more than the pod set that was admitted, or are of no pod set of it."""
    counted = {one["name"]: read_amounts(one.get("requests") or {}) for one in workload["spec"].get("podSets") or ()}
    return [
        pod["metadata"]["name"]
        for pod in gated(pods)
        if exceeds(pod_requests(pod["spec"]), counted.get(kind.pod_set_of(pod), {}))
    ]


def patch(pin: Pin) -> list[dict[str, Any]]:
    """RFC 6902: pin and ungate at once, if the pod is still the one that was read.

    The API server allows additions to the node selector only while a pod is gated, so
    both must be one request: a pod is never ungated without its place.
    """
    meta, spec = pin.pod["metadata"], pin.pod["spec"]
    gates = spec["schedulingGates"]
    operations: list[dict[str, Any]] = [
        {"op": "test", "path": "/metadata/uid", "value": meta["uid"]},
        {"op": "test", "path": "/spec/schedulingGates", "value": gates},
    ]
    selector = spec.get("nodeSelector")
    if selector is None:
        operations.append({"op": "add", "path": "/spec/nodeSelector", "value": {HOSTNAME: pin.node}})
    elif HOSTNAME not in selector:
        operations.append({"op": "add", "path": f"/spec/nodeSelector/{_escaped(HOSTNAME)}", "value": pin.node})
    there = meta.get("annotations")
    if pin.annotations and there is None:
        operations.append({"op": "add", "path": "/metadata/annotations", "value": dict(pin.annotations)})
    else:
        operations += [
            {"op": "add", "path": f"/metadata/annotations/{_escaped(name)}", "value": text}
            for name, text in pin.annotations.items()
        ]
    kept = [gate for gate in gates if gate["name"] != SCHEDULING_GATE]
    if kept:
        operations.append({"op": "replace", "path": "/spec/schedulingGates", "value": kept})
    else:
        operations.append({"op": "remove", "path": "/spec/schedulingGates"})
    return operations


def _index(pod: Object) -> int | None:
    index = (pod["metadata"].get("annotations") or {}).get(_INDEX, "")
    return int(index) if index.isdigit() else None


def _own_place(pod: Object) -> str | None:
    """The hostname that the pod template itself selects."""
    return (pod["spec"].get("nodeSelector") or {}).get(HOSTNAME)


def _set_index(pod: Object) -> int:
    """Which Job of its replicated Job in a JobSet it is of: completion indexes start anew in each."""
    index = (pod["metadata"].get("labels") or {}).get(_JOB_OF_SET, "")
    return int(index) if index.isdigit() else 0


def _rank(pod: Object) -> tuple[int, int, str, str]:
    meta = pod["metadata"]
    return _set_index(pod), _index(pod) or 0, str(meta.get("creationTimestamp") or ""), meta["name"]


def _escaped(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1")
