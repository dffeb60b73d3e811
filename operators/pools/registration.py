"""Step 2: the machine has become a Node, and the Node says what it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from crds.conditions import LAUNCHED, REGISTERED
from crds.labels import MANAGER_POOLS
from operators.pools.scope import Scope
from operators.runtime import RESOURCES, Stores
from scheduler.objects.node_shape import machine_labels


def node_of(stores: Stores, provider_id: str) -> dict[str, Any] | None:
    """The Node with this provider id: the one thing that the kubelet's registration cannot choose freely."""
    if not provider_id:
        return None
    found = stores.watch("Node").index("provider-id", _provider_id).get(provider_id)
    return found[0] if found else None


def _provider_id(node: Mapping[str, Any]) -> tuple[str, ...]:
    found = (node.get("spec") or {}).get("providerID")
    return (found,) if found else ()


def missing_labels(scope: Scope) -> dict[str, str]:
    """Labels that the Node should have and has not."""
    if scope.pool is None or scope.node is None:
        return {}
    have = scope.node["metadata"].get("labels") or {}
    wanted = machine_labels(scope.pool, scope.machine)
    return {label: value for label, value in wanted.items() if have.get(label) != value}


async def register(scope: Scope) -> None:
    """Find the Node and complete its labels. A Node that was there and is gone dooms the Machine."""
    if not scope.is_true(LAUNCHED):
        scope.set(REGISTERED, False, "NotLaunched", "")
        return
    scope.node = node_of(scope.stores, scope.provider_id)
    if scope.node is None:
        if scope.is_true(REGISTERED):
            if scope.provider is not None and await scope.provider.get(scope.token) is None:
                scope.doomed = f"node {scope.node_name} is gone"
            scope.set(REGISTERED, False, "NodeGone", f"node {scope.node_name} is gone")
        else:
            scope.set(REGISTERED, False, "NodeNotSeen", "the machine has not joined the cluster yet")
        return
    labels = missing_labels(scope)
    if labels:
        name = scope.node["metadata"]["name"]
        change = {"metadata": {"labels": labels}}
        scope.node = await scope.cluster.merge_patch(RESOURCES["Node"], name, change, MANAGER_POOLS)
        scope.stores.observe(scope.node)
    scope.node_name = scope.node["metadata"]["name"]
    scope.set(REGISTERED, True, REGISTERED, f"node {scope.node_name}")
