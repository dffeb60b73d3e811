"""One visit to a Tenant: finalizer, namespaces, what belongs into each, readiness, status."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from crds.baseline import SecurityBaselineSpec
from crds.conditions import READY as READY_CONDITION
from crds.conditions import set_condition
from crds.labels import FINALIZER, MANAGER_TENANTS, READY
from crds.tenant import Tenant, TenantNamespace
from operators.runtime import RESOURCES, Cluster, Key, Stores
from operators.runtime.cluster import ApiFault, Object
from operators.runtime.controller import Touches
from operators.runtime.status import add_finalizer, drop_finalizer, write_status
from operators.tenants.access import desired_owners
from operators.tenants.limits import desired_limits, desired_quota, quota_in_force
from operators.tenants.namespaces import claimed_namespace, desired_namespace, split
from operators.tenants.network import desired_network
from operators.tenants.ownership import says, tenant_of
from operators.tenants.verdict import ready_condition

log = logging.getLogger(__name__)
_REFUSED_AGAIN_SECONDS = 30.0
_MANAGED = ("ResourceQuota", "LimitRange", "NetworkPolicy", "RoleBinding")


class TenantController:
    """Keeps each tenant's namespaces as its spec says, and mends what was changed."""

    name = "tenants"
    workers = 8

    def __init__(
        self, cluster: Cluster, stores: Stores, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._cluster = cluster
        self._stores = stores
        self._clock = clock
        self._tenants = stores.watch("Tenant")
        self._namespaces = stores.watch("Namespace")
        self._pools = stores.watch("AcceleratorPool")
        self._baselines = stores.watch("SecurityBaseline")
        self._seen: tuple[dict[str, str], str] = ({}, "")
        self._by_tenant = self._namespaces.index("tenant", lambda obj: [tenant_of(obj)])
        self._by_wish = self._tenants.index(
            "wish", lambda obj: [wanted["name"] for wanted in obj["spec"]["namespaces"]]
        )
        self.watches: Mapping[str, Touches] = {
            "Tenant": lambda obj: [("", obj["metadata"]["name"])],
            "Namespace": self._whose_namespace,
            # A pool brings a device's resource name, the baseline a Pod Security level: both concern everybody.
            "AcceleratorPool": lambda obj: self._all_if_changed(),
            "SecurityBaseline": lambda obj: self._all_if_changed(),
            **{kind: _whose for kind in _MANAGED},
        }

    async def reconcile(self, key: Key) -> float | None:
        """Read, decide, apply, status."""
        obj = self._tenants.get(key[1])
        if obj is None:
            return None
        if obj["metadata"].get("deletionTimestamp"):
            return await self._remove(obj)
        obj = await add_finalizer(self._cluster, self._stores, obj, FINALIZER, MANAGER_TENANTS)
        tenant = Tenant.parse(obj)
        plan = split(tenant, self._namespaces.get, self._by_tenant.get(tenant.metadata.name))
        for surplus in plan.surplus:
            await self._delete(self._namespaces.get(surplus))
        ready: list[str] = []
        refused: dict[str, str] = {}
        for wanted in plan.ours:
            try:
                if await self._namespace(tenant, wanted):
                    ready.append(wanted.name)
            except ApiFault as fault:
                if not fault.final:
                    raise
                refused[wanted.name] = str(fault)  # the other namespaces need not suffer from it
        await self._status(obj, tenant, ready_condition(plan, ready, refused), len(ready))
        return _REFUSED_AGAIN_SECONDS if refused else None

    async def _namespace(self, tenant: Tenant, wanted: TenantNamespace) -> bool:
        """Make one namespace right; True once its isolation is in force and it takes pods."""
        name = tenant.metadata.name
        present = self._namespaces.get(wanted.name) or await self._claim(name, wanted.name)
        if present["metadata"].get("deletionTimestamp"):
            return False  # an earlier one of that name is still going; its end brings us back
        uid = present["metadata"]["uid"]
        was_ready = bool(present["metadata"].get("labels", {}).get(READY) == "true")
        await self._apply(_same(desired_namespace(name, wanted, self._baseline(), was_ready), uid))
        for document in self._contents(tenant, wanted.name):
            await self._apply(document)
        quota = self._stores.watch("ResourceQuota").get("kekkai-ceiling", wanted.name)
        if not quota_in_force(quota):
            return was_ready
        await self._apply(_same(desired_namespace(name, wanted, self._baseline(), True), uid))
        return True

    async def _claim(self, tenant: str, name: str) -> Object:
        """Create the namespace. Not by apply: that would adopt one which somebody else made a moment ago."""
        try:
            made = await self._cluster.create(claimed_namespace(tenant, name), MANAGER_TENANTS)
        except ApiFault as fault:
            if fault.conflict and (found := await self._cluster.get(RESOURCES["Namespace"], name)):
                self._stores.observe(found)  # the next visit sees whose it is
            raise
        self._stores.observe(made)
        return made

    def _contents(self, tenant: Tenant, namespace: str) -> list[Object]:
        name, spec = tenant.metadata.name, tenant.spec
        # The deny comes first, the rights last: nothing is open for a moment.
        return [
            *desired_network(name, namespace, spec.network),
            desired_quota(name, namespace, spec, self._resources()),
            desired_limits(name, namespace, spec.container_defaults),
            desired_owners(name, namespace, spec.owners),
        ]

    async def _apply(self, wanted: Object) -> None:
        meta = wanted["metadata"]
        present = self._stores.watch(wanted["kind"]).get(meta["name"], meta.get("namespace", ""))
        amounts = wanted["kind"] in {"ResourceQuota", "LimitRange"}
        if present is None or not says(present, wanted, quantities=amounts):
            if present is not None and wanted["kind"] == "RoleBinding" and present["roleRef"] != wanted["roleRef"]:
                await self._delete(present)  # a binding's role cannot be changed
            self._stores.observe(await self._cluster.apply(wanted, MANAGER_TENANTS))

    async def _remove(self, obj: Object) -> float | None:
        """Delete every namespace of the tenant; the tenant goes when the last one is gone."""
        left = self._by_tenant.get(obj["metadata"]["name"])
        for namespace in left:
            if not namespace["metadata"].get("deletionTimestamp"):
                await self._delete(namespace)
        if left:
            return 5.0
        await drop_finalizer(self._cluster, self._stores, obj, FINALIZER, MANAGER_TENANTS)
        return None

    async def _delete(self, obj: Object | None) -> None:
        """Delete that very object, not a later one of its name."""
        if obj is not None:
            meta = obj["metadata"]
            await self._cluster.delete(RESOURCES[obj["kind"]], meta["name"], meta.get("namespace"), meta["uid"])

    async def _status(self, obj: Object, tenant: Tenant, verdict: tuple[bool, str, str], ready: int) -> None:
        old = (obj.get("status") or {}).get("conditions")
        conditions = set_condition(old, READY_CONDITION, *verdict, self._clock(), tenant.metadata.generation)
        status = {
            "conditions": conditions,
            "observedGeneration": tenant.metadata.generation,
            "readyNamespaces": ready,
        }
        await write_status(self._cluster, self._stores, obj, status, MANAGER_TENANTS)

    def _baseline(self) -> SecurityBaselineSpec:
        found = self._baselines.get("default")
        return SecurityBaselineSpec.model_validate((found or {}).get("spec") or {})

    def _resources(self) -> dict[str, str]:
        accelerators = (pool["spec"]["accelerator"] for pool in self._pools)
        return {one["type"]: one.get("resource", "nvidia.com/gpu") for one in accelerators}

    def _all_if_changed(self) -> Iterable[Key]:
        # Pools write their status often; only what tenants' objects are made from is looked at.
        seen = (self._resources(), self._baseline().pod_security.level)
        if seen == self._seen:
            return []
        self._seen = seen
        return [("", tenant["metadata"]["name"]) for tenant in self._tenants]

    def _whose_namespace(self, obj: Mapping[str, Any]) -> Iterable[Key]:
        # Whoever it belongs to, and whoever names it in its spec: its end resolves a conflict.
        owner = tenant_of(obj)
        wanting = [tenant["metadata"]["name"] for tenant in self._by_wish.get(obj["metadata"]["name"])]
        return [("", name) for name in dict.fromkeys([*wanting, owner]) if name]


def _same(wanted: Object, uid: str) -> Object:
    """The wanted object, to be applied to the one with that uid or not at all."""
    return {**wanted, "metadata": {**wanted["metadata"], "uid": uid}}


def _whose(obj: Mapping[str, Any]) -> Iterable[Key]:
    owner = tenant_of(obj)
    return [("", owner)] if owner else []
