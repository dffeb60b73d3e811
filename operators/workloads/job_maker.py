"""Makes the Job of a Workload that carries one (`spec.job`): suspended, gated, owned by the Workload."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any

from crds.conditions import FINISHED, is_true
from crds.labels import (
    API_VERSION,
    MANAGED_BY,
    MANAGED_BY_VALUE,
    MANAGER_WORKLOADS,
    SCHEDULING_GATE,
    TENANT,
    WORKLOAD,
)
from operators.planning.ownership import owned_by_workload
from operators.runtime import Cluster, Key, Stores, Touches
from operators.workloads.namespaces import is_ready, tenant_of

Object = Mapping[str, Any]


class JobMaker:
    """Visits Workloads by namespace and name."""

    name = "job-maker"
    workers = 8

    def __init__(self, cluster: Cluster, stores: Stores) -> None:
        self.cluster = cluster
        self.stores = stores
        self.jobs, self.workloads = stores.watch("Job"), stores.watch("Workload")
        self.namespaces = stores.watch("Namespace")
        self.watches: Mapping[str, Touches] = {
            "Workload": lambda obj: (_key(obj),) if obj["spec"].get("job") else (),
            "Job": self._makers_of,
            "Namespace": lambda obj: (
                _key(one) for one in self.workloads.in_namespace(obj["metadata"]["name"]) if one["spec"].get("job")
            ),
        }

    def _makers_of(self, job: Object) -> Iterable[Key]:
        """Who made it; and who may make its own once this one, a stranger of that name, is gone."""
        owner = owned_by_workload(job)
        where, name = _key(job)
        return {(where, owner["name"]) if owner is not None else (where, name), (where, name)}

    async def reconcile(self, key: Key) -> float | None:
        workload = self.workloads.get(key[1], key[0])
        if workload is None or not workload["spec"].get("job") or workload["metadata"].get("deletionTimestamp"):
            return None
        namespace = self.namespaces.get(key[0])
        tenant = tenant_of(namespace)
        if not tenant or not is_ready(namespace) or is_true(workload, FINISHED):
            return None
        if self.jobs.get(key[1], key[0]) is not None:
            return None  # it is made; or a stranger has its name, which the Workload's status says
        self.stores.observe(await self.cluster.create(job_for(workload, tenant), MANAGER_WORKLOADS))
        return None


def job_for(workload: Object, tenant: str) -> dict[str, Any]:
    """The Job of a Workload. Admission would suspend and gate it all the same; it is said here too."""
    meta = workload["metadata"]
    spec = copy.deepcopy(dict(workload["spec"]["job"]["spec"]))
    spec["suspend"] = True
    template = spec["template"]
    labels = template.setdefault("metadata", {}).setdefault("labels", {})
    labels[WORKLOAD] = meta["name"][:63]
    pod = template.setdefault("spec", {})
    gates = pod.setdefault("schedulingGates", [])
    if not any(gate.get("name") == SCHEDULING_GATE for gate in gates):
        gates.append({"name": SCHEDULING_GATE})
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": meta["name"],
            "namespace": meta["namespace"],
            "labels": {WORKLOAD: meta["name"][:63], TENANT: tenant, MANAGED_BY: MANAGED_BY_VALUE},
            "ownerReferences": [
                {
                    "apiVersion": API_VERSION,
                    "kind": "Workload",
                    "name": meta["name"],
                    "uid": meta["uid"],
                    "controller": True,
                }
            ],
        },
        "spec": spec,
    }


def _key(obj: Object) -> Key:
    return obj["metadata"]["namespace"], obj["metadata"]["name"]
