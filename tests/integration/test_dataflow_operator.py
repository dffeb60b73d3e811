"""A service on a real API server follows its data: replicas within quota, bandwidth, volumes; HPA by our API."""

from __future__ import annotations

import base64
import json
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from local.controlplane import ControlPlane
from local.controlplane.pki import Authority
from local.controlplane.ports import free_ports
from local.services import EmulatedService, Flow, Prometheus
from tests.integration.operators_harness import API, Operators, World, condition, pod_template, pool, site, until

pytestmark = [pytest.mark.campaign, pytest.mark.timeout(600)]
ROOT = Path(__file__).resolve().parents[2]
CLASS = "H200"
SERVICE = "kekkai-external-metrics"


class _WithFlow(Operators):
    def __init__(self, plane: ControlPlane, folder: Path, prometheus: str) -> None:
        super().__init__(plane, folder / "operators.log")
        self.authority = Authority(folder / "ca", "external-metrics")
        pair = self.authority.server("external-metrics", [f"{SERVICE}.kekkai-system.svc"])
        (self.port,), self.host = free_ports(1), host_address()
        self._flags = [
            f"--prometheus-url={prometheus}",
            f"--external-metrics-port={self.port}",
            f"--external-metrics-address={self.host}",
            f"--external-metrics-certificate={pair.certificate}",
            f"--external-metrics-key={pair.key}",
        ]

    def start(self) -> None:
        with self._log.open("ab") as log:
            command = [sys.executable, "-m", "operators", f"--kubeconfig={self._kubeconfig}", *self._flags]
            self._process = subprocess.Popen(command, stdout=log, stderr=log)


@dataclass
class Stage:
    """The service, what comes to it, and who watches it."""

    world: World
    operators: _WithFlow
    prometheus: Prometheus
    service: EmulatedService
    rate: list[float]

    def workload(self, name: str = "chat") -> dict[str, Any]:
        return self.world.get("kwl", name, "flow") or {}

    def deployment(self, name: str = "chat") -> dict[str, Any]:
        return self.world.get("deployment", name, "flow") or {}

    def said(self) -> str:
        return yaml.safe_dump([self.workload(), self.deployment()]) + self.operators.log()[-3000:]


@pytest.fixture(scope="module")
def stage(installed: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = Path(tmp_path_factory.mktemp("flow"))
    rate = [60.0]
    with (
        EmulatedService("chat", "flow", Flow(lambda _: rate[0]), carries=10.0, ready=9) as service,
        Prometheus(folder, [service.address]) as prometheus,
    ):
        operators = _WithFlow(installed, folder, prometheus.url)
        world = World(installed)
        operators.start()
        world.apply(site(), pool("flow", CLASS, maximum=4))
        world.tenant_with_namespace("flow", CLASS, 16)
        stage = Stage(world, operators, prometheus, service, rate)
        try:
            yield stage
        finally:
            world.delete("kwl", "chat", "flow")
            world.delete("deployment", "chat", "flow", wait=True)
            world.delete("tenant", "flow")
            world.delete("acceleratorpool", "flow")
            until("all machines are gone", lambda: not world.list("machine"))
            assert operators.stop() == 0, operators.log()[-2000:]


def deployment(name: str, devices: int) -> dict[str, Any]:
    template = pod_template(CLASS, devices, 1_000_000)
    template["spec"]["restartPolicy"] = "Always"
    template["metadata"]["labels"] = {"app": name}
    if not devices:
        template["spec"].pop("nodeSelector")
        template["spec"]["containers"][0]["resources"]["limits"].pop("nvidia.com/gpu")
    spec = {"replicas": 1, "selector": {"matchLabels": {"app": name}}, "template": template}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": "flow"},
        "spec": spec,
    }


def following(name: str, target: str, **more: Any) -> dict[str, Any]:
    read = {"metric": "service_requests_total", "read": "rate", "windowSeconds": 5}
    flow = {
        "maxReplicas": 9,
        "syncSeconds": 1,
        "startupSeconds": 5,
        "windowSeconds": 10,
        "signals": [
            {"name": "requests", "type": "requests", "capacity": "10", "maxAgeSeconds": 8, "prometheus": read},
            {
                "name": "writes",
                "type": "storageWriteBytes",
                "maxAgeSeconds": 8,
                "prometheus": {**read, "metric": "service_write_bytes_total"},
            },
        ],
        **more,
    }
    return {
        "apiVersion": API,
        "kind": "Workload",
        "metadata": {"name": name, "namespace": "flow"},
        "spec": {"service": {"target": {"name": target}, "dataFlow": flow}},
    }


def volumes(world: World) -> None:
    for name in ("slow", "fast"):
        attributes = {"driverName": "ebs.csi.aws.com", "parameters": {"iops": "3000" if name == "slow" else "16000"}}
        world.apply(
            {
                "apiVersion": "storage.k8s.io/v1",
                "kind": "VolumeAttributesClass",
                "metadata": {"name": name},
                **attributes,
            }
        )
    size = {"storage": "1Gi"}
    volume = {
        "capacity": size,
        "accessModes": ["ReadWriteOnce"],
        "hostPath": {"path": "/nowhere"},
        "storageClassName": "",
    }
    claim = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": size},
        "storageClassName": "",
        "volumeName": "flow-data",
    }
    world.apply(
        {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "flow-data"}, "spec": volume},
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": "data", "namespace": "flow", "labels": {"app": "chat"}},
            "spec": claim,
        },
    )
    until(
        "the claim is bound", lambda: (world.get("pvc", "data", "flow") or {}).get("status", {}).get("phase") == "Bound"
    )


def the_backend_did_it(world: World) -> None:
    """There is no CSI driver here: what its resizer writes is written for it."""
    asked = (world.get("pvc", "data", "flow") or {})["spec"]["volumeAttributesClassName"]
    patch = json.dumps({"status": {"currentVolumeAttributesClassName": asked}})
    world.plane.kubectl("patch", "pvc", "data", "-n", "flow", "--subresource=status", "--type=merge", "-p", patch)


def test_replicas_bandwidth_and_volumes_follow_within_quota_and_silence_holds(stage: Stage) -> None:
    world = stage.world
    volumes(world)
    world.apply(deployment("chat", 8))
    bandwidth = {
        "classes": [{"name": "b1", "bytesPerSecond": "5M"}, {"name": "b2", "bytesPerSecond": "1G"}],
        "minIntervalSeconds": 5,
    }
    disks = {
        "claims": {"app": "chat"},
        "shared": True,
        "minIntervalSeconds": 5,
        "classes": [
            {"name": "slow", "bytesPerSecond": "30M"},
            {"name": "fast", "bytesPerSecond": "1G", "costPerHour": "1"},
        ],
    }
    world.apply(following("chat", "chat", bandwidth=bandwidth, volumeIO=disks))
    until("replicas follow up", lambda: stage.deployment()["spec"]["replicas"] >= 6, state=stage.said)
    until("the volumes are to be fast", lambda: _class_of(world) == "fast", state=stage.said)
    status = stage.workload()["status"]["dataFlow"]
    assert status["volumeIO"]["name"] == "fast"
    assert status["volumeIO"].get("inForce", "") == "", "asking for a class is not having it"
    the_backend_did_it(world)
    until(
        "the class is in force",
        lambda: stage.workload()["status"]["dataFlow"]["volumeIO"].get("inForce") == "fast",
        state=stage.said,
    )
    until(
        "quota lets two of them run", lambda: stage.deployment()["status"].get("readyReplicas") == 2, state=stage.said
    )
    marked = until(
        "running pods carry the class",
        lambda: [
            one
            for one in world.list("pod", "flow", "app=chat")
            if "kekkai.dev/bandwidth-class" in one["metadata"].get("annotations", {})
        ],
        state=stage.said,
    )
    assert {one["metadata"]["annotations"]["kekkai.dev/bandwidth-class"] for one in marked} <= {"b1", "b2"}
    assert condition(stage.workload(), "DataFlowSignal")["status"] == "True"

    stage.prometheus.stop()
    until(
        "the condition says that Prometheus is away",
        lambda: condition(stage.workload(), "DataFlowSignal").get("reason") == "PrometheusUnreachable",
        state=stage.said,
    )
    assert condition(stage.workload(), "DataFlowSignal")["status"] == "Unknown"
    held = stage.deployment()["spec"]["replicas"]
    stage.rate[0] = 2.0
    assert held >= 6
    stage.prometheus.start()
    until(
        "it is read again",
        lambda: condition(stage.workload(), "DataFlowSignal").get("status") == "True",
        state=stage.said,
    )
    until("replicas follow down", lambda: stage.deployment()["spec"]["replicas"] <= 3, 180, state=stage.said)

    def slow() -> bool:
        the_backend_did_it(world)
        return _class_of(world) == "slow"

    until("the volumes are slow again", slow, 180, state=stage.said)
    stage.operators.kill()
    stage.operators.start()
    stage.rate[0] = 60.0
    until("after a crash it goes on", lambda: stage.deployment()["spec"]["replicas"] >= 6, state=stage.said)


def test_two_workloads_never_fight_for_one_target(stage: Stage) -> None:
    stage.world.apply(following("rival", "chat"))
    found = until(
        "the second is refused", lambda: condition(stage.workload("rival"), "Ready") or None, state=stage.said
    )
    assert found["reason"] == "TargetTaken"
    stage.world.delete("kwl", "rival", "flow")


def test_hpa_scales_by_the_signals_through_the_aggregation_layer(stage: Stage) -> None:
    world, plane = stage.world, stage.world.plane
    documents = list(yaml.safe_load_all((ROOT / "docs/examples/80-external-metrics.yaml").read_text()))
    bundle = base64.b64encode(stage.operators.authority.files.certificate.read_bytes()).decode()
    for one in documents:
        if one["kind"] == "Service":
            one["spec"] = {"ports": [{"name": "https", "port": stage.operators.port}]}
        if one["kind"] == "APIService":
            one["spec"]["service"]["port"] = stage.operators.port
            one["spec"]["caBundle"] = bundle
    metric = {"name": "requests", "selector": {"matchLabels": {"workload": "chat"}}}
    external = {"metric": metric, "target": {"type": "AverageValue", "averageValue": "20"}}
    hpa = {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "web", "namespace": "flow"},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
            "minReplicas": 1,
            "maxReplicas": 8,
            "metrics": [{"type": "External", "external": external}],
        },
    }
    try:
        world.apply(*documents, endpoints(stage.operators))
        path = "/apis/external.metrics.k8s.io/v1beta1/namespaces/flow/requests"

        def served() -> dict[str, Any] | None:
            done = plane.kubectl("get", "--raw", f"{path}?labelSelector=workload%3Dchat", check=False)
            return json.loads(done.stdout) if done.returncode == 0 else None

        values = until(
            "the value is served",
            served,
            state=lambda: (
                plane.kubectl("get", "apiservice", "v1beta1.external.metrics.k8s.io", "-o", "yaml", check=False).stdout
                + stage.said()
            ),
        )
        (item,) = values["items"]
        assert item["metricLabels"] == {"workload": "chat"}
        nothing = json.loads(plane.kubectl("get", "--raw", f"{path}?labelSelector=workload%3Dother").stdout)
        assert nothing["items"] == []
        stranger = plane.kubeconfig_for("mallory")
        refused = plane.kubectl(f"--kubeconfig={stranger}", "get", "--raw", path, check=False)
        assert refused.returncode != 0
        assert "orbidden" in refused.stderr
        world.apply(deployment("web", 0), hpa)
        until("HPA follows it", lambda: stage.deployment("web")["spec"]["replicas"] >= 3, 180, state=stage.said)
    finally:
        world.delete("hpa", "web", "flow")
        world.delete("deployment", "web", "flow")
        world.delete("apiservice", "v1beta1.external.metrics.k8s.io")
        plane.kubectl("delete", "service,endpointslice", SERVICE, "-n", "kekkai-system", "--ignore-not-found")


def test_nobody_but_the_front_proxy_may_connect(stage: Stage) -> None:
    ca = str(stage.operators.authority.files.certificate)
    context = ssl.create_default_context(cafile=ca)
    context.check_hostname = False
    url = f"https://{stage.operators.host}:{stage.operators.port}/apis/external.metrics.k8s.io/v1beta1/namespaces/flow/requests"
    with pytest.raises(httpx.HTTPError):
        httpx.get(url, headers={"X-Remote-User": "kekkai-admin", "X-Remote-Group": "system:masters"}, verify=context)


def test_a_wrong_declaration_is_refused_with_the_field(stage: Stage) -> None:
    broken = following("broken", "chat", minReplicas=10)
    broken["spec"]["service"]["dataFlow"]["signals"][0].pop("capacity")
    done = stage.world.plane.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(broken), check=False)
    assert done.returncode != 0
    assert "signals[].capacity is missing" in done.stderr
    assert "minReplicas must not be above maxReplicas" in done.stderr
    example = (ROOT / "docs/examples/81-service.yaml").read_text().replace("namespace: blue", "namespace: flow")
    stage.world.plane.kubectl(
        "apply",
        "--dry-run=server",
        "-f",
        "-",
        stdin=example.replace("name: chat\n  namespace", "name: other\n  namespace"),
    )


def endpoints(operators: _WithFlow) -> dict[str, Any]:
    """Where the aggregation layer finds the server: the API server takes no loopback address here."""
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": SERVICE,
            "namespace": "kekkai-system",
            "labels": {"kubernetes.io/service-name": SERVICE},
        },
        "addressType": "IPv4",
        "endpoints": [{"addresses": [operators.host], "conditions": {"ready": True}}],
        "ports": [{"name": "https", "port": operators.port, "protocol": "TCP"}],
    }


def host_address() -> str:
    """An IPv4 address of this machine that is not a loopback one; no packet is sent to find it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("this machine has no address but the loopback one")
        return str(probe.getsockname()[0])


def _class_of(world: World) -> str:
    return str((world.get("pvc", "data", "flow") or {}).get("spec", {}).get("volumeAttributesClassName") or "")
