"""An API server in memory, as far as the pools operator needs one: versions, uids, finalizers, conflicts, status.

It outlives the controllers that use it, so a test may kill these at any call and start others over it.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Mapping
from typing import Any

from operators.runtime import RESOURCES, ApiFault, ResourceType, Stores

Object = dict[str, Any]
Hook = Callable[[str, str], None]


class MemoryCluster:
    """Implements what `operators.runtime.Cluster` offers. `before` and `after` are called around each write."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str, str], Object] = {}  # (plural, namespace, name)
        self._version = itertools.count(1)
        self.before: Hook = lambda verb, what: None
        self.after: Hook = lambda verb, what: None
        self.born = "2026-01-01T00:00:00Z"
        self.blocked: set[str] = set()  # pods that a disruption budget holds
        self.writes = 0

    def all(self, kind: str) -> list[Object]:
        plural = RESOURCES[kind].plural
        return [copy.deepcopy(obj) for (found, _, _), obj in sorted(self.objects.items()) if found == plural]

    def stores(self, *kinds: str) -> Stores:
        """What a process sees that has just listed everything."""
        stores = Stores()
        for kind in kinds:
            stores.watch(kind).replace(self.all(kind), 0)
        return stores

    def sync(self, stores: Stores) -> None:
        """What its watches would tell a process by and by."""
        for store in stores:
            store.replace(self.all(store.resource.kind), store.newest())

    def put(self, obj: Object) -> Object:
        """Write past the operator: what users and kubelets do."""
        plural = RESOURCES[obj["kind"]].plural if obj["kind"] in RESOURCES else obj["kind"].lower() + "s"
        meta = obj["metadata"]
        key = (plural, meta.get("namespace") or "", meta["name"])
        return self._store(key, copy.deepcopy(obj))

    def _store(self, key: tuple[str, str, str], obj: Object) -> Object:
        meta = obj["metadata"]
        version = next(self._version)
        meta.setdefault("uid", f"uid-{version}")
        meta.setdefault("creationTimestamp", self.born)
        meta["resourceVersion"] = str(version)
        if meta.get("deletionTimestamp") and not meta.get("finalizers"):
            self.objects.pop(key, None)
        else:
            self.objects[key] = obj
        return copy.deepcopy(obj)

    async def get(self, resource: ResourceType, name: str, namespace: str | None = None) -> Object | None:
        found = self.objects.get((resource.plural, namespace or "", name))
        return copy.deepcopy(found)

    async def list(
        self, resource: ResourceType, namespace: str | None = None, label_selector: str = "", field_selector: str = ""
    ) -> list[Object]:
        wanted = [part.partition("=") for part in label_selector.split(",") if part]
        out = []
        for (plural, where, _), obj in sorted(self.objects.items()):
            labels = obj["metadata"].get("labels") or {}
            fits = all(key in labels and (not sign or labels[key] == value) for key, sign, value in wanted)
            if plural == resource.plural and (namespace is None or where == namespace) and fits:
                out.append(copy.deepcopy(obj))
        return out

    async def create(self, obj: Object, manager: str) -> Object:
        plural = RESOURCES[obj["kind"]].plural
        key = (plural, obj["metadata"].get("namespace") or "", obj["metadata"]["name"])
        self._enter("create", key)
        if key in self.objects:
            raise ApiFault(409, "AlreadyExists", f"{key} exists")
        return self._leave("create", key, self._store(key, copy.deepcopy(obj)))

    async def request(self, method: str, path: str, query: Any = None, body: Any = None, **_: Any) -> Object:
        assert method == "POST"
        key = (path.rpartition("/")[2], body["metadata"].get("namespace") or "", body["metadata"]["name"])
        self._enter("create", key)
        if key in self.objects:
            raise ApiFault(409, "AlreadyExists", f"{key} exists")
        return self._leave("create", key, self._store(key, copy.deepcopy(body)))

    async def apply(self, obj: Object, manager: str, subresource: str = "", force: bool = True) -> Object:
        key = (RESOURCES[obj["kind"]].plural, obj["metadata"].get("namespace") or "", obj["metadata"]["name"])
        self._enter("apply", key)
        found = self._found(key)
        if obj["metadata"].get("uid") not in (None, found["metadata"]["uid"]):
            raise ApiFault(409, "Conflict", "uid")
        fresh = copy.deepcopy(found)
        fresh["status"] = copy.deepcopy(obj["status"])
        return self._leave("apply", key, self._store(key, fresh))

    async def merge_patch(
        self,
        resource: ResourceType,
        name: str,
        patch: Mapping[str, Any],
        manager: str,
        namespace: str | None = None,
        subresource: str = "",
    ) -> Object:
        key = (resource.plural, namespace or "", name)
        self._enter("patch", key)
        found = self._found(key)
        asked = patch.get("metadata") or {}
        for field in ("resourceVersion", "uid"):
            if field in asked and asked[field] != found["metadata"][field]:
                raise ApiFault(409, "Conflict", field)
        return self._leave("patch", key, self._store(key, _merged(copy.deepcopy(found), patch)))

    async def json_patch(
        self, resource: ResourceType, name: str, operations: Any, manager: str, namespace: str | None = None
    ) -> Object:
        key = (resource.plural, namespace or "", name)
        self._enter("patch", key)
        fresh = copy.deepcopy(self._found(key))
        for one in operations:
            *way, last = one["path"].strip("/").split("/")
            at: Any = fresh
            for step in way:
                at = at[step]
            if one["op"] == "test":
                if at.get(last) != one["value"]:
                    raise ApiFault(422, "Invalid", "test failed")
            else:
                at[last] = copy.deepcopy(one["value"])
        return self._leave("patch", key, self._store(key, fresh))

    async def delete(
        self, resource: ResourceType, name: str, namespace: str | None = None, uid: str = "", **_: Any
    ) -> bool:
        key = (resource.plural, namespace or "", name)
        self._enter("delete", key)
        found = self.objects.get(key)
        if found is None or (uid and found["metadata"]["uid"] != uid):
            return False
        fresh = copy.deepcopy(found)
        fresh["metadata"].setdefault("deletionTimestamp", self.born)
        self._leave("delete", key, self._store(key, fresh))
        return True

    async def evict(self, namespace: str, pod: str) -> bool:
        if pod in self.blocked:
            return False
        return await self.delete(RESOURCES["Pod"], pod, namespace) or True

    def _found(self, key: tuple[str, str, str]) -> Object:
        if key not in self.objects:
            raise ApiFault(404, "NotFound", f"{key} is not there")
        return self.objects[key]

    def _enter(self, verb: str, key: tuple[str, str, str]) -> None:
        self.writes += 1
        self.before(verb, "/".join(key))

    def _leave(self, verb: str, key: tuple[str, str, str], result: Object) -> Object:
        self.after(verb, "/".join(key))
        return result


def _merged(target: Any, patch: Any) -> Any:
    if not isinstance(patch, Mapping):
        return copy.deepcopy(patch)
    out = target if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            out.pop(key, None)
        else:
            out[key] = _merged(out.get(key), value)
    return out
