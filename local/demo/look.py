"""What the live view shows, read from the API server twice a second."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from crds.conditions import find, is_true
from operators.runtime import RESOURCES, ApiFault, Cluster


@dataclass(slots=True)
class PoolRow:
    name: str
    accelerator: str
    tee: str
    machines: int
    ready: int
    maximum: int


@dataclass(slots=True)
class WorkloadRow:
    namespace: str
    name: str
    state: str
    reason: str


@dataclass(slots=True)
class Snapshot:
    """The cluster at one moment."""

    pools: list[PoolRow] = field(default_factory=list)
    workloads: list[WorkloadRow] = field(default_factory=list)
    pods: dict[str, int] = field(default_factory=dict)
    key_state: str = ""
    releases: int = 0


class Eye:
    """Keeps the newest snapshot; a failed read leaves the last one."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.snapshot = Snapshot()

    async def watch(self, seconds: float = 0.5) -> None:
        """Read until cancelled."""
        while True:
            try:
                self.snapshot = await self._read()
            except (ApiFault, KeyError):
                # Before the kinds are installed, or while the API server restarts, there is nothing to show.
                await asyncio.sleep(seconds)
            await asyncio.sleep(seconds)

    async def _read(self) -> Snapshot:
        kinds = ("AcceleratorPool", "Machine", "Workload", "Pod", "ProtectedKey")
        pools, machines, workloads, pods, keys = await asyncio.gather(
            *(self._cluster.list(RESOURCES[kind]) for kind in kinds)
        )
        snapshot = Snapshot(
            pools=[_pool(pool, machines) for pool in pools],
            workloads=sorted((_workload(obj) for obj in workloads), key=lambda row: (row.namespace, row.name)),
        )
        for pod in pods:
            phase = (pod.get("status") or {}).get("phase", "Pending")
            snapshot.pods[phase] = snapshot.pods.get(phase, 0) + 1
        for key in keys:
            status = key.get("status") or {}
            snapshot.key_state = status.get("state", "")
            snapshot.releases = status.get("releases", 0)
        return snapshot


def _pool(pool: dict[str, Any], machines: list[dict[str, Any]]) -> PoolRow:
    name, spec = pool["metadata"]["name"], pool["spec"]
    mine = [machine for machine in machines if machine["spec"]["pool"] == name]
    return PoolRow(
        name,
        f"{spec['accelerator']['type']}×{spec['accelerator']['perNode']}",
        spec["confidential"]["cpu"],
        len(mine),
        sum(1 for machine in mine if is_true(machine, "Ready")),
        spec["scaling"]["max"],
    )


def _workload(obj: dict[str, Any]) -> WorkloadRow:
    meta, status = obj["metadata"], obj.get("status") or {}
    if is_true(obj, "Finished"):
        condition = find(status["conditions"], "Finished")
        state, reason = "finished", str(condition["reason"]) if condition else ""
    elif is_true(obj, "Admitted"):
        nodes = {p["node"] for p in (status.get("admission") or {}).get("placements", [])}
        state, reason = "admitted", f"on {len(nodes)} node{'s' * (len(nodes) != 1)}"
    else:
        first = (status.get("reasons") or [{}])[0]
        state, reason = "waiting", f"{first.get('code', '')}: {first.get('message', '')}".strip(": ")
    return WorkloadRow(meta["namespace"], meta["name"], state, reason)
