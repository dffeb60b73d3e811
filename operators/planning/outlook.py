"""What keeps a Workload out of the queue until somebody acts, read from its own spec and status.

The planner and the workloads controller must agree on it: what the one does not count
as waiting, the other says why.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from crds.conditions import timestamp
from scheduler import Reason
from scheduler.objects.fleet_objects import runtime_left

Object = Mapping[str, Any]

MAXIMUM_RUNTIME_EXCEEDED = "MaximumRuntimeExceeded"
REQUEUE_LIMIT_EXCEEDED = "RequeueLimitExceeded"
CHECK_REJECTED = "AdmissionCheckRejected"
CHECK_RETRY = "AdmissionCheckRetry"
PODS_READY_TIMEOUT = "PodsReadyTimeout"

_AGAIN = "set spec.active to false and then to true"


def shut_out(workload: Object) -> Reason | None:
    """Why it cannot be admitted whatever room there is; None when it may."""
    spec, status = workload["spec"], workload.get("status") or {}
    if runtime_left(workload) == 0:
        message = f"it has run for the {spec['maximumRuntimeSeconds']} s that spec.maximumRuntimeSeconds allows"
        return Reason(MAXIMUM_RUNTIME_EXCEEDED, message, f"raise spec.maximumRuntimeSeconds, or {_AGAIN}")
    limit, count = (spec.get("podsReady") or {}).get("backoffLimit"), (status.get("requeue") or {}).get("count") or 0
    if limit is not None and count > limit:
        message = f"its pods did not become ready in time, {count} times"
        return Reason(REQUEUE_LIMIT_EXCEEDED, message, f"mend the pods, then {_AGAIN}")
    for name in spec.get("admissionChecks") or ():
        check = check_state(workload, name)
        if check is not None and check["state"] == "Rejected":
            message = f"check {name}: {check.get('message') or 'rejected'}"
            return Reason(CHECK_REJECTED, message, f"mend what it names, then {_AGAIN}")
    return None


def check_state(workload: Object, name: str) -> Object | None:
    """What an admission check says, if it has said anything."""
    checks = (workload.get("status") or {}).get("admissionChecks") or ()
    return next((one for one in checks if one["name"] == name), None)


def check_to_stop(workload: Object) -> Reason | None:
    """A check of an admitted Workload that does not let it go on: Retry or Rejected."""
    for name in workload["spec"].get("admissionChecks") or ():
        check = check_state(workload, name)
        if check is not None and check["state"] in {"Retry", "Rejected"}:
            code = CHECK_REJECTED if check["state"] == "Rejected" else CHECK_RETRY
            return Reason(code, f"check {name}: {check.get('message') or check['state']}", "")
    return None


def pod_annotations(workload: Object) -> dict[str, str]:
    """What the admission checks that let it start want to stand on its pods."""
    out: dict[str, str] = {}
    for name in workload["spec"].get("admissionChecks") or ():
        out.update((check_state(workload, name) or {}).get("podAnnotations") or {})
    return out


def next_requeue(workload: Object, now: datetime) -> dict[str, Any]:
    """`status.requeue` after one more failure to become ready: pauses double from the base up to the maximum."""
    policy = workload["spec"].get("podsReady") or {}
    count = int(((workload.get("status") or {}).get("requeue") or {}).get("count") or 0)
    base, most = int(policy.get("backoffBaseSeconds", 60)), int(policy.get("backoffMaxSeconds", 3600))
    pause = min(base * 2 ** min(count, 32), most)
    return {"count": count + 1, "notBefore": timestamp(datetime.fromtimestamp(now.timestamp() + pause, UTC))}
