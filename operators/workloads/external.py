"""Workloads that another controller runs: the queue admits and evicts, that controller starts, stops and reports.

    waiting → admitted (status.admission; one write) → Finished, said by its controller
                 ↓ Evicted is True: its controller stops it and says PodsReady False, reason Stopped
              waiting

Nothing here touches pods: what runs where is the controller's own affair, within the admission.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from crds.conditions import ADMITTED, EVICTED, FINISHED, PODS_READY, READY, find, is_true, set_condition
from operators.planning.decisions import Admitted
from operators.planning.holding import admitted_places
from operators.workloads.lifecycle import INACTIVE, NAMESPACE_NOT_READY, NODE_LOST, QUEUED, Outcome, View
from scheduler import Reason
from scheduler.objects.fleet_objects import is_going, pod_sets

STOPPED = "Stopped"
"""Reason of PodsReady=False by which its controller says that nothing of it runs any more."""

_INACTIVE = Reason(INACTIVE, "spec.active is false", "set spec.active to true")


def decide(view: View) -> Outcome:
    """The next step of a Workload that another controller runs. Admission is the only write of an undisturbed one."""
    workload = view.workload
    if is_true(workload, FINISHED) or is_going(workload):
        return Outcome()
    if (workload.get("status") or {}).get("admission") is not None:
        if is_true(workload, EVICTED):
            return _give_back(view)
        why = _stop_reason(view)
        return _evict(view, why) if why is not None else Outcome()
    blocked = _blocker(view)
    if blocked is None and view.admitted is not None and _is_about(view.admitted, workload):
        return _admit(view, view.admitted)
    return _wait(view, (blocked,) if blocked is not None else view.waiting)


def _is_about(decision: Admitted, workload: Mapping[str, Any]) -> bool:
    return decision.uid == workload["metadata"]["uid"] and decision.pod_sets == pod_sets(workload)


def _blocker(view: View) -> Reason | None:
    if not view.workload["spec"].get("active", True):
        return _INACTIVE
    if not view.namespace_ready:
        message = "the isolation of its namespace is not in force yet"
        return Reason(NAMESPACE_NOT_READY, message, "see the Tenant's conditions")
    return None


def _stop_reason(view: View) -> Reason | None:
    if not view.workload["spec"].get("active", True):
        return _INACTIVE
    for _, node, _ in admitted_places(view.workload):
        if not view.node_exists(node):
            return Reason(NODE_LOST, f"node {node} is gone", "it waits for another")
    return view.eviction


def _admit(view: View, decision: Admitted) -> Outcome:
    admission = decision.admission
    pods = sum(one.count for one in admission.placements)
    message = f"{pods} pod{'s' * (pods != 1)} of pool {admission.pool}"
    status = _status(view, (ADMITTED, True, ADMITTED, message), (READY, True, ADMITTED, message), again=True)
    status["admission"] = decision.wire()
    return Outcome(status, event=Reason(ADMITTED, message))


def _evict(view: View, why: Reason) -> Outcome:
    status = _status(view, (EVICTED, True, why.code, why.message), (READY, False, EVICTED, why.message))
    status["admission"] = (view.workload["status"])["admission"]
    return Outcome(status, event=why, warning=True)


def _give_back(view: View) -> Outcome:
    """The room is free when its controller says that everything has stopped."""
    conditions = view.workload["status"].get("conditions")
    pods = find(conditions, PODS_READY)
    if pods is None or pods["status"] != "False" or pods["reason"] != STOPPED:
        return Outcome()
    why = find(conditions, EVICTED) or {"reason": EVICTED}
    status = _status(view, (ADMITTED, False, EVICTED, str(why.get("message", ""))))
    status["reasons"] = [{"code": str(why["reason"]), "message": str(why.get("message", "")), "nearest": ""}]
    return Outcome(status)


def _wait(view: View, waiting: tuple[Reason, ...]) -> Outcome:
    reasons = waiting or (Reason(QUEUED, "it will be looked at in a moment", ""),)
    first = reasons[0]
    status = _status(view, (ADMITTED, False, first.code, first.message), (READY, False, first.code, first.message))
    status["reasons"] = [
        {"code": r.code, "message": r.message[:4096], "nearest": r.nearest[:4096]} for r in reasons[:16]
    ]
    before = find((view.workload.get("status") or {}).get("conditions"), ADMITTED)
    changed = before is None or before["reason"] != first.code
    return Outcome(status, event=first if changed and first.code != QUEUED else None)


def _status(view: View, *said: tuple[str, bool, str, str], again: bool = False) -> dict[str, Any]:
    """Conditions as they are but for what is `said`; `again`: it starts anew, so what was of the last run is not."""
    meta = view.workload["metadata"]
    generation = meta.get("generation", 0)
    conditions: list[dict[str, Any]] = list((view.workload.get("status") or {}).get("conditions") or ())
    for kind, value, reason, message in (*said, *(_fresh(conditions) if again else ())):
        conditions = set_condition(conditions, kind, value, reason, message, view.now, generation)
    return {"conditions": conditions, "observedGeneration": generation}


def _fresh(conditions: Iterable[Mapping[str, Any]]) -> list[tuple[str, bool, str, str]]:
    found = {one["type"] for one in conditions}
    return [
        (kind, False, reason, "")
        for kind, reason in ((EVICTED, "NotEvicted"), (PODS_READY, "Starting"))
        if kind in found
    ]
