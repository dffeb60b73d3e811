"""Visits AcceleratorPools and Sites: finalizer, deletion (machines first), counts in the status."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from crds.conditions import READY, is_true, set_condition
from crds.errors import NotFound
from crds.labels import FINALIZER, MANAGER_POOLS, POOL, SITE
from operators.planning.feed import Feed
from operators.pools.figures import PoolFigures
from operators.pools.providers import Providers
from operators.pools.repair import RepairBoard
from operators.runtime import (
    RESOURCES,
    Cluster,
    Key,
    Stores,
    Touches,
    WorkQueue,
    add_finalizer,
    drop_finalizer,
    write_status,
)
from scheduler.objects.fleet_objects import is_going
from scheduler.objects.node_shape import resource_of

Object = Mapping[str, Any]
HEALTHY = "Healthy"  # False while so many machines are ill that nothing is repaired
_PACE = 1.0  # seconds between two status writes of one object, at least


class PoolController:
    """The loop of each pool."""

    name = "pools"
    workers = 4

    def __init__(self, cluster: Cluster, stores: Stores, feed: Feed, providers: Providers, board: RepairBoard) -> None:
        self.cluster = cluster
        self.stores = stores
        self.feed = feed
        self.providers = providers
        self.board = board
        self._figures = PoolFigures(providers)
        board.changed = self._changed
        self.pools, self.sites = stores.watch("AcceleratorPool"), stores.watch("Site")
        self.machines = stores.watch("Machine")
        self._of_pool = self.machines.index("pool", lambda machine: (machine["spec"]["pool"],))
        self._written: dict[str, float] = {}
        self._queue: WorkQueue[Key] | None = None
        self.watches: Mapping[str, Touches] = {
            "AcceleratorPool": lambda obj: (("", obj["metadata"]["name"]),),
            "Site": self._at_site,
            "Machine": self._leaving,
        }
        feed.decisions.listen("pool", self._changed)

    def attach(self, queue: WorkQueue[Key]) -> None:
        self._queue = queue

    def _changed(self, pool: str) -> None:
        if self._queue is not None and pool:
            self._queue.add_after(("", pool), 0.1)

    def _at_site(self, site: Object) -> Iterable[Key]:
        name = site["metadata"]["name"]
        return (("", pool["metadata"]["name"]) for pool in self.pools if pool["spec"]["site"] == name)

    def _leaving(self, machine: Object) -> Iterable[Key]:
        """A machine's changes reach its pool through the feed; a pool that is deleted counts them itself."""
        pool = self.pools.get(machine["spec"]["pool"])
        return (("", machine["spec"]["pool"]),) if pool is None or pool["metadata"].get("deletionTimestamp") else ()

    async def reconcile(self, key: Key) -> float | None:
        pool = self.pools.get(key[1])
        if pool is None:
            self._written.pop(key[1], None)
            self._figures.forget(key[1])
            return None
        if pool["metadata"].get("deletionTimestamp"):
            return await self._delete(pool)
        pool = await add_finalizer(self.cluster, self.stores, pool, FINALIZER, MANAGER_POOLS)
        pause = self._written.get(key[1], 0.0) + _PACE - time.monotonic()
        status = pool_status(pool, self._problem(pool), self._of_pool.get(key[1]), self.feed, datetime.now(UTC))
        why = self.board.held.get(key[1], "")
        ill = self.board.ill.get(key[1], 0)
        healthy = (False, "RepairsHeld", why) if why else (True, "Healthy", f"{ill} machines are ill" if ill else "")
        status["conditions"] = set_condition(
            status["conditions"], HEALTHY, *healthy, datetime.now(UTC), pool["metadata"].get("generation", 0)
        )
        await self._figures.show(pool, status, self._of_pool.get(key[1]))
        if pause > 0:
            return pause if status != pool.get("status") else None
        if await write_status(self.cluster, self.stores, pool, status, MANAGER_POOLS):
            self._written[key[1]] = time.monotonic()
        return None

    async def _delete(self, pool: dict[str, Any]) -> float | None:
        machines = self._of_pool.get(pool["metadata"]["name"])
        for machine in machines:
            meta = machine["metadata"]
            if not meta.get("deletionTimestamp"):
                await self.cluster.delete(RESOURCES["Machine"], meta["name"], uid=meta["uid"])
        if machines:
            return 2.0
        await drop_finalizer(self.cluster, self.stores, pool, FINALIZER, MANAGER_POOLS)
        return None

    def _problem(self, pool: Object) -> tuple[str, str] | None:
        if self.sites.get(pool["spec"]["site"]) is None:
            return "SiteNotFound", f"spec.site: Site {pool['spec']['site']} does not exist; make it"
        try:
            self.providers.of_pool(pool)
        except NotFound as error:
            return error.problem.reason, str(error)
        return None


def pool_status(
    pool: Object, problem: tuple[str, str] | None, machines: list[dict[str, Any]], feed: Feed, now: datetime
) -> dict[str, Any]:
    """The whole status of a pool."""
    name, spec = pool["metadata"]["name"], pool["spec"]
    fleet = feed.fleet
    nodes = [fleet.nodes[node] for node in fleet.nodes_of_pool.get(name, ())]
    ready = [node for node in nodes if node.ready and node.schedulable]
    going = sum(1 for machine in machines if is_going(machine))
    standing = len(machines) - going
    asked = sum(1 for request in feed.decisions.requests.values() if request.pool == name)
    most = spec["scaling"]["max"]
    resource = resource_of(pool)
    if problem is not None:
        verdict = (False, *problem)
    elif standing + asked >= most > 0:
        verdict = (True, "AtMaximum", f"it has all of its {most} machines")
    else:
        verdict = (True, "Available", "")
    generation = pool["metadata"].get("generation", 0)
    old = (pool.get("status") or {}).get("conditions")
    return {
        "conditions": set_condition(old, READY, *verdict, now, generation),
        "observedGeneration": generation,
        "replicas": len(machines),
        "selector": f"{POOL}={name}",
        "machines": {
            "wanted": standing + asked,
            "coming": standing + asked - sum(1 for m in machines if is_true(m, READY) and not is_going(m)),
            "ready": len(ready),
            "idle": sum(1 for node in ready if node.name in feed.decisions.idle),
            "going": going,
        },
        "devices": sum(node.allocatable.get(resource, 0) for node in ready),
        "devicesUsed": devices_used(feed, name, resource),
    }


def devices_used(feed: Feed, pool: str, resource: str) -> int:
    """Devices on the pool's nodes that someone holds."""
    table = feed.fleet.table
    rows = [table.rows[node] for node in feed.fleet.nodes_of_pool.get(pool, ()) if node in table.rows]
    return int(table.used[rows, table.column(resource)].sum()) if rows else 0


class SiteController:
    """The loop of each site: it counts."""

    name = "sites"
    workers = 1

    def __init__(self, cluster: Cluster, stores: Stores) -> None:
        self.cluster = cluster
        self.stores = stores
        self.sites, self.nodes = stores.watch("Site"), stores.watch("Node")
        self._at = self.nodes.index("site", _site_of)
        self._written: dict[str, float] = {}
        self._queue: WorkQueue[Key] | None = None
        self.watches: Mapping[str, Touches] = {"Site": lambda obj: (("", obj["metadata"]["name"]),)}
        self.nodes.listen(self._on_node)

    def attach(self, queue: WorkQueue[Key]) -> None:
        self._queue = queue

    def _on_node(self, old: Object | None, new: Object | None) -> None:
        if (old is None or new is None) and self._queue is not None:
            for site in _site_of(old or new or {}):
                self._queue.add_after(("", site), 0.2)

    async def reconcile(self, key: Key) -> float | None:
        site = self.sites.get(key[1])
        if site is None or site["metadata"].get("deletionTimestamp"):
            return None
        pause = self._written.get(key[1], 0.0) + _PACE - time.monotonic()
        if pause > 0:
            return pause
        generation = site["metadata"].get("generation", 0)
        old = (site.get("status") or {}).get("conditions")
        status = {
            "conditions": set_condition(old, READY, True, "Known", "", datetime.now(UTC), generation),
            "observedGeneration": generation,
            "nodes": self._at.count(key[1]),
        }
        if await write_status(self.cluster, self.stores, site, status, MANAGER_POOLS):
            self._written[key[1]] = time.monotonic()
        return None


def _site_of(node: Object) -> tuple[str, ...]:
    name = (node["metadata"].get("labels") or {}).get(SITE)
    return (name,) if name else ()
