"""Step 2: the machine has become a Node, and the Node says what it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from crds.conditions import LAUNCHED, REGISTERED
from crds.labels import MANAGER_POOLS
from operators.pools.launch import follow
from operators.pools.providers import ProviderError
from operators.pools.scope import Scope
from operators.runtime import RESOURCES, Stores
from scheduler.objects.fleet_objects import seconds
from scheduler.objects.node_shape import machine_labels

NODE_GONE = "NodeGone"
_LOOK = 10.0  # seconds


def node_of(stores: Stores, provider_id: str) -> dict[str, Any] | None:
    """The Node with this provider id: the one thing that the kubelet's registration cannot choose freely."""
    if not provider_id:
        return None
    found = stores.watch("Node").index("provider-id", _provider_id).get(provider_id)
    return found[0] if found else None


def _provider_id(node: Mapping[str, Any]) -> tuple[str, ...]:
    found = (node.get("spec") or {}).get("providerID")
    return (found,) if found else ()


def _unnamed_system(node: Mapping[str, Any]) -> tuple[str, ...]:
    """The system UUID of a Node that has no provider id."""
    info = (node.get("status") or {}).get("nodeInfo") or {}
    found = str(info.get("systemUUID") or "").lower()
    return (found,) if found and not _provider_id(node) else ()


def missing_labels(scope: Scope) -> dict[str, str]:
    """Labels that the Node should have and has not."""
    if scope.pool is None or scope.node is None:
        return {}
    have = scope.node["metadata"].get("labels") or {}
    wanted = machine_labels(scope.pool, scope.machine)
    return {label: value for label, value in wanted.items() if have.get(label) != value}


async def register(scope: Scope) -> float | None:
    """Find the Node and complete its labels. Returns seconds until the next look while there is none."""
    if not scope.is_true(LAUNCHED):
        scope.set(REGISTERED, False, "NotLaunched", "")
        return None
    scope.node = node_of(scope.stores, scope.provider_id)
    if scope.node is None:
        if scope.node_name:
            return await _lost(scope)
        again = await follow(scope) if not scope.doomed else None
        scope.node = node_of(scope.stores, scope.provider_id) or await _adopt(scope)
        if scope.node is None:
            scope.set(REGISTERED, False, "NodeNotSeen", "the machine has not joined the cluster yet")
            return again
    labels = missing_labels(scope)
    if labels:
        await _patch(scope, {"metadata": {"labels": labels}})
    scope.node_name = scope.node["metadata"]["name"]
    scope.set(REGISTERED, True, REGISTERED, f"node {scope.node_name}")
    return None


async def _lost(scope: Scope) -> float | None:
    """Its Node was there and is not. That dooms the Machine as soon as the provider agrees; else it may come back."""
    scope.set(REGISTERED, False, NODE_GONE, f"node {scope.node_name} is gone")
    if scope.provider is None:
        return _LOOK
    pause = scope.pause("provider", _LOOK)
    if pause > 0:
        return pause
    try:
        if await scope.provider.get(scope.pool_name, scope.token) is None:
            scope.doomed = f"node {scope.node_name} is gone"
    except ProviderError:
        return _LOOK
    return _LOOK


async def _adopt(scope: Scope) -> dict[str, Any] | None:
    """A Node whose kubelet was told no provider id, known by its system's UUID, gets ours.

    Only one that is younger than the Machine: an older one is what an earlier life of the server has left.
    """
    uuid = scope.instance.system_uuid if scope.instance is not None else ""
    if not uuid or not scope.provider_id:
        return None
    found = scope.stores.watch("Node").index("unnamed-system", _unnamed_system).get(uuid)
    born = seconds(scope.machine["metadata"].get("creationTimestamp"))
    young = [node for node in found if seconds(node["metadata"].get("creationTimestamp")) >= born]
    if len(young) != 1:
        return None
    scope.node = young[0]
    await _patch(scope, {"spec": {"providerID": scope.provider_id}})
    return scope.node


async def _patch(scope: Scope, change: dict[str, Any]) -> None:
    assert scope.node is not None
    scope.node = await scope.cluster.merge_patch(
        RESOURCES["Node"], scope.node["metadata"]["name"], change, MANAGER_POOLS
    )
    scope.stores.observe(scope.node)
