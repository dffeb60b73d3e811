"""The steps of a Machine's life in order, and their sum, `Ready`."""

from __future__ import annotations

from crds.conditions import DRAINED, INITIALIZED, LAUNCHED, READY, REGISTERED, find
from operators.pools.drain import drain
from operators.pools.initialization import initialize
from operators.pools.launch import THROTTLED, launch
from operators.pools.registration import NODE_GONE, register
from operators.pools.removal import remove
from operators.pools.scope import Scope
from scheduler.objects.fleet_objects import node_ready

BOOT_DEADLINE = 900.0  # seconds beyond the boot time, where the pool does not say; after that another is made
LOST_DEADLINE = 300.0  # seconds that a Node may be gone while the provider still has the machine


async def advance(scope: Scope) -> float | None:
    """Take the Machine as far as it can go now. Returns seconds until the next look."""
    return await _leave(scope) if scope.going else await _come(scope)


async def _come(scope: Scope) -> float | None:
    again = await launch(scope)
    again = await register(scope) or again
    await initialize(scope)
    if find(scope.conditions, DRAINED) is None:
        scope.set(DRAINED, False, "InUse", "")
    left = _patience(scope)
    if left is not None and left <= 0 and not scope.doomed:
        scope.doomed = f"it did not start within {_deadline(scope):.0f} s"
        if scope.node_name:
            scope.doomed = f"node {scope.node_name} has been gone for {LOST_DEADLINE:.0f} s"
    elif left is not None:
        again = min(again or left, max(1.0, left))
    _sum_up(scope)
    return again


def _patience(scope: Scope) -> float | None:
    """Seconds that it still has to get ready, None when there is nothing to wait for."""
    if scope.is_true(INITIALIZED):
        lost = find(scope.conditions, REGISTERED)
        gone = lost is not None and lost["reason"] == NODE_GONE
        return LOST_DEADLINE - scope.since(REGISTERED) if gone else None
    if scope.is_true(LAUNCHED):
        return _deadline(scope) - scope.since(LAUNCHED)
    held = find(scope.conditions, LAUNCHED)
    if held is not None and held["reason"] == THROTTLED:
        return None  # it waits for its turn, which is nobody's fault
    return _deadline(scope) - scope.age()


def _deadline(scope: Scope) -> float:
    repair = ((scope.pool or {}).get("spec") or {}).get("repair") or {}
    return float(_boot_seconds(scope) + repair.get("joinTimeoutSeconds", BOOT_DEADLINE))


async def _leave(scope: Scope) -> float | None:
    for kind in (LAUNCHED, REGISTERED, INITIALIZED):
        if find(scope.conditions, kind) is None:
            scope.set(kind, False, "Going", "")
    again = await drain(scope)
    scope.set(READY, False, "Going", "it is being removed")
    if again is None:
        again = await remove(scope)
    return again


def _sum_up(scope: Scope) -> None:
    """Ready is True while the node takes pods; else it says what the first open step says."""
    for kind in (LAUNCHED, REGISTERED, INITIALIZED):
        found = find(scope.conditions, kind)
        if found is None or found["status"] != "True":
            reason = str(found["reason"]) if found is not None else "Pending"
            scope.set(READY, False, reason, str(found.get("message", "")) if found is not None else "")
            return
    if scope.node is not None and node_ready(scope.node):
        scope.set(READY, True, READY, "")
    else:
        scope.set(READY, False, "NodeNotReady", "the node does not report Ready")


def _boot_seconds(scope: Scope) -> float:
    provider = ((scope.pool or {}).get("spec") or {}).get("provider") or {}
    return max((float((one or {}).get("bootSeconds", 0)) for one in provider.values()), default=0.0)
