"""Visits each service at its pace: reads its signals, decides, applies, tells."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError

from crds.dataflow import DataFlow, DataFlowStatus
from crds.errors import InvalidInput
from crds.labels import BANDWIDTH_CLASS, MANAGER_DATA_FLOW
from operators.dataflow import classes, measures, told
from operators.dataflow.declared import flow_spec, resumed
from operators.dataflow.readings import WANTED, Reading, Readings
from operators.dataflow.signals import Read, SignalReader
from operators.runtime import RESOURCES, Cluster, Key, Stores, Touches, change_of, patch_status
from scheduler.dataflow import FlowMemory, FlowSpec, Observation, Target, step
from scheduler.dataflow.samples import Counter

Object = Mapping[str, Any]
_OWNS = ("conditions", "dataFlow")
_TELL_SECONDS = 60.0  # a status in which only numbers moved is written at most so often
_PROBLEM_SECONDS = 30.0


@dataclass(slots=True)
class _Service:
    """What is kept of a service between visits. Lost at a restart; its status has what is needed to go on."""

    uid: str
    generation: int
    spec: FlowSpec
    flow: DataFlow
    memory: FlowMemory
    link: str = ""  # the bandwidth class asked for last
    due: float = 0.0
    told: float = 0.0
    counters: dict[str, dict[str, Counter]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Scene:
    """The objects of a service."""

    target: dict[str, Any]
    pods: list[Object]
    claims: list[Object]
    link: classes.InForce | None
    disk: classes.InForce | None
    ready: int

    @property
    def replicas(self) -> int:
        count = self.target["spec"].get("replicas")
        return 1 if count is None else int(count)


class DataFlowController:
    """One loop over Workloads with `spec.service.dataFlow`."""

    name = "data-flow"
    workers = 16

    def __init__(
        self,
        cluster: Cluster,
        stores: Stores,
        reader: SignalReader,
        readings: Readings,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.cluster = cluster
        self.stores = stores
        self.reader = reader
        self.readings = readings
        self._clock = clock
        self.workloads, self.pods = stores.watch("Workload"), stores.watch("Pod")
        self.claims = stores.watch("PersistentVolumeClaim")
        self._targets = {kind: stores.watch(kind) for kind in ("Deployment", "StatefulSet")}
        self._claimants = self.workloads.index("service-target", _target_key)
        self._services: dict[Key, _Service] = {}
        self.watches: Mapping[str, Touches] = {
            "Workload": lambda obj: (_key(obj),) if _flow(obj) is not None else (),
            "Deployment": self._followers,
            "StatefulSet": self._followers,
        }

    def _followers(self, obj: Object) -> list[Key]:
        meta = obj["metadata"]
        return [_key(one) for one in self._claimants.get(f"{meta['namespace']}/{obj['kind']}/{meta['name']}")]

    async def reconcile(self, key: Key) -> float | None:
        workload = self.workloads.get(key[1], key[0])
        if workload is None or _flow(workload) is None or workload["metadata"].get("deletionTimestamp"):
            self._forget(key)
            return None
        try:
            service = self._service(key, workload)
        except (InvalidInput, ValidationError) as error:
            return await self._refuse(workload, "InvalidInput", str(error))
        problem = self._problem(workload)
        if problem is not None:
            return await self._refuse(workload, *problem)
        now = self._clock()
        if 0 < service.due - now <= service.flow.sync_seconds:
            return service.due - now
        scene = self._look(workload, service)
        ready_pods = [pod for pod in scene.pods if classes.is_ready(pod)]
        read = await self.reader.read(service.flow, key[0], ready_pods, service.counters, now)
        target, memory = step(service.spec, service.memory, _observation(now, read, scene, service))
        if service.flow.dry_run:
            memory = replace(memory, volume_io_changed=service.memory.volume_io_changed)  # nothing is changed
        else:
            await self._apply(key, scene, service, target, workload)
        service.memory, service.link = memory, target.bandwidth
        service.due = now + service.flow.sync_seconds
        self._publish(key, read, target, scene)
        await self._tell(workload, service, scene, read, target, now)
        return float(service.flow.sync_seconds)

    def _service(self, key: Key, workload: Object) -> _Service:
        """What is kept of it; made anew for another object, or another generation with other signals."""
        meta = workload["metadata"]
        kept = self._services.get(key)
        if kept is not None and (kept.uid, kept.generation) == (meta["uid"], meta.get("generation", 0)):
            return kept
        flow = DataFlow.model_validate(_flow(workload))
        spec = flow_spec(flow)
        status = (workload.get("status") or {}).get("dataFlow")
        before = DataFlowStatus.model_validate(status) if status else None
        same = kept is not None and kept.uid == meta["uid"] and kept.spec.signals == spec.signals
        memory = kept.memory if kept is not None and same else resumed(spec, before)
        link = before.bandwidth.name if before is not None and before.bandwidth is not None else ""
        fresh = _Service(meta["uid"], meta.get("generation", 0), spec, flow, memory, link)
        if kept is not None and same:
            fresh.counters, fresh.link = kept.counters, kept.link
        self._services[key] = fresh
        return fresh

    def _problem(self, workload: Object) -> tuple[str, str] | None:
        target = workload["spec"]["service"]["target"]
        meta = workload["metadata"]
        kind, name = target.get("kind", "Deployment"), target["name"]
        if self._targets[kind].get(name, meta["namespace"]) is None:
            return "TargetNotFound", f"spec.service.target: {kind} {name} does not exist; make it"
        rivals = [one["metadata"] for one in self._claimants.get(_target_key(workload)[0])]
        first = min(rivals, key=lambda one: (str(one.get("creationTimestamp") or ""), str(one["name"])))
        if first["name"] != meta["name"]:
            return "TargetTaken", f"spec.service.target: Workload {first['name']} governs {kind} {name}; delete one"
        return None

    def _look(self, workload: Object, service: _Service) -> _Scene:
        namespace, ref = workload["metadata"]["namespace"], workload["spec"]["service"]["target"]
        target = self._targets[ref.get("kind", "Deployment")].get(ref["name"], namespace)
        assert target is not None
        pods = classes.pods_of(target, self.pods.in_namespace(namespace))
        flow = service.flow
        claims = classes.claims_of(flow.volume_io, self.claims.in_namespace(namespace)) if flow.volume_io else []
        return _Scene(
            target=target,
            pods=pods,
            claims=claims,
            link=classes.bandwidth_in_force(flow.bandwidth, target, pods, service.link) if flow.bandwidth else None,
            disk=classes.volume_io_in_force(claims) if flow.volume_io else None,
            ready=int((target.get("status") or {}).get("readyReplicas") or 0),
        )

    async def _apply(self, key: Key, scene: _Scene, service: _Service, target: Target, workload: Object) -> None:
        """Replicas first: they are what takes longest."""
        namespace, flow = key[0], service.flow
        change: dict[str, Any] = {}
        if flow.bandwidth is not None:
            change = classes.bandwidth_template(flow.bandwidth, scene.target, target.bandwidth) or {}
        wanted = target.replicas if workload["spec"].get("active", True) else 0
        if wanted != scene.replicas:
            change = {**change, "spec": {**change.get("spec", {}), "replicas": wanted}}
            measures.CHANGES.labels("replicas").inc()
        if change:
            meta = scene.target["metadata"]
            change["metadata"] = {"resourceVersion": meta["resourceVersion"], "uid": meta["uid"]}
            resource = RESOURCES[scene.target["kind"]]
            fresh = await self.cluster.merge_patch(resource, meta["name"], change, MANAGER_DATA_FLOW, namespace)
            self.stores.observe(fresh)
        if flow.bandwidth is not None:
            marks = {"metadata": {"annotations": {BANDWIDTH_CLASS: target.bandwidth}}}
            for pod in classes.pods_to_mark(flow.bandwidth, scene.pods, target.bandwidth):
                await self._patch("Pod", pod, marks, namespace)
        for claim in classes.claims_to_change(scene.claims, target.volume_io):
            await self._patch(
                "PersistentVolumeClaim", claim, {"spec": {"volumeAttributesClassName": target.volume_io}}, namespace
            )

    async def _patch(self, kind: str, obj: Object, change: dict[str, Any], namespace: str) -> None:
        uid = {"metadata": {**change.get("metadata", {}), "uid": obj["metadata"]["uid"]}}
        name = obj["metadata"]["name"]
        fresh = await self.cluster.merge_patch(RESOURCES[kind], name, {**change, **uid}, MANAGER_DATA_FLOW, namespace)
        measures.CHANGES.labels("bandwidth" if kind == "Pod" else "volumeIO").inc()
        self.stores.observe(fresh)

    def _publish(self, key: Key, read: Read, target: Target, scene: _Scene) -> None:
        now = self._clock()
        values = {
            name: Reading(sample.value, sample.at)
            for name, sample in read.samples.items()
            if sample is not None and target.states[name] == "Fresh"
        }
        self.readings.put(key, {**values, WANTED: Reading(float(target.replicas), now)})
        measures.show(key, target, scene.ready, {name: one.value for name, one in values.items()})

    async def _tell(
        self, workload: dict[str, Any], service: _Service, scene: _Scene, read: Read, target: Target, now: float
    ) -> None:
        at = datetime.fromtimestamp(now, UTC)
        old = (workload.get("status") or {}).get("conditions")
        conditions = told.conditions_of(old, service.generation, target, read, service.flow.dry_run, at)
        flow = told.status_of(service.spec, target, service.memory, read, scene.ready, scene.link, scene.disk)
        change = change_of(
            workload, {**(workload.get("status") or {}), "conditions": conditions, "dataFlow": flow}, _OWNS
        )
        if change and (told.matters(workload, conditions, flow) or now - service.told >= _TELL_SECONDS):
            await patch_status(self.cluster, self.stores, workload, change, MANAGER_DATA_FLOW)
            service.told = now

    async def _refuse(self, workload: dict[str, Any], reason: str, message: str) -> float:
        status = workload.get("status") or {}
        generation = workload["metadata"].get("generation", 0)
        now = datetime.fromtimestamp(self._clock(), UTC)
        conditions = told.refused(status.get("conditions"), generation, reason, message[:4096], now)
        change = change_of(workload, {**status, "conditions": conditions}, ("conditions",))
        if change:
            await patch_status(self.cluster, self.stores, workload, change, MANAGER_DATA_FLOW)
        return _PROBLEM_SECONDS

    def _forget(self, key: Key) -> None:
        if self._services.pop(key, None) is not None:
            self.readings.forget(key)
            measures.forget(key)


def _observation(now: float, read: Read, scene: _Scene, service: _Service) -> Observation:
    link, disk = scene.link, scene.disk
    return Observation(
        now=now,
        samples=read.samples,
        replicas=scene.replicas,
        ready=scene.ready,
        bandwidth=link.name if link else "",
        bandwidth_asked=link.asked if link else "",
        volume_io=disk.name if disk else "",
        volume_io_asked=disk.asked if disk else "",
    )


def _flow(workload: Object) -> Any:
    return (workload["spec"].get("service") or {}).get("dataFlow")


def _key(obj: Object) -> Key:
    return obj["metadata"]["namespace"], obj["metadata"]["name"]


def _target_key(workload: Object) -> tuple[str, ...]:
    if _flow(workload) is None:
        return ()
    target = workload["spec"]["service"]["target"]
    return (f"{workload['metadata']['namespace']}/{target.get('kind', 'Deployment')}/{target['name']}",)
