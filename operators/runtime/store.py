"""What the cluster looks like, kept in memory from watch events and from our own writes.

`kopf.index` is not used: its start-up is quadratic. A store keeps the newest version of
each object by resourceVersion, so that an event which is older than our own write does
not undo it, and tells its listeners (old, new) once for each real change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from crds.labels import GROUP
from operators.runtime.resources import RESOURCES, ResourceType

Object = dict[str, Any]
Listener = Callable[[Object | None, Object | None], None]
Keyed = Callable[[Mapping[str, Any]], Iterable[str]]
ObjectKey = tuple[str, str]  # namespace ("" when cluster-scoped), name
_REMEMBERED_DELETIONS = 10_000


def key_of(obj: Mapping[str, Any]) -> ObjectKey:
    """Where an object is: (namespace or "", name)."""
    meta = obj["metadata"]
    return meta.get("namespace") or "", meta["name"]


def _namespace_of(obj: Mapping[str, Any]) -> tuple[str]:
    return (obj["metadata"].get("namespace") or "",)


def _version(obj: Mapping[str, Any]) -> int:
    # resourceVersion has been comparable within one resource type since Kubernetes 1.35 (KEP-5504).
    return int(obj["metadata"].get("resourceVersion") or 0)


class Index:
    """Objects of a store by a value that is read from each: pods by Job uid, machines by pool."""

    def __init__(self, keyed: Keyed) -> None:
        self._keyed = keyed
        self._found: dict[str, dict[ObjectKey, Object]] = {}

    def get(self, value: str) -> list[Object]:
        """The objects under this value, in the order in which they came."""
        return list(self._found.get(value, {}).values())

    def count(self, value: str) -> int:
        return len(self._found.get(value, {}))

    def values(self) -> list[str]:
        """All values that some object has."""
        return list(self._found)

    def take(self, old: Object | None, new: Object | None) -> None:
        """Follow one change of the store."""
        before = set(self._keyed(old)) if old is not None else set()
        after = set(self._keyed(new)) if new is not None else set()
        if old is not None:
            for value in before - after:
                bucket = self._found.get(value, {})
                bucket.pop(key_of(old), None)
                if not bucket:
                    self._found.pop(value, None)
        if new is not None:
            for value in after:
                self._found.setdefault(value, {})[key_of(new)] = new


class Store:
    """All objects of one resource type."""

    def __init__(self, resource: ResourceType) -> None:
        self.resource = resource
        self.synced = False
        self._objects: dict[ObjectKey, Object] = {}
        self._listeners: list[Listener] = []
        self._indexes: dict[str, Index] = {}
        self._deleted: dict[str, None] = {}  # uids, newest last: late events of the dead are dropped

    def listen(self, listener: Listener) -> None:
        """Call `listener(old, new)` at each change; the objects must not be altered."""
        self._listeners.append(listener)

    def index(self, name: str, keyed: Keyed) -> Index:
        """The index of that name, made at the first call: O(1) a change, O(found) a look-up."""
        found = self._indexes.get(name)
        if found is None:
            found = self._indexes[name] = Index(keyed)
            for obj in self._objects.values():
                found.take(None, obj)
        return found

    def get(self, name: str, namespace: str = "") -> Object | None:
        return self._objects.get((namespace, name))

    def __iter__(self) -> Iterator[Object]:
        return iter(list(self._objects.values()))

    def __len__(self) -> int:
        return len(self._objects)

    def in_namespace(self, namespace: str) -> list[Object]:
        return self.index("namespace", _namespace_of).get(namespace)

    def observe(self, obj: Object) -> bool:
        """Take in a version of an object. False when a newer one is known, or it is dead."""
        key = key_of(obj)
        old = self._objects.get(key)
        uid = obj["metadata"].get("uid", "")
        if uid in self._deleted:
            return False
        if old is not None and old["metadata"].get("uid") == uid and _version(obj) <= _version(old):
            return False
        if self.resource.group != GROUP:
            # Only for our own kinds does it matter who wrote which field; elsewhere it is most of the memory.
            obj["metadata"].pop("managedFields", None)
        self._objects[key] = obj
        self._tell(old, obj)
        return True

    def forget(self, obj: Object) -> bool:
        """Take in that an object is gone. False when another one already has its name."""
        key = key_of(obj)
        uid = obj["metadata"].get("uid", "")
        if uid:
            self._deleted[uid] = None
            while len(self._deleted) > _REMEMBERED_DELETIONS:
                self._deleted.pop(next(iter(self._deleted)))
        old = self._objects.get(key)
        if old is None or (uid and old["metadata"].get("uid") != uid):
            return False
        del self._objects[key]
        self._tell(old, None)
        return True

    def replace(self, objects: Iterable[Object], read_after: int) -> None:
        """Take in a full list: what is missing from it is gone.

        `read_after`: the highest resourceVersion known before the list was asked for;
        objects younger than that may be missing from the list and are kept.
        """
        seen: set[ObjectKey] = set()
        for obj in objects:
            seen.add(key_of(obj))
            self.observe(obj)
        for key, obj in list(self._objects.items()):
            if key not in seen and _version(obj) <= read_after:
                self.forget(obj)
        self.synced = True

    def newest(self) -> int:
        """The highest resourceVersion seen."""
        return max((_version(obj) for obj in self._objects.values()), default=0)

    def _tell(self, old: Object | None, new: Object | None) -> None:
        for index in self._indexes.values():
            index.take(old, new)
        for listener in self._listeners:
            listener(old, new)


class Stores:
    """The stores of all watched resource types, by kind."""

    def __init__(self) -> None:
        self._stores: dict[str, Store] = {}

    def watch(self, kind: str) -> Store:
        """The store of a kind; asking for it is what makes it watched."""
        return self._stores.setdefault(kind, Store(RESOURCES[kind]))

    def __iter__(self) -> Iterator[Store]:
        return iter(self._stores.values())

    def observe(self, obj: Object) -> None:
        """Take in the reply to one of our own writes, if its kind is watched."""
        store = self._stores.get(obj["kind"])
        if store is not None:
            store.observe(obj)

    def forget(self, obj: Object) -> None:
        """Take in that an object is gone, if its kind is watched."""
        store = self._stores.get(obj["kind"])
        if store is not None:
            store.forget(obj)
