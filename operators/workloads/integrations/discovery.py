"""Which of the kinds that the queue takes are served: asked at start, and again as long as it runs.

A CRD may come later (an operator is installed); from then on its objects are listed,
watched and queued without a restart. Kinds that are not installed are never watched.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping

from operators.planning.family import Family
from operators.planning.queued_kind import QueuedKind
from operators.runtime import RESOURCES, ApiFault, Cluster, Key, Touches, WorkQueue
from operators.runtime.resources import ResourceType
from operators.runtime.watch import Watch
from operators.workloads.integrations import WHERE_SERVED

log = logging.getLogger(__name__)
_PERIOD = 30.0  # seconds
_KEY: Key = ("", "discovery")


async def served(cluster: Cluster, kinds: Iterable[QueuedKind] = WHERE_SERVED) -> list[QueuedKind]:
    """Those that this API server serves, with all that stands between them and their pods. Raises ApiFault."""
    plurals: dict[str, set[str]] = {}
    found = []
    for kind in kinds:
        needed = [kind.resource, *(RESOURCES[one] for one in kind.between)]
        for resource in needed:
            if resource.api_version not in plurals:
                plurals[resource.api_version] = await _plurals(cluster, resource)
        if all(resource.plural in plurals[resource.api_version] for resource in needed):
            found.append(kind)
    return found


async def served_at_start(cluster: Cluster, stop: asyncio.Event) -> list[QueuedKind]:
    """The same, asked until the API server answers, or `stop` is set.

    What is admitted is accounted for from the first plan on, so the kinds must be known before it.
    """
    delay = 0.2
    while not stop.is_set():
        try:
            return await served(cluster)
        except ApiFault as fault:
            log.warning("kinds cannot be discovered, again in %.1f s: %s", delay, fault)
            await asyncio.sleep(delay)
            delay = min(delay * 2, 10.0)
    return []


async def _plurals(cluster: Cluster, resource: ResourceType) -> set[str]:
    path = f"/apis/{resource.group}/{resource.version}" if resource.group else f"/api/{resource.version}"
    try:
        reply = await cluster.request("GET", path)
    except ApiFault as fault:
        if fault.gone:
            return set()
        raise
    return {one["name"] for one in reply.get("resources") or ()}


class Discovery:
    """A controller with one key: ask again which kinds are served."""

    name = "discovery"
    workers = 1
    watches: Mapping[str, Touches] = {}

    def __init__(self, cluster: Cluster, family: Family, period: float = _PERIOD) -> None:
        self.cluster = cluster
        self.family = family
        self.period = period
        self._tasks: set[asyncio.Task[None]] = set()

    def attach(self, queue: WorkQueue[Key]) -> None:
        queue.add_after(_KEY, self.period)

    async def reconcile(self, key: Key) -> float | None:
        """Take in kinds that have come since."""
        for kind in await served(self.cluster):
            if kind.resource.kind in self.family.kinds:
                continue
            log.info("%s is served now and is queued from here on", kind.resource.kind)
            for store in self.family.add(kind):
                task = asyncio.create_task(Watch(self.cluster, store).run(), name=f"watch of {store.resource.kind}")
                self._tasks.add(task)
        return self.period
