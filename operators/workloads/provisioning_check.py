"""Asks a cluster autoscaler for the capacity of Workloads whose check says so, and writes what it answers.

Requests are looked at in turns rather than watched: few Workloads have such a check, and
the kind need not be installed.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from crds.conditions import timestamp
from crds.labels import ACCELERATOR, API_VERSION
from operators.planning.feed import Feed
from operators.planning.outlook import check_state
from operators.runtime import RESOURCES, ApiFault, Cluster, Key, Stores, Touches
from operators.workloads import provisioning
from operators.workloads.provisioning import Verdict

Object = Mapping[str, Any]
MANAGER = "kekkai-provisioning"
_REQUESTS, _TEMPLATES = RESOURCES["ProvisioningRequest"], RESOURCES["PodTemplate"]


class ProvisioningCheck:
    """Visits Workloads by namespace and name."""

    name = "provisioning"
    workers = 2

    def __init__(self, cluster: Cluster, stores: Stores, feed: Feed) -> None:
        self.cluster = cluster
        self.stores = stores
        self.feed = feed
        self.workloads = stores.watch("Workload")
        self.watches: Mapping[str, Touches] = {
            "Workload": lambda obj: (_key(obj),) if provisioning.checks_of(obj) else ()
        }
        self._asked: dict[Key, int] = {}  # Workload that capacity was asked for, not admitted yet → devices

    async def reconcile(self, key: Key) -> float | None:
        workload = self.workloads.get(key[1], key[0])
        if workload is None or workload["metadata"].get("deletionTimestamp"):
            self._asked.pop(key, None)
            return None
        pauses = [await self._check(key, workload, name) for name in provisioning.checks_of(workload)]
        return min((pause for pause in pauses if pause is not None), default=None)

    async def _check(self, key: Key, workload: dict[str, Any], check: str) -> float | None:
        if not workload["spec"].get("podSets") and check_state(workload, check) is None:
            return None  # nobody knows yet what it asks for
        now = datetime.now(UTC)
        requests = await self._requests(workload, check)
        verdict = provisioning.judge(workload, requests, self._may_ask(key, workload), now)
        try:
            await self._act(workload, check, verdict)
        except ApiFault as fault:
            if not fault.gone:
                raise
            message = f"{_REQUESTS.api_version} is not served; install a cluster autoscaler that provisions on request"
            verdict = Verdict(provisioning.PENDING, message, again=60.0)
        self._note(key, workload, verdict, bool(requests) or verdict.create is not None)
        before = check_state(workload, check)
        entry = provisioning.entry(workload, check, verdict, timestamp(now))
        if before is None or dict(before) != entry:
            await self._write(workload, entry)
        return verdict.again

    async def _requests(self, workload: Object, check: str) -> dict[int, Object]:
        """By attempt. They are made one after the other, so the first that is missing is the end."""
        found: dict[int, Object] = {}
        for attempt in range(1, provisioning.ATTEMPTS + 1):
            name = provisioning.request_name(workload, check, attempt)
            one = await self.cluster.get(_REQUESTS, name, workload["metadata"]["namespace"])
            if one is None:
                break
            if not one["metadata"].get("deletionTimestamp"):
                found[attempt] = one
        return found

    def _may_ask(self, key: Key, workload: Object) -> bool:
        fleet = self.feed.fleet
        state = fleet.workloads.get(f"{key[0]}/{key[1]}")
        tenant = fleet.tenants.get(workload["spec"].get("tenant") or "")
        if state is None or tenant is None or tenant.hold or state.admitted:
            return False
        devices = sum(one.count * fleet.devices_of(one.requests) for one in state.pod_sets)
        selected = {one.node_selector[ACCELERATOR] for one in state.pod_sets if ACCELERATOR in one.node_selector}
        classes = sorted(selected or {name for name, _ in state.flavors})
        others = sum(
            asked
            for other, asked in self._asked.items()
            if other != key
            and (self.workloads.get(other[1], other[0]) or {"spec": {}})["spec"].get("tenant") == tenant.name
        )
        books = fleet.use.entitlements
        available = {name: books.available(tenant.name, name) for name in tenant.quota}
        return provisioning.has_room(devices + others, available, classes)

    def _note(self, key: Key, workload: Object, verdict: Verdict, asked: bool) -> None:
        state = self.feed.fleet.workloads.get(f"{key[0]}/{key[1]}")
        waits = state is not None and not state.admitted and not state.finished
        if asked and waits and state is not None and verdict.state != provisioning.REJECTED:
            self._asked[key] = sum(one.count * self.feed.fleet.devices_of(one.requests) for one in state.pod_sets)
        else:
            self._asked.pop(key, None)

    async def _act(self, workload: Object, check: str, verdict: Verdict) -> None:
        namespace = workload["metadata"]["namespace"]
        for attempt in verdict.delete:
            name = provisioning.request_name(workload, check, attempt)
            await self.cluster.delete(_REQUESTS, name, namespace)
            for body in provisioning.template_bodies(workload, check, attempt):
                await self.cluster.delete(_TEMPLATES, body["metadata"]["name"], namespace)
        if verdict.create is not None:
            request = provisioning.request_body(workload, check, verdict.create)
            for body in [*provisioning.template_bodies(workload, check, verdict.create), request]:
                try:
                    await self.cluster.create(body, MANAGER)
                except ApiFault as fault:
                    if not fault.conflict:
                        raise

    async def _write(self, workload: Object, entry: Mapping[str, Any]) -> None:
        meta = workload["metadata"]
        body = {
            "apiVersion": API_VERSION,
            "kind": "Workload",
            "metadata": {"name": meta["name"], "namespace": meta["namespace"], "uid": meta["uid"]},
            "status": {"admissionChecks": [dict(entry)]},
        }
        self.stores.observe(await self.cluster.apply(body, f"{MANAGER}-{entry['name']}"[:128], subresource="status"))


def _key(obj: Object) -> Key:
    return obj["metadata"]["namespace"], obj["metadata"]["name"]
