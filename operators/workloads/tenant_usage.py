"""Tells each Tenant how much of its quota is in use: counts and devices in its status."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from crds.labels import MANAGER_WORKLOADS
from operators.planning.feed import Feed
from operators.runtime import Cluster, Key, Stores, Touches, WorkQueue, write_status

_WRITES_RATE = 2.0  # status writes a second over all tenants, at most
_AT_MOST_EACH = 1.0  # seconds between two writes of one tenant, at least


class TenantUsage:
    """Visits Tenants by name; their other status fields are the tenants operator's."""

    name = "tenant-usage"
    workers = 2

    def __init__(self, cluster: Cluster, stores: Stores, feed: Feed) -> None:
        self.cluster = cluster
        self.stores = stores
        self.feed = feed
        self.tenants = stores.watch("Tenant")
        self.watches: Mapping[str, Touches] = {"Tenant": lambda obj: (("", obj["metadata"]["name"]),)}
        self._written: dict[str, float] = {}
        self._queue: WorkQueue[Key] | None = None
        feed.decisions.listen("tenant", self._changed)

    def attach(self, queue: WorkQueue[Key]) -> None:
        self._queue = queue

    def _changed(self, tenant: str) -> None:
        if self._queue is not None:
            self._queue.add_after(("", tenant), self._pause(tenant))

    def _pause(self, tenant: str) -> float:
        each = max(_AT_MOST_EACH, len(self.tenants) / _WRITES_RATE)
        return max(0.1, self._written.get(tenant, 0.0) + each - time.monotonic())

    async def reconcile(self, key: Key) -> float | None:
        name = key[1]
        tenant = self.tenants.get(name)
        if tenant is None or tenant["metadata"].get("deletionTimestamp"):
            self._written.pop(name, None)
            return None
        wanted = usage(tenant, self.feed)
        if all((tenant.get("status") or {}).get(field) == value for field, value in wanted.items()):
            return None
        pause = self._pause(name)
        if pause > 0.1:
            return pause
        await write_status(self.cluster, self.stores, tenant, wanted, MANAGER_WORKLOADS)
        self._written[name] = time.monotonic()
        return None


def usage(tenant: Mapping[str, Any], feed: Feed) -> dict[str, Any]:
    """The status fields of a tenant that are about its use."""
    name, books = tenant["metadata"]["name"], feed.fleet.use.entitlements
    counts = feed.counts.get(name, {"pending": 0, "admitted": 0})
    classes = [
        {
            "accelerator": one["accelerator"],
            "used": books.used(name, one["accelerator"]),
            "nominal": one["nominal"],
            "borrowed": books.excess(name, one["accelerator"]),
        }
        for one in tenant["spec"].get("quota") or ()
    ]
    share = books.share(name)[1] * books.weight(name)  # without the weight: the part of all devices
    wanted: dict[str, Any] = {
        "pendingWorkloads": counts["pending"],
        "admittedWorkloads": counts["admitted"],
        "usage": classes,
        "borrowed": sum(one["borrowed"] for one in classes),
        "sharePerMille": round(1000 * share),
    }
    past = books.remembered(name)
    if past:
        wanted["decayedUsage"] = [{"accelerator": one, **past[one]} for one in sorted(past)]
    return wanted
