"""The admission check `provisioning-<class>`: capacity is asked of a cluster autoscaler before a Workload starts.

It speaks ProvisioningRequest (autoscaling.x-k8s.io/v1; source: kubernetes/autoscaler
cluster-autoscaler/apis/provisioningrequest). A request that fails is made anew after a
pause, at most three times; then the check is Rejected. Capacity that is revoked while
the Workload runs puts it back.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from crds.conditions import FINISHED, is_true
from crds.labels import API_VERSION, MANAGED_BY, MANAGED_BY_VALUE, TENANT
from operators.planning.outlook import check_state
from scheduler.objects.fleet_objects import seconds

Object = Mapping[str, Any]

PREFIX = "provisioning-"
CLASS_DOMAIN = "autoscaling.x-k8s.io"
ATTEMPTS = 3
_PAUSE, _LONGEST = 60.0, 1800.0  # seconds before another attempt; doubled each time
_POLL = 5.0  # seconds between two looks at a request that is not decided
PENDING, READY, RETRY, REJECTED = "Pending", "Ready", "Retry", "Rejected"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the check says, and what is to be done about its requests."""

    state: str
    message: str
    create: int | None = None  # the attempt to ask for
    delete: tuple[int, ...] = ()  # attempts whose requests are to go
    again: float | None = None  # seconds until the next look
    attempt: int | None = None  # whose capacity its pods use


def checks_of(workload: Object) -> tuple[str, ...]:
    """The checks of a Workload that are this module's."""
    return tuple(name for name in workload["spec"].get("admissionChecks") or () if name.startswith(PREFIX))


def class_of(check: str) -> str:
    """The provisioning class: check `provisioning-check-capacity` asks `check-capacity.autoscaling.x-k8s.io`."""
    return f"{check.removeprefix(PREFIX)}.{CLASS_DOMAIN}"


def request_name(workload: Object, check: str, attempt: int) -> str:
    """The name of an attempt's ProvisioningRequest; the Workload's uid tells it from an earlier one's."""
    meta = workload["metadata"]
    mark = hashlib.sha256(f"{meta['uid']}/{check}".encode()).hexdigest()[:8]
    return f"{meta['name'][:40].rstrip('-.')}-{mark}-{attempt}"


def judge(workload: Object, requests: Mapping[int, Object], may_ask: bool, now: datetime) -> Verdict:
    """One check of a Workload, from its requests by attempt. `may_ask`: its quota has room for it."""
    everything = tuple(sorted(requests))
    if is_true(workload, FINISHED):
        return Verdict(READY, "it has finished", delete=everything)
    if not workload["spec"].get("active", True):
        return Verdict(PENDING, "spec.active is false", delete=everything)
    admitted = (workload.get("status") or {}).get("admission") is not None
    if not requests:
        if admitted:
            return Verdict(RETRY, "its request for capacity is gone")
        if not may_ask:
            return Verdict(PENDING, "its quota has no room yet; capacity is asked for when it has", again=_POLL)
        return Verdict(PENDING, "capacity is asked for", create=1, again=_POLL)
    attempt = max(requests)
    one = requests[attempt]
    if _says(one, "CapacityRevoked"):
        return Verdict(
            RETRY if admitted else PENDING,
            f"capacity was revoked{_why(one, 'CapacityRevoked')}",
            delete=everything,
            again=_POLL,
        )
    if _says(one, "Failed"):
        return _failed(attempt, f"no capacity{_why(one, 'Failed')}", _since(one, "Failed"), now)
    if _says(one, "BookingExpired") and not admitted:
        return Verdict(
            PENDING, "the capacity was not used in time; it is asked for anew", delete=everything, again=_POLL
        )
    if _says(one, "Provisioned"):
        again = None if admitted else _POLL
        return Verdict(READY, f"capacity is there{_why(one, 'Provisioned')}", again=again, attempt=attempt)
    kind = "Accepted" if _condition(one, "Accepted") else "Provisioned"
    return Verdict(PENDING, f"capacity is asked for{_why(one, kind)}", again=_POLL)


def _failed(attempt: int, why: str, since: float, now: datetime) -> Verdict:
    if attempt >= ATTEMPTS:
        return Verdict(REJECTED, f"{why}, {attempt} times")
    due = since + min(_PAUSE * 2 ** (attempt - 1), _LONGEST)
    left = due - now.timestamp()
    if left > 0:
        return Verdict(PENDING, f"{why}; attempt {attempt + 1} of {ATTEMPTS} follows", again=left)
    return Verdict(PENDING, f"{why}; capacity is asked for again", create=attempt + 1, again=_POLL)


def request_body(workload: Object, check: str, attempt: int) -> dict[str, Any]:
    """The ProvisioningRequest of an attempt. It belongs to its Workload and goes with it."""
    name = request_name(workload, check, attempt)
    sets = [
        {"podTemplateRef": {"name": template_name(name, one["name"])}, "count": one["count"]}
        for one in workload["spec"].get("podSets") or ()
    ]
    spec = {"provisioningClassName": class_of(check), "podSets": sets}
    return {
        "apiVersion": f"{CLASS_DOMAIN}/v1",
        "kind": "ProvisioningRequest",
        "metadata": _meta(workload, name),
        "spec": spec,
    }


def template_bodies(workload: Object, check: str, attempt: int) -> list[dict[str, Any]]:
    """The PodTemplates that the request names: one container that asks for what a pod of the set asks for in all."""
    name = request_name(workload, check, attempt)
    return [_template(workload, name, one) for one in workload["spec"].get("podSets") or ()]


def _template(workload: Object, request: str, pod_set: Object) -> dict[str, Any]:
    requests = dict(pod_set.get("requests") or {})
    # An extended resource must be its own limit.
    limits = {resource: amount for resource, amount in requests.items() if "/" in resource}
    container = {"name": "work", "image": "unused", "resources": {"requests": requests, "limits": limits}}
    spec: dict[str, Any] = {"containers": [container], "restartPolicy": "Never"}
    for field in ("nodeSelector", "tolerations"):
        if pod_set.get(field):
            spec[field] = pod_set[field]
    return {
        "apiVersion": "v1",
        "kind": "PodTemplate",
        "metadata": _meta(workload, template_name(request, pod_set["name"])),
        "template": {"spec": spec},
    }


def template_name(request: str, pod_set: str) -> str:
    """Of the PodTemplate of one pod set."""
    return f"{request}-{pod_set}"


def entry(workload: Object, check: str, verdict: Verdict, now: str) -> dict[str, Any]:
    """The check's entry in status.admissionChecks; its time changes with its state only."""
    before = check_state(workload, check)
    since = before["lastTransitionTime"] if before is not None and before["state"] == verdict.state else now
    out = {"name": check, "state": verdict.state, "message": verdict.message[:4096], "lastTransitionTime": since}
    if verdict.attempt is None:
        return out
    return out | {
        "podAnnotations": {
            f"{CLASS_DOMAIN}/consume-provisioning-request": request_name(workload, check, verdict.attempt),
            f"{CLASS_DOMAIN}/provisioning-class-name": class_of(check),
        }
    }


def has_room(devices: int, available: Mapping[str, int], classes: Iterable[str]) -> bool:
    """Whether some class that it may use (any when there is none) has so many devices left in the tenant's quota."""
    wanted = tuple(classes) or tuple(available)
    return devices == 0 or any(devices <= available.get(one, 0) for one in wanted)


def _meta(workload: Object, name: str) -> dict[str, Any]:
    meta = workload["metadata"]
    owner = {"apiVersion": API_VERSION, "kind": "Workload", "name": meta["name"], "uid": meta["uid"]}
    return {
        "name": name,
        "namespace": meta["namespace"],
        "labels": {MANAGED_BY: MANAGED_BY_VALUE, TENANT: workload["spec"].get("tenant") or ""},
        "ownerReferences": [{**owner, "controller": True}],
    }


def _condition(request: Object, kind: str) -> Object | None:
    conditions = (request.get("status") or {}).get("conditions") or ()
    return next((one for one in conditions if one["type"] == kind), None)


def _says(request: Object, kind: str) -> bool:
    found = _condition(request, kind)
    return found is not None and found["status"] == "True"


def _why(request: Object, kind: str) -> str:
    message = str((_condition(request, kind) or {}).get("message") or "")
    return f": {message}" if message else ""


def _since(request: Object, kind: str) -> float:
    return seconds((_condition(request, kind) or {}).get("lastTransitionTime"))
