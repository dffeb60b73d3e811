"""Gives each Job of a tenant's namespace its shadow Workload and keeps that Workload's request in step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from crds.conditions import FINISHED, is_true
from crds.labels import API_VERSION, MANAGED_BY, MANAGED_BY_VALUE, MANAGER_WORKLOADS, TENANT
from operators.planning.family import Family
from operators.planning.ownership import governing_workload, owned_by_workload
from operators.runtime import RESOURCES, Cluster, Key, Stores, Touches
from operators.workloads.lifecycle import job_end
from operators.workloads.namespaces import is_ready, tenant_of
from scheduler.objects.job_shape import Shape, shape_of
from scheduler.objects.queue_settings import SETTINGS

Object = Mapping[str, Any]


class Queueing:
    """Visits Jobs by namespace and name."""

    name = "queueing"
    workers = 16

    def __init__(self, cluster: Cluster, stores: Stores, family: Family | None = None) -> None:
        self.cluster = cluster
        self.stores = stores
        self.family = family if family is not None else Family(stores)
        self.jobs, self.workloads = stores.watch("Job"), stores.watch("Workload")
        self.namespaces, self.limits = stores.watch("Namespace"), stores.watch("LimitRange")
        self.classes = stores.watch("RuntimeClass")
        self.watches: Mapping[str, Touches] = {
            "Job": lambda obj: (_key(obj),),
            "Workload": _job_of_workload,
            "Namespace": lambda obj: (_key(job) for job in self.jobs.in_namespace(obj["metadata"]["name"])),
            "LimitRange": lambda obj: (_key(job) for job in self.jobs.in_namespace(obj["metadata"]["namespace"])),
            "RuntimeClass": lambda _: (_key(job) for job in self.jobs),
        }

    async def reconcile(self, key: Key) -> float | None:
        job = self.jobs.get(key[1], key[0])
        namespace = self.namespaces.get(key[0])
        tenant = tenant_of(namespace)
        if job is None or not tenant or not is_ready(namespace) or job["metadata"].get("deletionTimestamp"):
            return None
        if self.family.is_part(job):
            return None  # of a JobSet, a RayJob …: that one is queued
        where, _, name = governing_workload(job).partition("/")
        workload = self.workloads.get(name, where)
        if workload is None and (job_end(job) is not None or owned_by_workload(job) is not None):
            return None  # it ended before it was ours, or its maker is gone and so will it be
        if workload is not None and is_settled(workload):
            return None
        shape = shape_of(job, self.limits.in_namespace(key[0]), {one["metadata"]["name"]: one for one in self.classes})
        wanted = request(job, tenant, shape, owned=owned_by_workload(job) is not None)
        if workload is None or not says(workload, wanted):
            body = manifest(job, name, tenant, wanted, workload)
            self.stores.observe(await self.cluster.apply(body, MANAGER_WORKLOADS))
        return None


def request(job: Object, tenant: str, shape: Shape, owned: bool) -> dict[str, Any]:
    """The part of a Workload's spec that the operator states. Of an owned Job the rest is the user's.

    `job`: the object that is queued, of any kind.
    """
    wanted: dict[str, Any] = {"tenant": tenant, "podSets": shape.pod_sets}
    if not owned:
        meta = job["metadata"]
        wanted["ref"] = {"name": meta["name"], "uid": meta["uid"], "apiVersion": job["apiVersion"], "kind": job["kind"]}
        wanted["priority"] = shape.priority
        wanted["keys"] = shape.keys
        wanted.update(shape.settings)
    return wanted


def manifest(job: Object, name: str, tenant: str, wanted: Mapping[str, Any], existing: Object | None) -> dict[str, Any]:
    """The Workload as it is applied. A shadow belongs to its Job, so it goes with it; a group by label is no object."""
    meta = job["metadata"]
    out: dict[str, Any] = {
        "apiVersion": API_VERSION,
        "kind": "Workload",
        "metadata": {"name": name, "namespace": meta["namespace"]},
        "spec": dict(wanted),
    }
    if "ref" in wanted:
        out["metadata"]["labels"] = {TENANT: tenant, MANAGED_BY: MANAGED_BY_VALUE}
        if job["kind"] in RESOURCES:
            out["metadata"]["ownerReferences"] = [{**wanted["ref"], "controller": True}]
    if existing is not None:
        out["metadata"]["uid"] = existing["metadata"]["uid"]  # never a later object of the same name
    return out


def is_settled(workload: Object) -> bool:
    """Admitted or ended: what it was admitted for stays written."""
    return is_true(workload, FINISHED) or (workload.get("status") or {}).get("admission") is not None


def says(workload: Object, wanted: Mapping[str, Any]) -> bool:
    spec = workload["spec"]
    if any((spec.get(field) or type(value)()) != value for field, value in wanted.items()):
        return False
    return not any(field in spec and field not in wanted for field in stated_before(workload) & set(SETTINGS))


def stated_before(workload: Object) -> set[str]:
    """The spec fields that this operator has applied (metadata.managedFields): those it may take back."""
    fields: set[str] = set()
    for entry in workload["metadata"].get("managedFields") or ():
        if entry.get("manager") == MANAGER_WORKLOADS and not entry.get("subresource"):
            stated = (entry.get("fieldsV1") or {}).get("f:spec") or {}
            fields |= {name[2:] for name in stated if name.startswith("f:")}
    return fields


def _job_of_workload(workload: Object) -> Iterable[Key]:
    ref = workload["spec"].get("ref")
    name = ref["name"] if ref else workload["metadata"]["name"]
    return ((workload["metadata"]["namespace"], name),)


def _key(obj: Object) -> Key:
    return obj["metadata"]["namespace"], obj["metadata"]["name"]
