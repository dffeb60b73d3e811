"""Machines by Karpenter: one NodeClaim each, named by the token, outside of every NodePool.

Karpenter launches, registers and, when told, drains and terminates it. A NodeClaim of
which Karpenter says that there is no capacity is deleted by Karpenter itself; the
Machine is then given up and the plan decides anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from crds.conditions import find
from crds.labels import MACHINE, MANAGED_BY, MANAGED_BY_VALUE, MANAGER_POOLS, POOL, STARTUP_TAINT
from operators.pools.providers.protocol import Instance, OrderRefused, ProviderError, ProviderOrder, State
from operators.runtime import ApiFault, Cluster, ResourceType
from scheduler.objects.fleet_objects import seconds
from scheduler.objects.node_shape import INSTANCE_TYPE

NODE_CLAIM = ResourceType("karpenter.sh", "v1", "nodeclaims", "NodeClaim", False)
CAPACITY_TYPE = "karpenter.sh/capacity-type"
_REQUESTED = ("cpu", "memory", "pods")  # what the instance must have besides its devices
# Karpenter restricts these domains on NodeClaims, or decides these labels itself.
_KARPENTERS_OWN = (
    INSTANCE_TYPE,
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
    "kubernetes.io/hostname",
)


class KarpenterProvider:
    """Makes and deletes NodeClaims."""

    scheme = "karpenter"

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    async def create(self, order: ProviderOrder) -> Instance:
        wanted = node_claim(order)
        try:
            made = await self._cluster.request("POST", NODE_CLAIM.path(), {"fieldManager": MANAGER_POOLS}, wanted)
        except ApiFault as fault:
            if not fault.conflict:
                raise _as_provider_error(fault) from fault
            found = await self._read(order.client_token)
            if found is None:
                raise ProviderError("it came and went while it was made", where=order.client_token) from fault
            if (found["metadata"].get("labels") or {}).get(MACHINE) != order.machine:
                raise OrderRefused("a NodeClaim of this name is not ours", where=order.client_token) from fault
            made = found
        return _instance(made)

    async def get(self, pool: str, client_token: str) -> Instance | None:
        found = await self._read(client_token)
        return _instance(found) if found is not None and _is_ours(found) else None

    async def delete(self, pool: str, client_token: str) -> bool:
        found = await self._read(client_token)
        if found is None or not _is_ours(found):
            return True
        try:
            await self._cluster.delete(NODE_CLAIM, client_token, uid=found["metadata"]["uid"])
        except ApiFault as fault:
            raise _as_provider_error(fault) from fault
        return await self._read(client_token) is None

    async def list(self) -> Iterable[tuple[str, Instance]]:
        try:
            found = await self._cluster.list(NODE_CLAIM, label_selector=f"{MANAGED_BY}={MANAGED_BY_VALUE},{MACHINE}")
        except ApiFault as fault:
            if fault.gone:
                return []  # Karpenter is not installed here
            raise _as_provider_error(fault) from fault
        return [(one["metadata"]["labels"].get(POOL, ""), _instance(one)) for one in found]

    async def price(self, pool: Mapping[str, Any]) -> float | None:
        return None

    async def _read(self, name: str) -> dict[str, Any] | None:
        try:
            return await self._cluster.get(NODE_CLAIM, name)
        except ApiFault as fault:
            raise _as_provider_error(fault) from fault


def node_claim(order: ProviderOrder) -> dict[str, Any]:
    """The NodeClaim of an order."""
    spec = order.pool["spec"]["provider"]["karpenter"]
    labels = {label: value for label, value in order.labels.items() if label not in _KARPENTERS_OWN}
    requirements = [
        {"key": CAPACITY_TYPE, "operator": "In", "values": list(spec.get("capacityTypes") or ["on-demand"])}
    ]
    if spec.get("instanceTypes"):
        requirements.append({"key": INSTANCE_TYPE, "operator": "In", "values": list(spec["instanceTypes"])})
    for label in ("kubernetes.io/os", "kubernetes.io/arch"):
        if label in labels:
            requirements.append({"key": label, "operator": "In", "values": [labels.pop(label)]})
    requests = {name: amount for name, amount in order.capacity.items() if name in _REQUESTED or "/" in name}
    starting = [dict(taint) for taint in order.taints if taint["key"] == STARTUP_TAINT]
    lasting = [dict(taint) for taint in order.taints if taint["key"] != STARTUP_TAINT]
    return {
        "apiVersion": NODE_CLAIM.api_version,
        "kind": NODE_CLAIM.kind,
        "metadata": {"name": order.client_token, "labels": {**labels, MANAGED_BY: MANAGED_BY_VALUE}},
        "spec": {
            "nodeClassRef": dict(spec["nodeClassRef"]),
            "requirements": requirements,
            "resources": {"requests": requests},
            "startupTaints": starting,
            "taints": lasting,
        },
    }


def _instance(found: Mapping[str, Any]) -> Instance:
    meta, status = found["metadata"], found.get("status") or {}
    launched = find(status.get("conditions"), "Launched")
    state: State = "deleting" if meta.get("deletionTimestamp") else "running" if status.get("nodeName") else "creating"
    fault = ""
    if launched is not None and launched["status"] == "False" and launched["reason"] == "InsufficientCapacityError":
        state, fault = "failed", f"no capacity: {launched.get('message', '')}"
    return Instance(
        str(status.get("providerID") or ""),
        meta["name"],
        (meta.get("labels") or {}).get(MACHINE, ""),
        state,
        fault,
        seconds(meta.get("creationTimestamp")),
        str(status.get("nodeName") or ""),
    )


def _is_ours(found: Mapping[str, Any]) -> bool:
    return MACHINE in (found["metadata"].get("labels") or {})


def _as_provider_error(fault: ApiFault) -> ProviderError:
    kind = OrderRefused if fault.final or fault.gone else ProviderError
    return kind(fault.problem.what, where=fault.problem.where)
