"""Gives each queued object that is no Job its shadow Workload and keeps that Workload's request in step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from crds.labels import MANAGER_WORKLOADS
from operators.planning.family import Family
from operators.planning.ownership import shadow_name
from operators.planning.pod_groups import LABELLED_PODS, group_label, group_uid
from operators.runtime import RESOURCES, Cluster, Key, Stores, Touches, WorkQueue
from operators.workloads.integrations.pods import LabelledPods
from operators.workloads.namespaces import is_ready, tenant_of
from operators.workloads.queueing import is_settled, manifest, request, says
from scheduler.objects.pod_shape import is_gated

Object = Mapping[str, Any]


class Shadows:
    """Visits queued objects by namespace and kind/name."""

    name = "shadows"
    workers = 8

    def __init__(self, cluster: Cluster, stores: Stores, family: Family) -> None:
        self.cluster = cluster
        self.stores = stores
        self.family = family
        self.workloads, self.namespaces = stores.watch("Workload"), stores.watch("Namespace")
        self.limits, self.classes = stores.watch("LimitRange"), stores.watch("RuntimeClass")
        self.pods = stores.watch("Pod")
        self.watches: Mapping[str, Touches] = {
            "Pod": self._of_pod,
            "Workload": _of_workload,
            "Namespace": lambda obj: self._in(obj["metadata"]["name"]),
            "LimitRange": lambda obj: self._in(obj["metadata"]["namespace"]),
            "RuntimeClass": lambda _: self._everywhere(),
        }
        family.listen(self._touch)
        self._queue: WorkQueue[Key] | None = None

    def attach(self, queue: WorkQueue[Key]) -> None:
        self._queue = queue

    def _touch(self, root: Object) -> None:
        if self._queue is not None and root["kind"] != "Job":
            self._queue.add(_key(root))

    def _of_pod(self, pod: Object) -> Iterable[Key]:
        root = self.family.root(pod)
        if root is None:
            label = group_label(pod)  # its group is gone with its last pod, and so must be the shadow
            return ((pod["metadata"]["namespace"], f"{LABELLED_PODS}/{label}"),) if label else ()
        return (_key(root),) if root["kind"] != "Job" else ()

    def _in(self, namespace: str) -> Iterable[Key]:
        found = dict.fromkeys(key for pod in self.pods.in_namespace(namespace) for key in self._of_pod(pod))
        for kind in self._stored():
            found.update(dict.fromkeys(_key(obj) for obj in self.stores.watch(kind).in_namespace(namespace)))
        return found

    def _everywhere(self) -> Iterable[Key]:
        names = dict.fromkeys(
            obj["metadata"]["namespace"] for kind in self._stored() for obj in self.stores.watch(kind)
        )
        return [key for name in names for key in self._in(name)]

    def _stored(self) -> list[str]:
        return [kind for kind in self.family.kinds if kind in RESOURCES and kind not in {"Job", "Pod"}]

    async def reconcile(self, key: Key) -> float | None:
        kind, _, name = key[1].partition("/")
        root = self.family.find(kind, name, key[0])
        if root is None:
            await self._drop_group(kind, name, key[0])
            return None
        namespace = self.namespaces.get(key[0])
        tenant = tenant_of(namespace)
        if not tenant or not is_ready(namespace) or root["metadata"].get("deletionTimestamp"):
            return None
        treat, pods = self.family.kind_of(root), self.family.pods(root)
        name = self.family.workload_of(root).partition("/")[2]
        workload = self.workloads.get(name, key[0])
        if workload is not None and is_settled(workload):
            return None
        if workload is None and (treat.end(root, pods) is not None or self._is_loose(root, pods)):
            return None  # it ended, or started, before it was ours
        limits = self.limits.in_namespace(key[0])
        shape = self.family.shape(root, limits, {one["metadata"]["name"]: one for one in self.classes})
        wanted = request(root, tenant, shape, owned=False)
        if workload is None or not says(workload, wanted):
            body = manifest(root, name, tenant, wanted, workload)
            self.stores.observe(await self.cluster.apply(body, MANAGER_WORKLOADS))
        return None

    def _is_loose(self, root: Object, pods: Iterable[Object]) -> bool:
        """Plain pods none of which is gated: they were there before their namespace was a tenant's."""
        by_owner = self.family.kind_of(root).suspendable or self.family.kind_of(root).between
        return not by_owner and not any(is_gated(pod["spec"]) for pod in pods)

    async def _drop_group(self, kind: str, name: str, namespace: str) -> None:
        """A group by label has no object to own its shadow."""
        if kind != LABELLED_PODS:
            return
        shadow = shadow_name(name, group_uid(name, namespace), LabelledPods.mark)
        workload = self.workloads.get(shadow, namespace)
        if workload is not None and (workload["spec"].get("ref") or {}).get("kind") == LABELLED_PODS:
            meta = workload["metadata"]
            await self.cluster.delete(RESOURCES["Workload"], meta["name"], namespace, uid=meta["uid"])


def _of_workload(workload: Object) -> Iterable[Key]:
    ref = workload["spec"].get("ref")
    if not ref or ref["kind"] == "Job":
        return ()
    return ((workload["metadata"]["namespace"], f"{ref['kind']}/{ref['name']}"),)


def _key(root: Object) -> Key:
    return root["metadata"]["namespace"], f"{root['kind']}/{root['metadata']['name']}"
