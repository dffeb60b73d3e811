"""Step 4, when it is to go: no new pods, and the present ones leave by the Eviction API."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any

from crds.conditions import DRAINED
from crds.labels import DRAIN_TAINT, MANAGER_POOLS
from operators.pools.scope import Scope
from operators.runtime import RESOURCES
from scheduler.objects.fleet_objects import has_ended

Object = Mapping[str, Any]
DEADLINE = 600.0  # seconds after which disruption budgets no longer hold the machine
_AGAIN = 2.0


def to_leave(pods: Iterable[Object]) -> list[Object]:
    """Pods that have to leave. DaemonSet and mirror pods come and go with their node."""
    return [pod for pod in pods if not has_ended(pod) and not _stays(pod)]


def _stays(pod: Object) -> bool:
    meta = pod["metadata"]
    if "kubernetes.io/config.mirror" in (meta.get("annotations") or {}):
        return True
    return any(ref["kind"] == "DaemonSet" and ref.get("controller") for ref in meta.get("ownerReferences") or ())


async def drain(scope: Scope) -> float | None:
    """Close the node and empty it. Returns seconds until the next look, None once it is drained."""
    if scope.node is None:
        scope.set(DRAINED, True, "NodeGone", "")
        return None
    await _close(scope)
    leaving = to_leave(scope.pods)
    if not leaving:
        scope.set(DRAINED, True, DRAINED, "")
        return None
    overdue = scope.leaving_for() > DEADLINE
    asked = await asyncio.gather(
        *(_leave(scope, pod, overdue) for pod in leaving if not pod["metadata"].get("deletionTimestamp"))
    )
    held_back = asked.count(False)
    reason = "EvictionBlocked" if held_back else "Draining"
    message = f"{len(leaving)} pods are leaving"
    if held_back:
        message += f"; disruption budgets hold {held_back} for at most {DEADLINE:.0f} s"
    scope.set(DRAINED, False, reason, message)
    return _AGAIN


async def _close(scope: Scope) -> None:
    assert scope.node is not None
    spec = scope.node.get("spec") or {}
    taints = spec.get("taints") or []
    if spec.get("unschedulable") and any(taint["key"] == DRAIN_TAINT for taint in taints):
        return
    meta = scope.node["metadata"]
    kept = [taint for taint in taints if taint["key"] != DRAIN_TAINT]
    change = {
        "metadata": {"resourceVersion": meta["resourceVersion"]},
        "spec": {"unschedulable": True, "taints": [*kept, {"key": DRAIN_TAINT, "effect": "NoSchedule"}]},
    }
    scope.node = await scope.cluster.merge_patch(RESOURCES["Node"], meta["name"], change, MANAGER_POOLS)
    scope.stores.observe(scope.node)


async def _leave(scope: Scope, pod: Object, overdue: bool) -> bool:
    meta = pod["metadata"]
    if await scope.cluster.evict(meta["namespace"], meta["name"]):
        return True
    if overdue:
        await scope.cluster.delete(RESOURCES["Pod"], meta["name"], meta["namespace"], uid=meta["uid"])
    return overdue
