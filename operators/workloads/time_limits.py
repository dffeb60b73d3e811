"""What time alone does to an admitted Workload: pods that do not become ready, a run that is over its limit."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from crds.conditions import PODS_READY, find
from operators.planning.outlook import MAXIMUM_RUNTIME_EXCEEDED, PODS_READY_TIMEOUT
from scheduler import Reason
from scheduler.objects.fleet_objects import runtime_left, seconds

Object = Mapping[str, Any]

RECOVERING = "Recovering"
"""Reason of PodsReady=False for pods that were ready in this run already."""


def ran_for(workload: Object, now: datetime) -> int:
    """Whole seconds since its admission; 0 when it has none."""
    admission = (workload.get("status") or {}).get("admission")
    return max(0, int(now.timestamp() - seconds(admission["admittedAt"]))) if admission else 0


def overdue(workload: Object, now: datetime) -> Reason | None:
    """Why its time is up, if it is."""
    left = _runtime_due(workload)
    if left is not None and now.timestamp() >= left:
        limit = workload["spec"]["maximumRuntimeSeconds"]
        message = f"it has run for the {limit} s that spec.maximumRuntimeSeconds allows"
        return Reason(MAXIMUM_RUNTIME_EXCEEDED, message, "raise spec.maximumRuntimeSeconds")
    due = _ready_due(workload)
    if due is not None and now.timestamp() >= due[0]:
        message = f"its pods were not ready for {due[1]} s"
        return Reason(PODS_READY_TIMEOUT, message, "see why the pods do not become ready; it is queued again")
    return None


def next_look(workload: Object, now: datetime) -> float | None:
    """Seconds until time may change something; None when it will not."""
    ready = _ready_due(workload)
    due = [at for at in (_runtime_due(workload), ready[0] if ready else None) if at is not None]
    return max(0.0, min(due) - now.timestamp()) + 0.05 if due else None


def _runtime_due(workload: Object) -> float | None:
    left, start = runtime_left(workload), _admitted_at(workload)
    return None if left is None or not start else start + left


def _ready_due(workload: Object) -> tuple[float, int] | None:
    """(when, after how many seconds) the wait for ready pods ends."""
    policy, start = workload["spec"].get("podsReady"), _admitted_at(workload)
    condition = find((workload.get("status") or {}).get("conditions"), PODS_READY)
    if not policy or not start or (condition is not None and condition["status"] == "True"):
        return None
    if condition is not None and condition["reason"] == RECOVERING:
        patience = policy.get("recoveryTimeoutSeconds")
        return None if patience is None else (seconds(condition["lastTransitionTime"]) + patience, patience)
    return start + policy["timeoutSeconds"], policy["timeoutSeconds"]


def _admitted_at(workload: Object) -> float:
    return seconds(((workload.get("status") or {}).get("admission") or {}).get("admittedAt"))
