"""One pod template as a pod set: what a pod takes, which nodes suit it; or why the queue cannot honour it.

What is not modelled (required pod affinities, claims, other schedulers) is refused with a
reason, because what is admitted and then cannot be bound would hold its room for nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from crds.labels import CONFIDENTIAL, SCHEDULING_GATE
from scheduler.objects.pod_requests import limit_defaults, pod_requests, show_amounts
from scheduler.objects.queue_settings import pod_set_settings
from scheduler.objects.shape import (
    INVALID_SETTING,
    NOT_GATED,
    RUNTIME_CLASS_NOT_FOUND,
    UNSUPPORTED_PLACEMENT,
    Object,
    Refused,
)

POD_SET = "main"
"""The name of the one pod set of an object that has one template."""
_TEES = {"-snp": "sev-snp", "-tdx": "tdx"}


def is_gated(pod: Object) -> bool:
    """Whether a pod spec carries our scheduling gate."""
    return any(gate.get("name") == SCHEDULING_GATE for gate in pod.get("schedulingGates") or ())


def refuse_ungated(pod: Object, what: str) -> None:
    """A template without the gate is not queued: its pods would start wherever and whenever they like."""
    if not is_gated(pod):
        raise Refused(
            NOT_GATED,
            f"the pod template lacks the scheduling gate {SCHEDULING_GATE}",
            f"make the {what} again; admission adds the gate while its policy is in force",
        )


def pod_set_of(
    template: Object,
    count: int,
    limit_ranges: Iterable[Object],
    runtime_classes: Mapping[str, Object],
    name: str = POD_SET,
    owner: Object | None = None,
) -> dict[str, Any]:
    """One PodSet in wire form from a pod template (metadata, spec), or a pod.

    `owner`: the queued object where it has this template only, so that its own
    annotations may speak for the pod set.
    """
    pod = template.get("spec") or {}
    selector = dict(pod.get("nodeSelector") or {})
    tolerations = [_toleration(one) for one in pod.get("tolerations") or ()]
    _refuse_unmodelled(pod)
    selector.update(_simple_affinity(pod))
    runtime_class = pod.get("runtimeClassName") or ""
    overhead = None
    if runtime_class:
        found = runtime_classes.get(runtime_class)
        if found is None:
            raise Refused(
                RUNTIME_CLASS_NOT_FOUND,
                f"runtime class {runtime_class} does not exist",
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
        "name": name,
        "count": count,
        "requests": show_amounts(amounts),
        "runtimeClassName": runtime_class,
    }
    pod_set.update(_settings(template, owner, count, amounts))
    if selector:
        pod_set["nodeSelector"] = selector
    if tolerations:
        pod_set["tolerations"] = tolerations
    return pod_set


def _settings(template: Object, owner: Object | None, count: int, amounts: Mapping[str, int]) -> dict[str, Any]:
    found = pod_set_settings(template, owner)
    if owner is None:
        found.pop("minCount", None)  # only a Job can be told to run with fewer pods
    if "minCount" in found:
        found["minCount"] = min(found["minCount"], count)  # the count shrinks as completions are reached
    devices = sum(amount for resource, amount in amounts.items() if is_device(resource))
    if found.get("deviceMilli", 1000) < 1000 and devices != 1:
        raise Refused(INVALID_SETTING, f"a pod asks for {devices} devices and a share of one", "ask for one device")
    return found


def is_device(resource: str) -> bool:
    """Whether a resource name is a vendor's (extended resource), such as nvidia.com/gpu."""
    return "/" in resource and not resource.startswith("kubernetes.io/")


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
        raise Refused(
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
        raise Refused(
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
