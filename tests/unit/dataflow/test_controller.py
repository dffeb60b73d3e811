"""The data-flow controller over stores and a cluster that only writes down what it is asked."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from crds.dataflow import BandwidthClasses
from operators.dataflow import DataFlowController, Readings, SignalReader
from operators.dataflow.classes import bandwidth_in_force, bandwidth_template, volume_io_in_force
from operators.dataflow.readings import WANTED
from operators.dataflow.signals import Read
from operators.runtime import Stores
from scheduler.dataflow import Sample

KEY = ("blue", "chat")


class _Cluster:
    """Merges every patch into the object that it is for."""

    def __init__(self, stores: Stores) -> None:
        self.stores = stores
        self.patches: list[tuple[str, str, dict[str, Any]]] = []
        self._version = 100

    async def merge_patch(
        self, resource: Any, name: str, patch: dict[str, Any], manager: str, namespace: str = "", subresource: str = ""
    ) -> dict[str, Any]:
        self.patches.append((resource.kind, subresource, patch))
        found = copy.deepcopy(self.stores.watch(resource.kind).get(name, namespace))
        assert found is not None
        merged: dict[str, Any] = _merge(found, patch)
        self._version += 1
        merged["metadata"]["resourceVersion"] = str(self._version)
        return merged


class _Reader(SignalReader):
    """Says what the test says."""

    def __init__(self) -> None:
        self.value: float | None = 200.0
        self.at = 0.0
        self.fault = ("PrometheusUnreachable", "Prometheus does not answer: ConnectError")

    async def read(self, flow: Any, namespace: str, pods: Any, counters: Any, now: float) -> Read:
        if self.value is None:
            return Read({one.name: None for one in flow.signals}, {one.name: self.fault for one in flow.signals})
        return Read({one.name: Sample(self.value, self.at or now) for one in flow.signals})


def _merge(into: Any, patch: dict[str, Any]) -> Any:
    for name, value in patch.items():
        if value is None:
            into.pop(name, None)
        elif isinstance(value, dict):
            into[name] = _merge(into.get(name) or {}, value)
        else:
            into[name] = value
    return into


def workload(name: str = "chat", created: str = "2026-01-01T00:00:00Z", **flow: Any) -> dict[str, Any]:
    signals = [{"name": "requests", "type": "requests", "capacity": "10", "prometheus": {"metric": "requests_total"}}]
    return {
        "apiVersion": "kekkai.dev/v1alpha1",
        "kind": "Workload",
        "metadata": {
            "name": name,
            "namespace": "blue",
            "uid": f"uid-{name}",
            "generation": 1,
            "resourceVersion": "1",
            "creationTimestamp": created,
        },
        "spec": {"service": {"target": {"name": "chat"}, "dataFlow": {"maxReplicas": 40, "signals": signals, **flow}}},
    }


def deployment() -> dict[str, Any]:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "chat", "namespace": "blue", "uid": "uid-d", "generation": 1, "resourceVersion": "2"},
        "spec": {"replicas": 1, "selector": {"matchLabels": {"app": "chat"}}, "template": {"metadata": {}, "spec": {}}},
        "status": {"readyReplicas": 1, "observedGeneration": 1},
    }


class _Desk:
    def __init__(self, *objects: dict[str, Any]) -> None:
        self.stores = Stores()
        self.cluster, self.reader, self.readings = _Cluster(self.stores), _Reader(), Readings()
        self.now = 1_800_000_000.0
        self.controller = self.made()
        for one in objects:
            self.stores.observe(one)

    def made(self) -> DataFlowController:
        return DataFlowController(
            self.cluster,
            self.stores,
            self.reader,
            self.readings,
            clock=lambda: self.now,  # type: ignore[arg-type]
        )

    async def visits(self, count: int, seconds: float = 15.0) -> None:
        for _ in range(count):
            self.now += seconds
            await self.controller.reconcile(KEY)

    @property
    def replicas(self) -> int:
        found = self.stores.watch("Deployment").get("chat", "blue")
        assert found is not None
        return int(found["spec"]["replicas"])

    def status(self, name: str = "chat") -> dict[str, Any]:
        found = self.stores.watch("Workload").get(name, "blue")
        assert found is not None
        return found.get("status") or {}

    def condition(self, kind: str, name: str = "chat") -> tuple[str, str]:
        (found,) = [one for one in self.status(name)["conditions"] if one["type"] == kind]
        return found["status"], found["reason"]


async def test_replicas_follow_and_the_status_says_why() -> None:
    desk = _Desk(workload(), deployment())
    await desk.visits(2)
    assert desk.replicas >= 20
    assert desk.condition("Ready") == ("True", "Following")
    assert desk.condition("DataFlowSignal") == ("True", "Fresh")
    (signal,) = desk.status()["dataFlow"]["signals"]
    assert (signal["state"], signal["value"], signal["capacity"]) == ("Fresh", "200", "10")
    assert dict(desk.readings.find("blue", "requests"))["chat"].value == 200
    assert dict(desk.readings.find("blue", WANTED))["chat"].value == desk.replicas
    assert desk.readings.find("green", "requests") == []


async def test_silence_holds_and_is_said_and_a_restart_in_it_holds_too() -> None:
    desk = _Desk(workload(), deployment())
    await desk.visits(30)
    before = desk.replicas
    desk.reader.value = None
    await desk.visits(60)
    desk.controller = desk.made()
    await desk.visits(60)
    assert desk.replicas == before
    assert desk.condition("DataFlowSignal") == ("Unknown", "PrometheusUnreachable")
    assert desk.condition("Ready") == ("Unknown", "SignalsLost")
    assert desk.status()["dataFlow"]["signals"][0]["state"] == "Missing"


async def test_a_stale_sample_is_called_stale() -> None:
    desk = _Desk(workload(), deployment())
    await desk.visits(10)
    desk.reader.at = desk.now - 5
    await desk.visits(20)
    assert desk.condition("DataFlowSignal") == ("Unknown", "Stale")
    assert desk.replicas >= 20


async def test_a_dry_run_changes_nothing_but_what_is_said() -> None:
    desk = _Desk(workload(dryRun=True), deployment())
    await desk.visits(3)
    assert desk.replicas == 1
    assert desk.status()["dataFlow"]["replicas"] >= 20
    assert desk.condition("DataFlowApplied") == ("False", "DryRun")
    assert {kind for kind, _, _ in desk.cluster.patches} == {"Workload"}


async def test_a_service_that_is_not_active_has_no_replicas() -> None:
    idle = workload()
    idle["spec"]["active"] = False
    desk = _Desk(idle, deployment())
    await desk.visits(3)
    assert desk.replicas == 0


async def test_nothing_is_written_while_nothing_changes() -> None:
    desk = _Desk(workload(), deployment())
    await desk.visits(40)
    desk.cluster.patches.clear()
    await desk.visits(40)
    assert [one for one in desk.cluster.patches if one[0] == "Deployment"] == []
    assert len(desk.cluster.patches) <= 11, "at most one status a minute"


async def test_its_own_writes_do_not_make_it_decide_more_often() -> None:
    desk = _Desk(workload(), deployment())
    await desk.visits(1)
    desk.now += 1
    assert await desk.controller.reconcile(KEY) == pytest.approx(14.0)


@pytest.mark.parametrize(
    ("objects", "reason"),
    [
        ((workload(),), "TargetNotFound"),
        ((workload(), workload("older", "2025-01-01T00:00:00Z"), deployment()), "TargetTaken"),
        ((workload(minReplicas=50), deployment()), "InvalidInput"),
    ],
)
async def test_what_cannot_be_followed_is_refused_with_a_reason(objects: tuple[Any, ...], reason: str) -> None:
    desk = _Desk(*objects)
    await desk.visits(2)
    assert desk.condition("Ready") == ("False", reason)
    assert len(desk.cluster.patches) == 1


async def test_a_service_that_is_deleted_leaves_no_readings() -> None:
    desk = _Desk(workload(), deployment())
    await desk.visits(2)
    found = desk.stores.watch("Workload").get("chat", "blue")
    assert found is not None
    desk.stores.watch("Workload").forget(found)
    await desk.visits(1)
    assert desk.readings.metrics() == []


def claim(asked: str, current: str, **modify: str) -> dict[str, Any]:
    status: dict[str, Any] = {"currentVolumeAttributesClassName": current}
    if modify:
        status["modifyVolumeStatus"] = modify
    return {"metadata": {"name": "data"}, "spec": {"volumeAttributesClassName": asked}, "status": status}


def test_a_volume_class_counts_when_the_claims_status_says_so() -> None:
    assert volume_io_in_force([claim("fast", "slow")]).name == "slow"
    assert volume_io_in_force([claim("fast", "slow")]).asked == "fast"
    assert volume_io_in_force([claim("fast", "fast"), claim("fast", "slow")]).name == ""
    assert volume_io_in_force([claim("fast", "fast")]).name == "fast"
    refused = volume_io_in_force([claim("fast", "slow", status="Infeasible")])
    assert refused.asked == "slow", "what the backend refuses is given up"
    assert "refuses fast" in refused.message
    assert volume_io_in_force([]).message


def test_pod_bandwidth_is_rolled_out_by_the_target_within_its_own_budget() -> None:
    declared = BandwidthClasses.model_validate(
        {
            "apply": "podAnnotations",
            "classes": [{"name": "b1", "bytesPerSecond": "1M"}, {"name": "b2", "bytesPerSecond": "1G"}],
        }
    )
    target = deployment()
    change = bandwidth_template(declared, target, "b2")
    assert change is not None
    annotations = change["spec"]["template"]["metadata"]["annotations"]
    assert annotations["kubernetes.io/ingress-bandwidth"] == "8000000000"
    _merge(target, change)
    target["metadata"]["generation"] = 2
    assert bandwidth_in_force(declared, target, [], "b1").name == "", "no new replica has it yet"
    target["status"] = {"observedGeneration": 2, "replicas": 3, "updatedReplicas": 3}
    assert bandwidth_in_force(declared, target, [], "b1").name == "b2"
    assert bandwidth_template(declared, target, "b2") is None
    target["spec"]["strategy"] = {"type": "Recreate"}
    assert bandwidth_template(declared, target, "b1") is None, "it would stop the service"
