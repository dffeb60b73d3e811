"""A fleet from a list of objects: what an API server answers, or what `kubectl get -o json` wrote into a file.

The operators' view is kept in step with the cluster and knows more: which admissions are
decided and not yet written, and which pods of an admission have ended. Here an admitted
workload holds all of its admission until it is finished.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from crds.conditions import EVICTED, FINISHED, is_true
from crds.labels import MACHINE, READY, TENANT
from scheduler.fleet import Fleet
from scheduler.objects import fleet_objects as translate

Object = Mapping[str, Any]

# What a snapshot must hold, as `kubectl get` takes it.
RESOURCES = "sites,acceleratorpools,machines,nodes,tenants,workloads,namespaces,jobs,pods,limitranges,runtimeclasses"


class Snapshot:
    """Objects by kind. Kinds that it does not know are left aside."""

    def __init__(self, objects: Iterable[Object]) -> None:
        self.of_kind: dict[str, list[Object]] = defaultdict(list)
        for one in objects:
            self.of_kind[str(one.get("kind", ""))].append(one)

    def tenant_of(self, namespace: str) -> str:
        """The tenant of a namespace; "" when it has none or does not exist."""
        found = [one for one in self.of_kind["Namespace"] if one["metadata"].get("name") == namespace]
        return str((found[0]["metadata"].get("labels") or {}).get(TENANT, "")) if found else ""

    def limit_ranges(self, namespace: str) -> list[Object]:
        """Of a namespace."""
        return [one for one in self.of_kind["LimitRange"] if one["metadata"].get("namespace") == namespace]

    @property
    def runtime_classes(self) -> dict[str, Object]:
        """By name."""
        return {one["metadata"]["name"]: one for one in self.of_kind["RuntimeClass"]}

    def fleet(self) -> Fleet:
        """A new fleet with all of it."""
        made = Fleet()
        sites = {one["metadata"]["name"]: one for one in self.of_kind["Site"]}
        machines = {one["metadata"]["name"]: one for one in self.of_kind["Machine"]}
        for pool in self.of_kind["AcceleratorPool"]:
            made.upsert_pool(translate.pool_state(pool, sites.get(pool["spec"]["site"])))
        for tenant in self.of_kind["Tenant"]:
            made.upsert_tenant(translate.tenant_state(tenant))
        node_of: dict[str, str] = {}
        for node in self.of_kind["Node"]:
            machine = (node["metadata"].get("labels") or {}).get(MACHINE, "")
            if machine:
                node_of[machine] = node["metadata"]["name"]
            made.upsert_node(translate.node_state(node, machines.get(machine)))
        for name, machine in machines.items():
            made.upsert_machine(translate.machine_state(machine, node_of.get(name, "")))
        covered = self._add_workloads(made)
        jobs_of = {one["metadata"]["uid"]: _owners(one) for one in self.of_kind["Job"]}
        for pod in self.of_kind["Pod"]:
            if translate.takes_room(pod) and not covered & _chain(pod, jobs_of):
                made.upsert_pod(translate.bound_pod(pod))
        return made

    def _add_workloads(self, made: Fleet) -> set[str]:
        """Returns the uids of objects whose pods are accounted for by admissions."""
        covered: set[str] = set()
        ready = {
            one["metadata"]["name"]
            for one in self.of_kind["Namespace"]
            if (one["metadata"].get("labels") or {}).get(READY) == "true"
        }
        for workload in self.of_kind["Workload"]:
            meta, spec = workload["metadata"], workload["spec"]
            finished = is_true(workload, FINISHED)
            if finished or not spec.get("tenant") or not spec.get("podSets"):
                continue
            admission = (workload.get("status") or {}).get("admission")
            placements = [
                (one["podSet"], one["node"], one["count"]) for one in (admission or {}).get("placements") or ()
            ]
            state = translate.workload_state(
                workload,
                admitted=admission is not None,
                accelerator=(admission or {}).get("accelerator", ""),
                placements=placements,
                finished=False,
                active=spec.get("active", True) and meta["namespace"] in ready and not translate.is_going(workload),
            )
            # What is on its way out is not evicted twice.
            made.upsert_workload(replace(state, preemptible=False) if is_true(workload, EVICTED) else state)
            if admission is not None:
                covered.update({meta.get("uid", ""), (spec.get("ref") or {}).get("uid", "")} - {""})
        return covered


def _owners(obj: Object) -> set[str]:
    return {owner["uid"] for owner in obj["metadata"].get("ownerReferences") or () if owner.get("controller")}


def _chain(pod: Object, jobs_of: Mapping[str, set[str]]) -> set[str]:
    """The uids of a pod, its controller, and the controller of that where it is a Job."""
    above = _owners(pod)
    return {pod["metadata"].get("uid", "")} | above | {uid for one in above for uid in jobs_of.get(one, ())}
