"""Emulated machines: each is a Node object whose kubelet kwok plays.

What a cloud or a bare-metal controller and then the kubelet would do is one step here:
the Node is made as the production shape would register itself. Readiness and boot time
are kwok's. The node is named by the client token, so a node that is gone never comes
back under its name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

from crds.labels import HOSTNAME, MACHINE, MANAGED_BY, MANAGED_BY_VALUE, MANAGER_POOLS, POOL
from operators.pools.providers.protocol import Instance, OrderRefused, ProviderError, ProviderOrder, token_of
from operators.runtime import RESOURCES, ApiFault, Cluster, Stores
from scheduler.objects.fleet_objects import seconds

_FAKE = {"kwok.x-k8s.io/node": "fake"}
_BOOT_SECONDS = "kekkai.dev/emulated-boot-seconds"
_NODE = RESOURCES["Node"]


class KwokProvider:
    """Makes and removes Node objects."""

    scheme = "kwok"

    def __init__(self, cluster: Cluster, stores: Stores) -> None:
        self._cluster = cluster
        self._stores = stores
        self._nodes = stores.watch("Node")

    async def create(self, order: ProviderOrder) -> Instance:
        wanted = node(order)
        if _fails(order):
            fault = "an emulated launch failure"
            return Instance(wanted["spec"]["providerID"], order.client_token, order.machine, "failed", fault)
        try:
            made = await self._cluster.create(wanted, MANAGER_POOLS)
        except ApiFault as fault:
            if not fault.conflict:
                raise _as_provider_error(fault) from fault
            found = await self._read(order.client_token)
            if found is None:
                raise ProviderError(f"node {order.client_token} came and went while it was made") from fault
            made = found
            if made["spec"].get("providerID") != wanted["spec"]["providerID"]:
                raise OrderRefused(f"a node {order.client_token} exists that is not ours") from fault
        self._stores.observe(made)
        return _instance(made)

    async def get(self, pool: str, client_token: str) -> Instance | None:
        found = await self._read(client_token)
        return _instance(found) if found is not None and _is_ours(found) else None

    async def delete(self, pool: str, client_token: str) -> bool:
        found = await self._read(client_token)
        if found is None or not _is_ours(found):
            return True
        try:
            await self._cluster.delete(_NODE, client_token, uid=found["metadata"]["uid"])
            left = await self._read(client_token)
        except ApiFault as fault:
            raise _as_provider_error(fault) from fault
        if left is None:
            self._nodes.forget(found)
        return left is None

    async def list(self) -> Iterable[tuple[str, Instance]]:
        return [(_pool_of(found), _instance(found)) for found in self._nodes if _is_ours(found)]

    async def price(self, pool: Mapping[str, Any]) -> float | None:
        return None

    async def _read(self, name: str) -> dict[str, Any] | None:
        try:
            return await self._cluster.get(_NODE, name)
        except ApiFault as fault:
            raise _as_provider_error(fault) from fault


def node(order: ProviderOrder) -> dict[str, Any]:
    """The Node of an order."""
    spec = order.pool["spec"]
    emulated = (spec.get("provider") or {}).get("kwok") or {}
    boot = emulated.get("bootSeconds", 0)
    boot += _chance(order.client_token, "boot") % (emulated.get("bootSpreadSeconds", 0) + 1)
    amounts = dict(order.capacity)
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": order.client_token,
            "labels": {**order.labels, HOSTNAME: order.client_token, MANAGED_BY: MANAGED_BY_VALUE},
            "annotations": {**_FAKE, _BOOT_SECONDS: str(boot)},
        },
        "spec": {
            "providerID": f"kwok://{spec['site']}/{order.client_token}",
            "taints": [dict(taint) for taint in order.taints],
        },
        "status": {"capacity": amounts, "allocatable": amounts},
    }


def _fails(order: ProviderOrder) -> bool:
    emulated = (order.pool["spec"].get("provider") or {}).get("kwok") or {}
    return _chance(order.client_token, "launch") % 100 < int(emulated.get("failurePercent", 0))


def _chance(token: str, what: str) -> int:
    """A number that is the same whenever the same token asks, so that creation stays idempotent."""
    return int.from_bytes(hashlib.sha256(f"{what} {token}".encode()).digest()[:4], "big")


def _instance(found: Mapping[str, Any]) -> Instance:
    provider_id, meta = found["spec"]["providerID"], found["metadata"]
    return Instance(
        provider_id,
        token_of(provider_id),
        (meta.get("labels") or {}).get(MACHINE, ""),
        created_at=seconds(meta.get("creationTimestamp")),
        node=meta["name"],
    )


def _pool_of(found: Mapping[str, Any]) -> str:
    return str((found["metadata"].get("labels") or {}).get(POOL, ""))


def _is_ours(found: Mapping[str, Any]) -> bool:
    return str(found["spec"].get("providerID", "")).startswith("kwok://")


def _as_provider_error(fault: ApiFault) -> ProviderError:
    kind = OrderRefused if fault.final else ProviderError
    return kind(fault.problem.what, where=fault.problem.where)
