"""Turns what the plan asks for into Machine objects, and takes back what it no longer needs."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Mapping
from typing import Any

from crds.labels import API_VERSION, FINALIZER, MANAGED_BY, MANAGED_BY_VALUE, MANAGER_POOLS, POOL
from operators.planning.decisions import Decisions
from operators.pools.backoff import Backoff
from operators.runtime import RESOURCES, ApiFault, Cluster, Key, Stores, Touches, WorkQueue
from scheduler import MachineRequest

Object = Mapping[str, Any]
log = logging.getLogger(__name__)


class Ordering:
    """Visits decisions about machines, by machine name."""

    name = "ordering"
    workers = 16

    def __init__(self, cluster: Cluster, stores: Stores, decisions: Decisions, backoff: Backoff) -> None:
        self.cluster = cluster
        self.stores = stores
        self.decisions = decisions
        self.backoff = backoff
        self.machines, self.pools = stores.watch("Machine"), stores.watch("AcceleratorPool")
        self.watches: Mapping[str, Touches] = {}
        self._queue: WorkQueue[Key] | None = None
        decisions.listen("machine", lambda name: self._add(name))

    def attach(self, queue: WorkQueue[Key]) -> None:
        self._queue = queue

    def _add(self, name: str) -> None:
        if self._queue is not None:
            self._queue.add(("", name))

    async def reconcile(self, key: Key) -> float | None:
        name = key[1]
        if name in self.decisions.removals:
            await self._remove(name)
        request = self.decisions.requests.get(name)
        if request is not None:
            wait = self.backoff.wait(name)
            if wait > 0:
                return wait  # meanwhile it lies on the desk, where the plan counts it as coming
            await self._make(request)
            self.decisions.requests.pop(name, None)
            self.decisions.tell("machine-void", name)
        return None

    async def _make(self, request: MachineRequest) -> None:
        pool = self.pools.get(request.pool)
        if pool is None or pool["metadata"].get("deletionTimestamp") or self.machines.get(request.name) is not None:
            return
        try:
            made = await self.cluster.create(manifest(request, pool, secrets.token_hex(3)), MANAGER_POOLS)
        except ApiFault as fault:
            if not fault.conflict:
                raise
            # Made before a restart: its own token is in it.
            found = await self.cluster.get(RESOURCES["Machine"], request.name)
            if found is None:
                raise
            made = found
        self.stores.observe(made)

    async def _remove(self, name: str) -> None:
        machine = self.machines.get(name)
        if machine is None:
            self.decisions.removals.pop(name, None)
        elif not machine["metadata"].get("deletionTimestamp"):
            log.info("machine %s goes: %s", name, self.decisions.removals[name])
            await self.cluster.delete(RESOURCES["Machine"], name, uid=machine["metadata"]["uid"])


def manifest(request: MachineRequest, pool: Object, mark: str) -> dict[str, Any]:
    """The Machine of a request. `mark` tells its token from that of an earlier machine of the same name."""
    meta = pool["metadata"]
    slot = {"block": request.block, "rack": request.rack, "nvlinkDomain": request.nvlink_domain}
    return {
        "apiVersion": API_VERSION,
        "kind": "Machine",
        "metadata": {
            "name": request.name,
            "labels": {POOL: request.pool, MANAGED_BY: MANAGED_BY_VALUE},
            "finalizers": [FINALIZER],
            "ownerReferences": [
                {
                    "apiVersion": API_VERSION,
                    "kind": "AcceleratorPool",
                    "name": meta["name"],
                    "uid": meta["uid"],
                    "controller": True,
                }
            ],
        },
        "spec": {
            "pool": request.pool,
            "clientToken": f"{request.name}-{mark}",
            "topology": {level: domain for level, domain in slot.items() if domain},
            "reason": request.reason[:1024],
        },
    }
