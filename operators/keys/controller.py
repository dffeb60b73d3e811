"""One visit to a ProtectedKey: finalizer, ask the key service, write what it answered."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from crds.conditions import READY, set_condition
from crds.errors import Unavailable
from crds.labels import FINALIZER, MANAGER_KEYS
from crds.protectedkey import ProtectedKey
from operators.keys.decide import again_after, request_for, status_of
from operators.keys.service import KeyServiceClient, KeyServiceRefused
from operators.runtime import Cluster, Key, Stores
from operators.runtime.cluster import Object
from operators.runtime.controller import Touches
from operators.runtime.status import add_finalizer, drop_finalizer, write_status
from operators.tenants.ownership import tenant_of


class KeyController:
    """Keeps the key service and the ProtectedKeys in step."""

    name = "keys"
    workers = 4

    def __init__(
        self,
        cluster: Cluster,
        stores: Stores,
        service: KeyServiceClient,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._cluster = cluster
        self._stores = stores
        self._service = service
        self._clock = clock
        self._keys = stores.watch("ProtectedKey")
        self._namespaces = stores.watch("Namespace")
        self.watches: Mapping[str, Touches] = {
            "ProtectedKey": _itself,
            "Namespace": lambda obj: (
                (one["metadata"]["namespace"], one["metadata"]["name"])
                for one in self._keys.in_namespace(obj["metadata"]["name"])
            ),
        }

    async def reconcile(self, key: Key) -> float | None:
        """Read, ask, status; comes again to see new releases."""
        obj = self._keys.get(key[1], key[0])
        if obj is None:
            return None
        if obj["metadata"].get("deletionTimestamp"):
            return await self._remove(obj, key)
        namespace = self._namespaces.get(key[0])
        tenant = tenant_of(namespace) if namespace else ""
        if not tenant:
            await self._not_ready(obj, False, "NamespaceNotATenants", "metadata.namespace is not a tenant's; use one")
            return None
        obj = await add_finalizer(self._cluster, self._stores, obj, FINALIZER, MANAGER_KEYS)
        wanted = ProtectedKey.parse(obj)
        answer: Mapping[str, Any] = {}
        refused: KeyServiceRefused | None = None
        try:
            answer = await self._service.put(*key, request_for(wanted, tenant))
        except KeyServiceRefused as error:
            refused = error
            answer = await self._present(key, tenant, error)
        except Unavailable as error:
            await self._not_ready(obj, None, error.problem.reason, str(error))
            raise
        status = status_of(wanted, obj.get("status") or {}, answer, refused, self._clock())
        await write_status(self._cluster, self._stores, obj, status, MANAGER_KEYS)
        return again_after(status, refused is not None, self._clock())

    async def _present(self, key: Key, tenant: str, error: KeyServiceRefused) -> Mapping[str, Any]:
        """The key as the service has it although it refused the change; {} when it has none of this tenant."""
        try:
            answer = await self._service.get(*key)
        except KeyServiceRefused:
            return {}
        return answer if answer.get("tenant", tenant) == tenant and "AnotherTenant" not in error.problem.reason else {}

    async def _not_ready(self, obj: Object, status: bool | None, reason: str, message: str) -> None:
        """Say so, and leave all else in the status as it was last known."""
        old = obj.get("status") or {}
        generation = obj["metadata"].get("generation", 0)
        conditions = set_condition(old.get("conditions"), READY, status, reason, message, self._clock(), generation)
        await write_status(self._cluster, self._stores, obj, {**old, "conditions": conditions}, MANAGER_KEYS)

    async def _remove(self, obj: Object, key: Key) -> float | None:
        """Suspend, never destroy: the tenant's data is the custodians' to give up."""
        if FINALIZER in (obj["metadata"].get("finalizers") or []):
            await self._suspend(obj["metadata"]["uid"], key)
            await drop_finalizer(self._cluster, self._stores, obj, FINALIZER, MANAGER_KEYS)
        return None

    async def _suspend(self, uid: str, key: Key) -> None:
        """Only the key that this very object stood for: one of that name may be another tenant's."""
        try:
            answer = await self._service.get(*key)
        except KeyServiceRefused as refused:
            if refused.status != 404:
                raise
            return
        if answer.get("uid") == uid:
            await self._service.suspend(*key)


def _itself(obj: Mapping[str, Any]) -> Iterable[Key]:
    return [(obj["metadata"]["namespace"], obj["metadata"]["name"])]
