"""What a Job asks of the queue: its pod set, priority and keys; or why it cannot be queued.

A gang of `parallelism` pods is one pod set. What the queue does not model (required
affinities, claims, other schedulers) is refused with a reason, because a Job that is
admitted and then cannot be bound would hold its room for nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from crds.errors import InvalidInput
from crds.labels import CONFIDENTIAL, KEYS, PRIORITY, SCHEDULING_GATE
from operators.planning.pod_requests import limit_defaults, pod_requests, show_amounts
from scheduler import Reason

Object = Mapping[str, Any]
POD_SET = "main"
_PRIORITY = re.compile(r"^-?[0-9]{1,4}$")
_TEES = {"-snp": "sev-snp", "-tdx": "tdx"}

NOT_GATED = "NotGated"
UNSUPPORTED_PLACEMENT = "UnsupportedPlacement"
RUNTIME_CLASS_NOT_FOUND = "RuntimeClassNotFound"
INVALID_PRIORITY = "InvalidPriority"
INVALID_RESOURCES = "InvalidResources"
INVALID_KEYS = "InvalidKeys"
NOTHING_TO_RUN = "NothingToRun"
RUN_BY_ANOTHER = "RunByAnother"


@dataclass(frozen=True, slots=True)
class Shape:
    """The part of a Workload's spec that is derived from its Job, in wire form."""

    pod_sets: list[dict[str, Any]] = field(default_factory=list)
    priority: int = 0
    keys: list[dict[str, str]] = field(default_factory=list)
    refusal: Reason | None = None


class _Refused(Exception):
    def __init__(self, code: str, message: str, nearest: str) -> None:
        super().__init__(message)
        self.reason = Reason(code, message, nearest)


def shape_of(
    job: Object, limit_ranges: Iterable[Object] = (), runtime_classes: Mapping[str, Object] | None = None
) -> Shape:
    """The shape of a batch/v1 Job. `runtime_classes` by name; `limit_ranges` of its namespace."""
    try:
        return _shape(job, limit_ranges, runtime_classes or {})
    except _Refused as refused:
        return Shape(refusal=refused.reason)
    except InvalidInput as error:
        return Shape(refusal=Reason(INVALID_RESOURCES, error.problem.what, error.problem.fix))


def _shape(job: Object, limit_ranges: Iterable[Object], runtime_classes: Mapping[str, Object]) -> Shape:
    pod = (job["spec"].get("template") or {}).get("spec") or {}
    if job["spec"].get("managedBy", "kubernetes.io/job-controller") != "kubernetes.io/job-controller":
        raise _Refused(RUN_BY_ANOTHER, "spec.managedBy names another controller", "remove spec.managedBy")
    if not any(gate.get("name") == SCHEDULING_GATE for gate in pod.get("schedulingGates") or ()):
        raise _Refused(
            NOT_GATED,
            f"the pod template lacks the scheduling gate {SCHEDULING_GATE}",
            "make the Job again; admission adds the gate while its policy is in force",
        )
    count = pods_at_once(job)
    if count < 1:
        raise _Refused(NOTHING_TO_RUN, "spec.parallelism is 0", "raise spec.parallelism")
    pod_set = pod_set_of(pod, count, limit_ranges, runtime_classes)
    return Shape([pod_set], _priority(job), _keys(job))


def pods_at_once(job: Object) -> int:
    """How many pods the Job controller will run now: min(parallelism, completions that remain)."""
    spec, status = job["spec"], job.get("status") or {}
    parallelism = spec.get("parallelism")
    completions = spec.get("completions")
    if parallelism is None:
        parallelism = 1
    if completions is None:
        # A work queue: once a pod has succeeded, no more are started.
        return int(parallelism)
    return max(0, min(int(parallelism), int(completions) - int(status.get("succeeded") or 0)))


def pod_set_of(
    pod: Object, count: int, limit_ranges: Iterable[Object], runtime_classes: Mapping[str, Object]
) -> dict[str, Any]:
    """One PodSet in wire form from a pod spec."""
    selector = dict(pod.get("nodeSelector") or {})
    tolerations = [_toleration(one) for one in pod.get("tolerations") or ()]
    _refuse_unmodelled(pod)
    selector.update(_simple_affinity(pod))
    name = pod.get("runtimeClassName") or ""
    overhead = None
    if name:
        found = runtime_classes.get(name)
        if found is None:
            raise _Refused(
                RUNTIME_CLASS_NOT_FOUND,
                f"runtime class {name} does not exist",
                "name one that `kubectl get runtimeclass` lists",
            )
        overhead = (found.get("overhead") or {}).get("podFixed")
        scheduling = found.get("scheduling") or {}
        selector.update(scheduling.get("nodeSelector") or {})
        tolerations += [_toleration(one) for one in scheduling.get("tolerations") or ()]
        tee = tee_of(found)
        if tee:
            selector.setdefault(CONFIDENTIAL, tee)
    requests, limits = limit_defaults(limit_ranges)
    amounts = pod_requests(pod, requests, limits, overhead)
    # Stated in full, as the API server's defaults complete it: so an equal shape compares equal.
    pod_set: dict[str, Any] = {
        "name": POD_SET,
        "count": count,
        "requests": show_amounts(amounts),
        "runtimeClassName": name,
    }
    if selector:
        pod_set["nodeSelector"] = selector
    if tolerations:
        pod_set["tolerations"] = tolerations
    return pod_set


def tee_of(runtime_class: Object) -> str:
    """The CPU TEE that a runtime class runs pods in, by its handler's name (Kata: kata-qemu-snp, kata-qemu-tdx)."""
    for name in (str(runtime_class.get("handler", "")), str(runtime_class["metadata"]["name"])):
        for part, tee in _TEES.items():
            if part in name:
                return tee
    return ""


def _refuse_unmodelled(pod: Object) -> None:
    affinity = pod.get("affinity") or {}
    required = "requiredDuringSchedulingIgnoredDuringExecution"
    found = ""
    if pod.get("nodeName"):
        found = "spec.nodeName"
    elif pod.get("schedulerName", "default-scheduler") != "default-scheduler":
        found = "spec.schedulerName"
    elif pod.get("resourceClaims"):
        found = "spec.resourceClaims"
    elif (affinity.get("podAffinity") or {}).get(required):
        found = "required podAffinity"
    elif (affinity.get("podAntiAffinity") or {}).get(required):
        found = "required podAntiAffinity"
    elif any(one.get("whenUnsatisfiable") != "ScheduleAnyway" for one in pod.get("topologySpreadConstraints") or ()):
        found = "topologySpreadConstraints with DoNotSchedule"
    if found:
        raise _Refused(
            UNSUPPORTED_PLACEMENT, f"the pod template uses {found}, which the queue cannot honour", "remove it"
        )


def _simple_affinity(pod: Object) -> dict[str, str]:
    """Required node affinity as labels, where it is one term of `key In [value]`."""
    node = ((pod.get("affinity") or {}).get("nodeAffinity") or {}).get("requiredDuringSchedulingIgnoredDuringExecution")
    terms = (node or {}).get("nodeSelectorTerms") or []
    if not terms:
        return {}
    expressions = terms[0].get("matchExpressions") or []
    simple = all(one.get("operator") == "In" and len(one.get("values") or ()) == 1 for one in expressions)
    if len(terms) > 1 or terms[0].get("matchFields") or not simple:
        raise _Refused(
            UNSUPPORTED_PLACEMENT,
            "the pod template's required nodeAffinity is more than one term of `key In [value]`",
            "use spec.nodeSelector",
        )
    return {one["key"]: one["values"][0] for one in expressions}


def _toleration(one: Object) -> dict[str, Any]:
    return {
        "key": one.get("key") or "",
        "operator": one.get("operator") or "Equal",
        "value": one.get("value") or "",
        "effect": one.get("effect") or "",
    }


def _priority(job: Object) -> int:
    text = (job["metadata"].get("labels") or {}).get(PRIORITY, "0")
    if not _PRIORITY.fullmatch(text) or not -1000 <= int(text) <= 1000:
        raise _Refused(INVALID_PRIORITY, f"label {PRIORITY} is {text[:63]!r}", "set a whole number from -1000 to 1000")
    return int(text)


def _keys(job: Object) -> list[dict[str, str]]:
    meta = job["metadata"]
    text = (meta.get("annotations") or {}).get(KEYS) or (meta.get("labels") or {}).get(KEYS) or ""
    names = list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if len(names) > 16 or any(not re.fullmatch(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?", name) for name in names):
        raise _Refused(INVALID_KEYS, f"{KEYS} is not a list of at most 16 key names", "write names, comma separated")
    return [{"name": name} for name in names]
