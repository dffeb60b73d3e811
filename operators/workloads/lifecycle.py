"""Where a Workload stands and what comes next, as one pure function.

    waiting → admitted (status first, then the Job is unsuspended) → finished
                 ↓ evicted: the Job is suspended; when its pods are gone the admission is cleared
              waiting

Each visit starts from what the objects say, so a restart at any point goes on from there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from crds.conditions import ADMITTED, EVICTED, FINISHED, PODS_READY, READY, find, is_true
from operators.planning.batch_job import BATCH_JOB
from operators.planning.decisions import Admitted, Moved
from operators.planning.holding import admitted_counts, held, pinned_node, without_left_behind
from operators.planning.outlook import (
    MAXIMUM_RUNTIME_EXCEEDED,
    PODS_READY_TIMEOUT,
    check_to_stop,
    next_requeue,
    shut_out,
)
from operators.planning.queued_kind import Counts, End, QueuedKind
from operators.workloads.pinning import Pin, assign, larger_than_admitted
from operators.workloads.status_draft import Draft
from operators.workloads.time_limits import RECOVERING, next_look, overdue, ran_for
from scheduler import Reason
from scheduler.objects.fleet_objects import has_ended, is_going, pod_sets
from scheduler.objects.job_shape import Shape

Object = Mapping[str, Any]

NAMESPACE_NOT_READY = "NamespaceNotReady"
JOB_MISSING = "JobMissing"
JOB_NAME_TAKEN = "JobNameTaken"
INACTIVE = "Inactive"
NODE_LOST = "NodeLost"
PODS_CHANGED = "PodsChanged"
QUEUED = "Queued"


@dataclass(frozen=True, slots=True)
class View:
    """All that a visit looks at."""

    workload: Object
    job: Object | None
    pods: Sequence[Object]
    shape: Shape
    namespace_ready: bool
    admitted: Admitted | None  # decided by the planner, not written yet
    eviction: Reason | None  # decided by the planner, not written yet
    waiting: tuple[Reason, ...]
    node_exists: Callable[[str], bool]
    now: datetime
    kind: QueuedKind = BATCH_JOB  # of `job`, which is the object that is governed, whatever its kind
    position: Callable[[], int | None] = lambda: None  # in its tenant's line
    movable: bool = False  # lost pods come again one by one: the planner says whether they go elsewhere
    moved: Moved | None = None  # decided by the planner, not written yet
    name_taken: bool = False  # a Job that it did not make has the name of the one it would make


@dataclass(frozen=True, slots=True)
class Outcome:
    """What to do, in this order: status, suspension, pins, pods to delete, pods to bury."""

    status: dict[str, Any] | None = None
    suspend: bool | None = None
    pins: tuple[Pin, ...] = ()
    counts: Counts = field(default_factory=dict)  # pods by pod set, when it is started
    remove: tuple[Object, ...] = ()  # pods of what cannot be suspended, to be stopped
    bury: tuple[Object, ...] = ()  # pods on nodes that do not exist: no kubelet will end them
    event: Reason | None = None
    warning: bool = False
    again: float | None = None  # seconds after which time alone may change something


def decide(view: View) -> Outcome:
    """The next step of one Workload."""
    if is_true(view.workload, FINISHED) or is_going(view.workload):
        return Outcome()
    if view.job is None and view.workload["spec"].get("ref"):
        return Outcome()  # the shadow of a Job that is gone; the garbage collector takes it
    end = view.kind.end(view.job, view.pods) if view.job is not None else None
    if end is not None:
        return _finish(view, *end)
    if (view.workload.get("status") or {}).get("admission") is not None:
        if is_true(view.workload, EVICTED):
            return _stop(view)
        if view.moved is not None and may_move(view, view.moved):
            return _move(view, view.moved)
        why = stop_reason(view)
        return _evict(view, why) if why is not None else _run(view)
    if view.admitted is not None and holds_good(view, view.admitted):
        return _admit(view, view.admitted)
    return _wait(view)


def job_end(job: Object | None) -> End | None:
    """(succeeded, reason, message) of a batch/v1 Job that has ended."""
    return BATCH_JOB.end(job, ()) if job is not None else None


def blockers(view: View) -> tuple[Reason, ...]:
    """What stands in the way before the queue is even asked."""
    if not view.workload["spec"].get("active", True):
        return (Reason(INACTIVE, "spec.active is false", "set spec.active to true"),)
    if view.job is None and view.name_taken:
        message = "a Job of its name exists that it did not make"
        return (Reason(JOB_NAME_TAKEN, message, "delete that Job, or name the Workload otherwise"),)
    if view.job is None:
        return (Reason(JOB_MISSING, "its Job does not exist yet", ""),)
    if not view.namespace_ready:
        message = "the isolation of its namespace is not in force yet"
        return (Reason(NAMESPACE_NOT_READY, message, "see the Tenant's conditions"),)
    if view.shape.refusal is not None:
        return (view.shape.refusal,)
    out = shut_out(view.workload)
    return (out,) if out is not None else ()


def holds_good(view: View, decision: Admitted) -> bool:
    """Whether a decision is still about what the Workload is now."""
    same = decision.uid == view.workload["metadata"]["uid"] and decision.pod_sets == pod_sets(view.workload)
    return same and not blockers(view)


def stop_reason(view: View) -> Reason | None:
    """Why an admitted Workload must stop, if it must."""
    if not view.workload["spec"].get("active", True):
        return Reason(INACTIVE, "spec.active is false", "set spec.active to true")
    if view.job is None:
        return Reason(JOB_MISSING, "its Job was deleted", "")
    if view.eviction is not None:
        return view.eviction
    pods, _ = without_left_behind(view.workload, view.pods, view.node_exists)
    places = {node: view.node_exists(node) for _, node, _ in held(view.workload, view.job, pods, False, view.kind)}
    lost = [node for node, exists in places.items() if not exists]
    if lost and not (view.movable and any(places.values())):
        return Reason(NODE_LOST, f"node {lost[0]} is gone", "it waits for another")
    if view.kind.is_suspended(view.job) and not _same_pods(view):
        return Reason(PODS_CHANGED, "its pods are not those that were admitted", "it is queued again")
    return check_to_stop(view.workload) or overdue(view.workload, view.now)


def may_move(view: View, moved: Moved) -> bool:
    """Whether a move is still about what the Workload is now, and may be made."""
    if moved.uid != view.workload["metadata"]["uid"] or view.job is None or view.eviction is not None:
        return False
    return view.workload["spec"].get("active", True) and all(view.node_exists(p.node) for p in moved.move.placements)


def _same_pods(view: View) -> bool:
    """Whether the Job still asks for what was admitted; fewer pods are fine."""
    if view.shape.refusal is not None:
        return view.shape.refusal.code == "NothingToRun"
    now, then = view.shape.pod_sets, view.workload["spec"].get("podSets") or []
    return [_but_for_counts(one) for one in now] == [_but_for_counts(one) for one in then] and all(
        one["count"] <= before["count"] for one, before in zip(now, then, strict=True)
    )


def _but_for_counts(pod_set: Object) -> dict[str, Any]:
    return {name: value for name, value in pod_set.items() if name not in {"count", "minCount"}}


def _finish(view: View, succeeded: bool, reason: str, message: str) -> Outcome:
    status = Draft(view.workload, view.now)
    if find(status.conditions, ADMITTED) is None:
        status.set(ADMITTED, False, "NeverAdmitted")
    status.set(FINISHED, True, reason, message)
    status.set(PODS_READY, False, FINISHED)
    status.keep(EVICTED)
    status.set(READY, succeeded, reason, message)
    return Outcome(status.wire())


def _admit(view: View, decision: Admitted) -> Outcome:
    status, admission = Draft(view.workload, view.now), decision.admission
    places: dict[str, None] = dict.fromkeys(one.node for one in admission.placements)
    pods = sum(one.count for one in admission.placements)
    message = f"{pods} pod{'s' * (pods != 1)} on {len(places)} node{'s' * (len(places) != 1)} of pool {admission.pool}"
    status.admission = decision.wire()
    status.set(ADMITTED, True, ADMITTED, message)
    status.set(PODS_READY, False, "Starting", "its pods are being started")
    status.set(FINISHED, False, "NotYet")
    status.set(EVICTED, False, "NotEvicted")
    status.set(READY, False, "Starting", "its pods are being started")
    counts: dict[str, int] = {}
    for one in admission.placements:
        counts[one.pod_set] = counts.get(one.pod_set, 0) + one.count
    return Outcome(status.wire(), suspend=False, counts=counts, event=Reason(ADMITTED, message))


def _move(view: View, moved: Moved) -> Outcome:
    """The others run on; pods on nodes that are gone are buried, and their like come again at the new places."""
    status = Draft(view.workload, view.now)
    status.admission = moved.of(view.workload)["status"]["admission"]
    for condition in (ADMITTED, FINISHED, EVICTED):
        status.keep(condition)
    again = RECOVERING if _was_ready(view.workload) else "Starting"
    status.set(PODS_READY, False, again, moved.move.reason.message)
    status.set(READY, False, again, moved.move.reason.message)
    return Outcome(status.wire(), suspend=False, bury=_unended(view), event=moved.move.reason, warning=False)


def _run(view: View) -> Outcome:
    job = view.job
    assert job is not None  # stop_reason saw to it
    status = Draft(view.workload, view.now)
    pods, behind = without_left_behind(view.workload, view.pods, view.node_exists)
    pins, left = assign(view.workload, pods, view.kind)
    counts = admitted_counts(view.workload)
    ready = view.kind.ready(job, view.pods, counts)
    why, message = (PODS_READY, "") if ready else ("Starting", "its pods are being started")
    large = larger_than_admitted(view.workload, view.pods, view.kind)
    if large:
        ready, why, message = False, "PodLargerThanAdmitted", f"pod {large[0]} asks for more than was admitted"
    elif left and not ready:
        message = f"{message}; {left} more pods than were admitted stay gated"
    for kind in (ADMITTED, FINISHED, EVICTED):
        status.keep(kind)
    if ready:
        status.requeue = None  # it has come up: the next failure is a first one
    elif _was_ready(view.workload) and why == "Starting":
        why, message = RECOVERING, "its pods were ready and are not any more"
    status.set(PODS_READY, ready, why, message)
    status.set(READY, ready, why, message)
    wire = status.wire()
    again = next_look({**view.workload, "status": wire}, view.now)
    return Outcome(wire, suspend=False, counts=counts, pins=pins, bury=behind, again=again)


def _was_ready(workload: Object) -> bool:
    """Whether its pods were ready in this run: they are now, or are written as recovering."""
    before = find((workload.get("status") or {}).get("conditions"), PODS_READY)
    return before is not None and (before["status"] == "True" or before["reason"] == RECOVERING)


def _evict(view: View, why: Reason) -> Outcome:
    status = Draft(view.workload, view.now)
    status.keep(ADMITTED)
    status.keep(FINISHED)
    status.set(EVICTED, True, why.code, why.message)
    status.set(PODS_READY, False, EVICTED, why.message)
    status.set(READY, False, EVICTED, why.message)
    if why.code == PODS_READY_TIMEOUT:
        status.requeue = next_requeue(view.workload, view.now)
    if view.workload["spec"].get("maximumRuntimeSeconds") is not None:
        over = why.code == MAXIMUM_RUNTIME_EXCEEDED
        ran = int(status.past_runtime or 0) + ran_for(view.workload, view.now)
        status.past_runtime = max(ran, view.workload["spec"]["maximumRuntimeSeconds"]) if over else ran
    return Outcome(status.wire(), suspend=True, remove=_to_remove(view), bury=_unended(view), event=why, warning=True)


def _stop(view: View) -> Outcome:
    """Evicted and not let go yet: suspend the Job, wait until its pods are gone, then give the room back."""
    job, kind = view.job, view.kind
    if job is not None and ((kind.suspendable and not kind.is_suspended(job)) or _alive(view)):
        return Outcome(suspend=True, remove=_to_remove(view), bury=_unended(view))
    status = Draft(view.workload, view.now)
    why = find(status.conditions, EVICTED) or {"reason": EVICTED, "message": ""}
    status.admission = None
    status.set(ADMITTED, False, EVICTED, str(why.get("message", "")))
    for condition in (PODS_READY, FINISHED, EVICTED, READY):
        status.keep(condition)
    status.reasons = [{"code": str(why["reason"]), "message": str(why.get("message", "")), "nearest": ""}]
    return Outcome(status.wire(), suspend=True)


def _wait(view: View) -> Outcome:
    status = Draft(view.workload, view.now)
    reasons = blockers(view) or view.waiting or (Reason(QUEUED, "it will be looked at in a moment", ""),)
    status.reasons = [{"code": r.code, "message": r.message[:4096], "nearest": r.nearest[:4096]} for r in reasons[:16]]
    first = reasons[0]
    status.set(ADMITTED, False, first.code, first.message)
    status.keep(PODS_READY)
    status.keep(FINISHED)
    status.keep(EVICTED)
    status.set(READY, False, first.code, first.message)
    if first.code == INACTIVE:
        status.requeue, status.past_runtime = None, None  # who makes it active again starts the counts anew
    before = find((view.workload.get("status") or {}).get("conditions"), ADMITTED)
    changed = before is None or before["reason"] != first.code
    quiet = first.code in {QUEUED, JOB_MISSING}
    old, wire = view.workload.get("status") or {}, status.wire()
    # A place that alone has changed is not worth a write: thousands would be written for each that leaves the line.
    same = all(old.get(name) == value for name, value in wire.items())
    status.position = old.get("position") if same else view.position()
    return Outcome(status.wire(), suspend=True, event=first if changed and not quiet else None)


def _alive(view: View) -> tuple[Object, ...]:
    return tuple(pod for pod in view.pods if not has_ended(pod) and pinned_node(pod))


def _to_remove(view: View) -> tuple[Object, ...]:
    """Pods of what cannot be suspended, that were let go and are not being deleted yet."""
    return () if view.kind.suspendable else tuple(pod for pod in _alive(view) if not is_going(pod))


def _unended(view: View) -> tuple[Object, ...]:
    return tuple(
        pod
        for pod in view.pods
        if pod["spec"].get("nodeName") and not has_ended(pod) and not view.node_exists(pod["spec"]["nodeName"])
    )
