"""Step 3: the node is Ready and its devices have registered; the startup taint comes off."""

from __future__ import annotations

from crds.conditions import INITIALIZED, REGISTERED
from crds.labels import MANAGER_POOLS, STARTUP_TAINT
from operators.pools.scope import Scope
from operators.runtime import RESOURCES, ApiFault
from scheduler.objects.fleet_objects import device_count, node_ready

_STALE = frozenset({409, 422})  # a `test` of the patch found another list than ours


def not_yet(scope: Scope) -> tuple[str, str] | None:
    """(reason, message) while the node may not take pods."""
    if not scope.is_true(REGISTERED) or scope.node is None:
        return "NotRegistered", ""
    if not node_ready(scope.node):
        return "NodeNotReady", "the node is starting"
    if scope.pool is not None:
        have, want = device_count(scope.pool, scope.node), scope.pool["spec"]["accelerator"]["perNode"]
        if have < want:
            return "DevicesMissing", f"{have} of {want} devices have registered"
    return None


async def initialize(scope: Scope) -> None:
    """Take the startup taint off once all is there. It stays initialized from then on."""
    if scope.is_true(INITIALIZED):
        return
    why = not_yet(scope)
    if why is not None:
        scope.set(INITIALIZED, False, *why)
        return
    assert scope.node is not None
    name, taints = scope.node["metadata"]["name"], scope.node["spec"].get("taints") or []
    kept = [taint for taint in taints if taint["key"] != STARTUP_TAINT]
    if len(kept) != len(taints):
        change = [
            {"op": "test", "path": "/spec/taints", "value": taints},
            {"op": "replace", "path": "/spec/taints", "value": kept},
        ]
        try:
            scope.node = await scope.cluster.json_patch(RESOURCES["Node"], name, change, MANAGER_POOLS)
        except ApiFault as fault:
            # Others add and remove taints of a node that starts; what they did may reach us late.
            fresh = await scope.cluster.get(RESOURCES["Node"], name) if fault.code in _STALE else None
            if fresh is not None:
                scope.stores.observe(fresh)
            raise
        scope.stores.observe(scope.node)
    scope.set(INITIALIZED, True, INITIALIZED, "")
