"""What Cluster API does with a MachineDeployment: as many Machines as replicas, marked ones deleted first."""

from __future__ import annotations

import secrets
from typing import Any

from local.capacity.bought import MANAGER, register, unregister
from operators.runtime import Cluster, ResourceType

_GROUP, _VERSION = "cluster.x-k8s.io", "v1beta2"
DEPLOYMENTS = ResourceType(_GROUP, _VERSION, "machinedeployments", "MachineDeployment", True)
MACHINES = ResourceType(_GROUP, _VERSION, "machines", "Machine", True)
_FINALIZER = "machine.cluster.x-k8s.io"
_DEPLOYMENT = f"{_GROUP}/deployment-name"
_MARK = f"{_GROUP}/delete-machine"


class ClusterApiController:
    """`step()` does one round over all MachineDeployments: what was asked for in this round is there in the next."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    async def step(self) -> None:
        for deployment in await self._cluster.list(DEPLOYMENTS):
            namespace, name = deployment["metadata"]["namespace"], deployment["metadata"]["name"]
            machines = await self._cluster.list(MACHINES, namespace, f"{_DEPLOYMENT}={name}")
            for machine in machines:
                await (self._end if machine["metadata"].get("deletionTimestamp") else self._provision)(machine)
            living = [machine for machine in machines if not machine["metadata"].get("deletionTimestamp")]
            wanted = int(deployment["spec"].get("replicas") or 0)
            for _ in range(wanted - len(living)):
                await self._make(namespace, name)
            # The order of its default policy: those marked for deletion, then any.
            living.sort(
                key=lambda one: (_MARK not in (one["metadata"].get("annotations") or {}), one["metadata"]["name"])
            )
            for machine in living[: max(len(living) - wanted, 0)]:
                await self._cluster.delete(MACHINES, machine["metadata"]["name"], namespace)

    async def _make(self, namespace: str, deployment: str) -> None:
        meta = {
            "name": f"{deployment}-{secrets.token_hex(3)}",
            "namespace": namespace,
            "labels": {_DEPLOYMENT: deployment},
            "finalizers": [_FINALIZER],
        }
        body = {
            "apiVersion": MACHINES.api_version,
            "kind": MACHINES.kind,
            "metadata": meta,
            "spec": {"clusterName": "c"},
        }
        await self._cluster.request("POST", MACHINES.path(namespace), {"fieldManager": MANAGER}, body)

    async def _provision(self, machine: dict[str, Any]) -> None:
        namespace, name = machine["metadata"]["namespace"], machine["metadata"]["name"]
        if (machine.get("status") or {}).get("phase") == "Running":
            return
        provider_id = f"emulated:///{namespace}/{name}"
        await self._cluster.merge_patch(MACHINES, name, {"spec": {"providerID": provider_id}}, MANAGER, namespace)
        taints = [{"key": "kekkai.dev/uninitialized", "effect": "NoSchedule"}]
        await register(self._cluster, name, provider_id, {}, taints)
        status = {"status": {"phase": "Running", "nodeRef": {"name": name}}}
        await self._cluster.merge_patch(MACHINES, name, status, MANAGER, namespace, "status")

    async def _end(self, machine: dict[str, Any]) -> None:
        namespace, name = machine["metadata"]["namespace"], machine["metadata"]["name"]
        await unregister(self._cluster, name)
        await self._cluster.merge_patch(MACHINES, name, {"metadata": {"finalizers": []}}, MANAGER, namespace)
