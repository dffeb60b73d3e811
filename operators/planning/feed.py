"""Keeps the fleet in step with the stores: events mark names as dirty, `refresh` translates those.

The work is in proportion to what changed, and many events about one object between two
plans are one translation.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Iterable, Mapping
from typing import Any

from crds.conditions import EVICTED, FINISHED, is_true
from crds.labels import MACHINE, READY, TENANT
from operators.planning.batch_job import movable
from operators.planning.coverage import Coverage
from operators.planning.decisions import Decisions
from operators.planning.family import Family
from operators.planning.holding import admitted_places, held, without_left_behind
from operators.planning.outlook import shut_out
from operators.planning.ownership import governing_workload, runs_elsewhere
from operators.planning.position import position
from operators.runtime import Stores
from scheduler import Fleet, MachineState, WorkloadState
from scheduler.objects import fleet_objects as translate

Object = Mapping[str, Any]
log = logging.getLogger(__name__)
KINDS = ("Node", "Machine", "AcceleratorPool", "Site", "Tenant", "Workload", "Job", "Pod", "Namespace")


class Feed:
    """One fleet, fed."""

    def __init__(
        self, stores: Stores, decisions: Decisions, half_life: float = 0.0, family: Family | None = None
    ) -> None:
        """`half_life`: seconds after which a tenant's past use counts half; 0: past use does not count.

        `family`: the queued kinds; batch/v1 Jobs only when there is none.
        """
        self.family = family if family is not None else Family(stores)
        self.fleet = Fleet(half_life)
        self.decisions = decisions
        stored = {kind: stores.watch(kind) for kind in KINDS}
        self._nodes, self._machines, self._pools = stored["Node"], stored["Machine"], stored["AcceleratorPool"]
        self._sites, self._tenants, self._workloads = stored["Site"], stored["Tenant"], stored["Workload"]
        self._jobs, self._pods, self._namespaces = stored["Job"], stored["Pod"], stored["Namespace"]
        self._node_of_machine = self._nodes.index("machine", machine_label)
        self._dirty: dict[str, dict[str, None]] = {
            kind: {} for kind in ("Node", "Machine", "AcceleratorPool", "Tenant", "Workload", "Pod")
        }
        self.counts: dict[str, dict[str, int]] = {}  # tenant → {"pending": n, "admitted": n}
        self.stopping: set[str] = set()  # evicted workloads that have not let go of everything yet
        self._coverage = Coverage(
            self.family, self._pods, lambda pods: self.mark("Pod", *(key_text(pod) for pod in pods))
        )
        for kind, store in stored.items():
            store.listen(getattr(self, f"_on_{kind.lower()}"))
        self.family.listen(self._on_root)
        decisions.position = lambda key: position(self.fleet, key)

    # Events only mark.

    def mark(self, kind: str, *names: str) -> None:
        """These names are to be translated anew at the next refresh."""
        self._dirty[kind].update(dict.fromkeys(names))

    def _on_node(self, old: Object | None, new: Object | None) -> None:
        for node in _both(old, new):
            self.mark("Node", node["metadata"]["name"])
            self.mark("Machine", *machine_label(node))

    def _on_machine(self, old: Object | None, new: Object | None) -> None:
        for machine in _both(old, new):
            name = machine["metadata"]["name"]
            self.mark("Machine", name)
            self.mark("Node", *(node["metadata"]["name"] for node in self._node_of_machine.get(name)))

    def _on_acceleratorpool(self, old: Object | None, new: Object | None) -> None:
        self.mark("AcceleratorPool", *(pool["metadata"]["name"] for pool in _both(old, new)))

    def _on_site(self, old: Object | None, new: Object | None) -> None:
        names = {site["metadata"]["name"] for site in _both(old, new)}
        self.mark("AcceleratorPool", *(p["metadata"]["name"] for p in self._pools if p["spec"]["site"] in names))

    def _on_tenant(self, old: Object | None, new: Object | None) -> None:
        self.mark("Tenant", *(tenant["metadata"]["name"] for tenant in _both(old, new)))

    def _on_workload(self, old: Object | None, new: Object | None) -> None:
        self.mark("Workload", *(key_text(workload) for workload in _both(old, new)))

    def _on_job(self, old: Object | None, new: Object | None) -> None:
        for job in _both(old, new):
            root = self.family.root(job)
            if root is job:
                self.mark("Workload", governing_workload(job))
            elif root is not None:
                self._on_root(root)

    def _on_root(self, root: Object) -> None:
        """A queued object that is no Job, or something between it and its pods, has changed."""
        self.mark("Workload", self.family.workload_of(root))
        self._coverage.touched(root)

    def _on_pod(self, old: Object | None, new: Object | None) -> None:
        for pod in _both(old, new):
            self.mark("Pod", key_text(pod))
            root = self.family.root(pod)
            if root is not None:
                self.mark("Workload", self.family.workload_of(root))

    def _on_namespace(self, old: Object | None, new: Object | None) -> None:
        before, after = (_standing(namespace) for namespace in (old, new))
        if before != after:
            for namespace in _both(old, new):
                found = self._workloads.in_namespace(namespace["metadata"]["name"])
                self.mark("Workload", *(key_text(workload) for workload in found))

    # Refresh translates.

    def refresh(self) -> bool:
        """Bring the fleet up to date. Whether anything changed that a plan could see."""
        changed = False
        self.fleet.use.now = time.time()
        # Workloads before pods: whether a pod counts by itself depends on its workload.
        for kind in ("AcceleratorPool", "Tenant", "Machine", "Node", "Workload", "Pod"):
            names, self._dirty[kind] = self._dirty[kind], {}
            visit = getattr(self, f"_refresh_{kind.lower()}")
            for name in names:
                try:
                    changed = visit(name) or changed
                except Exception:
                    # One object that cannot be read must not stop the planning of all others.
                    log.exception("%s %s cannot be taken into the fleet as it is", kind, name)
        return changed

    def _refresh_acceleratorpool(self, name: str) -> bool:
        fleet, pool = self.fleet, self._pools.get(name)
        if pool is None:
            fleet.remove_pool(name)
            return True
        state = translate.pool_state(pool, self._sites.get(pool["spec"]["site"]))
        if fleet.pools.get(name) == state:
            return False
        fleet.upsert_pool(state)
        return True

    def _refresh_tenant(self, name: str) -> bool:
        fleet, tenant = self.fleet, self._tenants.get(name)
        if tenant is None:
            fleet.remove_tenant(name)
            return True
        state = translate.tenant_state(tenant)
        if fleet.tenants.get(name) == state:
            return False
        if name not in fleet.tenants:
            past = (tenant.get("status") or {}).get("decayedUsage") or ()
            fleet.use.entitlements.remember(name, {one["accelerator"]: one for one in past}, fleet.use.now)
        fleet.upsert_tenant(state)
        self.decisions.tell("tenant", name)
        return True

    def _refresh_machine(self, name: str) -> bool:
        fleet, state = self.fleet, self._machine(name)
        if fleet.machines.get(name) == state:
            return False
        for pool in {one.pool for one in (fleet.machines.get(name), state) if one is not None}:
            self.decisions.tell("pool", pool)
        if state is None:
            fleet.remove_machine(name)
            self.decisions.removals.pop(name, None)
        else:
            fleet.upsert_machine(state)
        return True

    def _machine(self, name: str) -> MachineState | None:
        machine, request = self._machines.get(name), self.decisions.requests.get(name)
        if machine is not None:
            nodes = self._node_of_machine.get(name)
            state = translate.machine_state(machine, nodes[0]["metadata"]["name"] if nodes else "")
            if name in self.decisions.removals and not state.going:
                return dataclasses.replace(state, going=True)
            return state
        if request is not None:
            return MachineState(name, request.pool, "", False, request.block, request.rack, request.nvlink_domain)
        return None

    def _refresh_node(self, name: str) -> bool:
        fleet, node = self.fleet, self._nodes.get(name)
        before = fleet.nodes.get(name)
        if node is None:
            if before is None:
                return False
            fleet.remove_node(name)
            self.decisions.tell("pool", before.pool)
            return True
        machine = self._machines.get((machine_label(node) or ("",))[0])
        state = translate.node_state(node, machine)
        if state.machine in self.decisions.removals and state.schedulable:
            state = dataclasses.replace(state, schedulable=False)
        if before == state:
            return False
        fleet.upsert_node(state)
        self.decisions.tell("pool", state.pool)
        return True

    def _refresh_workload(self, key: str) -> bool:
        namespace, _, name = key.partition("/")
        fleet, workload = self.fleet, self._workloads.get(name, namespace)
        before = fleet.workloads.get(key)
        state = self._workload(workload) if workload is not None else None
        if state is not None and (key in self.decisions.evictions or is_true(workload or {}, EVICTED)):
            state = dataclasses.replace(state, preemptible=False)  # it is on its way out: nobody else gets its room
        covers = workload is not None and state is not None and state.admitted and not state.finished
        self._coverage.cover(key, workload if covers else None)
        stops = state is not None and state.admitted and is_true(workload or {}, EVICTED)
        (self.stopping.add if stops else self.stopping.discard)(key)
        if workload is None or (state is not None and state.finished):
            self.decisions.forget(key)
        if before == state:
            return False
        if state is None:
            fleet.remove_workload(key)
        else:
            fleet.upsert_workload(state)
        if key in fleet.pending:
            self.decisions.telling.queued(key)
        elif state is not None:
            self.decisions.telling.forget(key)
        self._count(before, state)
        return True

    def _workload(self, workload: Object) -> WorkloadState | None:
        spec, key = workload["spec"], key_text(workload)
        finished = is_true(workload, FINISHED)
        if not spec.get("tenant") or not (spec.get("podSets") or finished):
            return None  # its controller has refused it, or has not seen it yet
        moved = self.decisions.moves.get(key)
        if moved is not None and moved.uid == workload["metadata"].get("uid"):
            workload = moved.of(workload)
        admission = (workload.get("status") or {}).get("admission")
        assumed = self.decisions.admissions.get(key)
        if assumed is not None and assumed.uid != workload["metadata"].get("uid"):
            self.decisions.admissions.pop(key, None)
            assumed = None
        elsewhere = runs_elsewhere(workload)
        job = None if elsewhere else self.family.governed(workload)
        pods = self._coverage.pods(key, workload, job) if admission is not None and not finished else []
        pods, _ = without_left_behind(workload, pods, lambda node: self._nodes.get(node) is not None)
        placements: Iterable[tuple[str, str, int]] = ()
        accelerator = ""
        if finished:
            pass
        elif admission is not None:
            accelerator = admission.get("accelerator", "")
            # The pods of another controller are not looked at: it holds all of its admission until it gives it back.
            stops = is_true(workload, EVICTED)
            placements = (
                admitted_places(workload)
                if elsewhere
                else held(workload, job, pods, stops, self.family.kind_for(workload))
            )
        elif assumed is not None:
            accelerator = assumed.admission.accelerator
            placements = tuple((one.pod_set, one.node, one.count) for one in assumed.admission.placements)
        standing = _standing(self._namespaces.get(workload["metadata"]["namespace"]))
        may_wait = standing[1] and (elsewhere or (job is not None and not translate.is_going(job)))
        return translate.workload_state(
            workload,
            admitted=admission is not None or assumed is not None,
            accelerator=accelerator,
            placements=placements,
            finished=finished,
            active=spec.get("active", True)
            and may_wait
            and not translate.is_going(workload)
            and not shut_out(workload),
            admitted_at=float(int(assumed.at)) if assumed is not None else 0.0,  # as it will be written
            checkpointed_at=translate.last_checkpoint([job, *pods] if job is not None else pods),
            movable=not elsewhere and movable(self.family.kind_for(workload)),
        )

    def _refresh_pod(self, key: str) -> bool:
        namespace, _, name = key.partition("/")
        fleet, pod = self.fleet, self._pods.get(name, namespace)
        counts = pod is not None and translate.takes_room(pod) and not self._coverage.has(pod)
        before = fleet.pods.get(key)
        if pod is None or not counts:
            if before is None:
                return False
            fleet.remove_pod(key)
            return True
        state = translate.bound_pod(pod)
        if state == before:
            return False
        fleet.upsert_pod(state)
        return True

    def _count(self, before: WorkloadState | None, after: WorkloadState | None) -> None:
        for state, step in ((before, -1), (after, 1)):
            if state is None or state.finished:
                continue
            counts = self.counts.setdefault(state.tenant, {"pending": 0, "admitted": 0})
            counts["admitted" if state.admitted else "pending"] += step
        for state in (before, after):
            if state is not None:
                self.decisions.tell("tenant", state.tenant)
                for _, node, _ in state.placements:
                    if node in self.fleet.nodes:
                        self.decisions.tell("pool", self.fleet.nodes[node].pool)


def key_text(obj: Object) -> str:
    """namespace/name."""
    return f"{obj['metadata']['namespace']}/{obj['metadata']['name']}"


def machine_label(node: Object) -> tuple[str, ...]:
    """The machine that a node says it is, as an index key."""
    name = (node["metadata"].get("labels") or {}).get(MACHINE)
    return (name,) if name else ()


def _standing(namespace: Object | None) -> tuple[str, bool]:
    """(tenant, whether its isolation is in force) of a namespace."""
    if namespace is None:
        return "", False
    labels = namespace["metadata"].get("labels") or {}
    return labels.get(TENANT, ""), labels.get(READY) == "true" and not translate.is_going(namespace)


def _both(old: Object | None, new: Object | None) -> list[Object]:
    return [obj for obj in (old, new) if obj is not None]
