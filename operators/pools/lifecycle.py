"""The steps of a Machine's life in order, and their sum, `Ready`."""

from __future__ import annotations

from crds.conditions import DRAINED, INITIALIZED, LAUNCHED, READY, REGISTERED, find
from operators.pools.drain import drain
from operators.pools.initialization import initialize
from operators.pools.launch import launch
from operators.pools.registration import register
from operators.pools.removal import remove
from operators.pools.scope import Scope
from scheduler.objects.fleet_objects import node_ready

BOOT_DEADLINE = 900.0  # seconds from the Machine's creation; after that another is made


async def advance(scope: Scope) -> float | None:
    """Take the Machine as far as it can go now. Returns seconds until the next look."""
    return await _leave(scope) if scope.going else await _come(scope)


async def _come(scope: Scope) -> float | None:
    again = await launch(scope)
    await register(scope)
    await initialize(scope)
    if find(scope.conditions, DRAINED) is None:
        scope.set(DRAINED, False, "InUse", "")
    boot = int(_boot_seconds(scope)) + BOOT_DEADLINE
    if not scope.is_true(INITIALIZED) and scope.age() > boot and not scope.doomed:
        scope.doomed = f"it did not start within {boot:.0f} s"
    elif not scope.is_true(INITIALIZED) and again is None:
        again = max(1.0, boot - scope.age())
    _sum_up(scope)
    return again


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
    return float((provider.get("kwok") or {}).get("bootSeconds", 0))
