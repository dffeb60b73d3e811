"""What Karpenter does with a NodeClaim: launch, register with labels and taints, terminate; or "no capacity"."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from crds.conditions import set_condition
from local.capacity.bought import MANAGER, register, unregister
from operators.pools.providers.karpenter import NODE_CLAIM
from operators.runtime import Cluster

_FINALIZER = "karpenter.sh/termination"


class KarpenterController:
    """`step()` does one round over all NodeClaims. `sold_out(name)` says for which there is no capacity."""

    def __init__(self, cluster: Cluster, sold_out: Callable[[str], bool] = lambda name: False) -> None:
        self._cluster = cluster
        self._sold_out = sold_out

    async def step(self) -> None:
        for claim in await self._cluster.list(NODE_CLAIM):
            name, status = claim["metadata"]["name"], claim.get("status") or {}
            if claim["metadata"].get("deletionTimestamp"):
                await unregister(self._cluster, name)
                await self._cluster.merge_patch(NODE_CLAIM, name, {"metadata": {"finalizers": []}}, MANAGER)
            elif self._sold_out(name):
                # As Karpenter does: it says so, and deletes the claim.
                await self._cluster.delete(NODE_CLAIM, name)
            elif not status.get("nodeName"):
                await self._launch(claim)

    async def _launch(self, claim: dict[str, Any]) -> None:
        name, spec = claim["metadata"]["name"], claim["spec"]
        await self._cluster.merge_patch(NODE_CLAIM, name, {"metadata": {"finalizers": [_FINALIZER]}}, MANAGER)
        provider_id = f"emulated:///karpenter/{name}"
        labels = claim["metadata"].get("labels") or {}
        await register(self._cluster, name, provider_id, labels, [*spec["startupTaints"], *spec["taints"]])
        status = {"providerID": provider_id, "nodeName": name, "conditions": _launched()}
        await self._cluster.merge_patch(NODE_CLAIM, name, {"status": status}, MANAGER, subresource="status")


def _launched() -> list[dict[str, Any]]:
    return set_condition(None, "Launched", True, "Launched", "", datetime.now(UTC), 1)
