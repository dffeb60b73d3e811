"""Who belongs to whom: from a pod up its chain of owners to the queued object, and down again.

A chain is followed by name and uid through objects that are known; a label alone proves
nothing. An object whose controller is of a queued kind is never queued by itself, even
while that controller has not been seen yet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from operators.planning.batch_job import BATCH_JOB
from operators.planning.ownership import controller_of, governed_job, owned_by_workload, shadow_name
from operators.planning.pod_groups import LABELLED_PODS, SCHEDULING_POD_GROUP, PodGroups
from operators.planning.queued_kind import QueuedKind
from operators.runtime import Store, Stores
from operators.runtime.resources import RESOURCES
from scheduler.objects.shape import Shape

Object = Mapping[str, Any]
Touch = Callable[[Object], None]
_DEEPEST = 8  # owners above a pod; more is a cycle


class Family:
    """The queued kinds that are served, over the stores."""

    def __init__(self, stores: Stores, kinds: Iterable[QueuedKind] = ()) -> None:
        self._stores = stores
        self._kinds: dict[tuple[str, str], QueuedKind] = {}
        self._by_kind: dict[str, QueuedKind] = {}
        self._known: dict[str, Store] = {}  # kinds that an owner chain goes through
        self._listeners: list[Touch] = []
        self._groups = PodGroups(stores)
        self._pods = stores.watch("Pod")
        self._pods_of = self._pods.index("controller", controller_uid)
        self.add(BATCH_JOB)
        for kind in kinds:
            self.add(kind)

    def add(self, kind: QueuedKind) -> list[Store]:
        """Queue this kind too. Returns the stores that were not watched before."""
        name = kind.resource.kind
        if name in self._by_kind:
            return []
        watched = {store.resource.kind for store in self._stores}
        self._kinds[kind.resource.group, name] = self._by_kind[name] = kind
        for one in (name, *kind.between):
            if one in self._known or one not in RESOURCES or one == name == "Pod":
                continue
            store = self._known[one] = self._stores.watch(one)
            store.index("controller", controller_uid)
            if one not in {"Job", "Pod"}:  # their changes reach the controllers on their own
                store.listen(self._changed)
        return [store for store in self._stores if store.resource.kind not in watched]

    @property
    def kinds(self) -> tuple[str, ...]:
        """The queued kinds, Job first."""
        return tuple(self._by_kind)

    def listen(self, touch: Touch) -> None:
        """Call `touch(queued object)` when that object, or one between it and its pods, changes."""
        self._listeners.append(touch)

    def _changed(self, old: Object | None, new: Object | None) -> None:
        for obj in (old, new):
            root = self.root(obj) if obj is not None else None
            if root is not None:
                for touch in self._listeners:
                    touch(root)

    def kind_of(self, obj: Object) -> QueuedKind:
        """How to treat a queued object."""
        return self._by_kind[obj["kind"]]

    def kind_for(self, workload: Object) -> QueuedKind:
        """The kind that a Workload stands for; Job where it carries its own or the kind is not known."""
        ref = workload["spec"].get("ref") or {}
        group = str(ref.get("apiVersion", "")).rpartition("/")[0]
        return self._kinds.get((group, ref.get("kind", "")), BATCH_JOB)

    def root(self, obj: Object) -> Object | None:
        """The queued object that an object is, or is part of; None when there is none, or not all of it is known."""
        for _ in range(_DEEPEST):
            owner = controller_of(obj)
            if owner is None or owner["kind"] not in self._known or owned_by_workload(obj) is not None:
                break
            above = self._known[owner["kind"]].get(owner["name"], obj["metadata"]["namespace"])
            if above is None or above["metadata"].get("uid") != owner["uid"]:
                return None
            obj = above
        if obj["kind"] == "Pod":
            return self._groups.of_pod(obj, self._by_kind)
        kind = self._by_kind.get(obj["kind"])
        return obj if kind is not None and kind.applies(obj) else None

    def find(self, kind: str, name: str, namespace: str) -> Object | None:
        """The queued object of this kind and name; None when there is none, or it is part of another."""
        if kind not in self._by_kind:
            return None
        if kind == LABELLED_PODS:
            return self._groups.labelled(name, namespace)
        obj = self._stores.watch(kind).get(name, namespace)
        root = self.root(obj) if obj is not None else None
        return root if root is not None and root["metadata"]["uid"] == (obj or {})["metadata"]["uid"] else None

    def is_part(self, obj: Object) -> bool:
        """Whether it is a part of a queued object, seen or not, and so is not queued by itself."""
        owner = controller_of(obj)
        return owner is not None and owner["kind"] in self._by_kind and owner["kind"] != "Pod"

    def governed(self, workload: Object) -> Object | None:
        """The object that a Workload governs; None when there is none, or another has its name."""
        ref, namespace = workload["spec"].get("ref"), workload["metadata"]["namespace"]
        if ref is None or ref["kind"] == "Job":
            return governed_job(workload, self._known["Job"])
        if self.kind_for(workload).resource.kind != ref["kind"]:
            return None
        obj = self.find(ref["kind"], ref["name"], namespace)
        return obj if obj is not None and obj["metadata"]["uid"] == ref["uid"] else None

    def parts(self, root: Object) -> list[Object]:
        """All known objects below a queued object: its pods, and what stands between."""
        if root["kind"] == "Pod":
            return [root]
        if root["kind"] in {LABELLED_PODS, SCHEDULING_POD_GROUP}:
            return self._groups.pods(root)
        return self._below(root["metadata"]["uid"])

    def pods(self, root: Object) -> list[Object]:
        """All pods of a queued object."""
        return [one for one in self.parts(root) if one["kind"] == "Pod"]

    def pods_of(self, uid: str) -> list[Object]:
        """All pods below the object with this uid, which may be gone already."""
        return [one for one in self._below(uid) if one["kind"] == "Pod"]

    def _below(self, uid: str) -> list[Object]:
        found: list[Object] = []
        uids = [uid]
        for one in uids:  # grows while it is walked
            pods = self._pods_of.get(one)
            found += pods
            for kind, store in self._known.items():
                between = pods if kind == "Pod" else store.index("controller", controller_uid).get(one)
                uids += [part["metadata"]["uid"] for part in between]
                if kind != "Pod":
                    found += between
        return found

    def workload_of(self, root: Object) -> str:
        """namespace/name of the Workload that governs a queued object."""
        meta, owner = root["metadata"], owned_by_workload(root)
        if owner is not None:
            return f"{meta['namespace']}/{owner['name']}"
        return f"{meta['namespace']}/{shadow_name(meta['name'], meta['uid'], self.kind_of(root).mark)}"

    def shape(self, root: Object, limit_ranges: Iterable[Object], runtime_classes: Mapping[str, Object]) -> Shape:
        """What a queued object asks of the queue."""
        return self.kind_of(root).shape(root, self.parts(root), limit_ranges, runtime_classes)


def controller_uid(obj: Object) -> tuple[str, ...]:
    """The uid of an object's controller, as an index key."""
    owner = controller_of(obj)
    return (owner["uid"],) if owner is not None else ()
