"""Each provider under the real operators on a real API server: machines come for the floor and go with it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from local.capacity import DEFINITIONS, ClusterApiController, KarpenterController
from local.capacity.bought import CAPACITY
from local.controlplane import ControlPlane
from local.controlplane.ports import free_ports
from local.hardware.redfish import Farm, Kubelets
from local.hardware.redfish.farm import PASSWORD, USERNAME
from operators.runtime import Cluster
from tests.integration.operators_harness import Operators, World, holds, pool, site, until

pytestmark = [pytest.mark.campaign, pytest.mark.timeout(900)]
SERVERS = 4


@pytest.fixture(scope="module")
def world(installed: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    installed.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(DEFINITIONS))
    installed.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
    one = World(installed)
    one.apply(site())
    operators = Operators(installed, Path(tmp_path_factory.mktemp("operators")) / "operators.log")
    operators.start()
    yield one
    assert operators.stop() == 0, operators.log()[-2000:]


class Beside:
    """Runs emulated controllers beside the test."""

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    def __enter__(self) -> Beside:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(20)

    async def _run(self) -> None:
        async with await Cluster.connect(self._plane.admin_kubeconfig) as cluster:
            controllers = (ClusterApiController(cluster), KarpenterController(cluster))
            while not self._stop.is_set():
                for controller in controllers:
                    try:
                        await controller.step()
                    except Exception as error:
                        print(f"emulated controller: {error}")
                await asyncio.sleep(0.3)


def grow_and_shrink(world: World, one: dict[str, Any], count: int) -> None:
    name = one["metadata"]["name"]
    world.apply(one)

    def ready() -> bool:
        found = [
            each for each in world.list("machines.kekkai.dev") if each["spec"]["pool"] == name and holds(each, "Ready")
        ]
        return len(found) == count

    until(f"{count} machines of {name} are Ready", ready, 180, lambda: str(world.list("machines.kekkai.dev"))[:4000])
    nodes = [each for each in world.list("node") if each["metadata"]["labels"]["kekkai.dev/pool"] == name]
    assert len(nodes) == count
    machines = {
        each["status"]["providerID"]: each for each in world.list("machines.kekkai.dev") if each["spec"]["pool"] == name
    }
    for node in nodes:
        assert node["spec"]["providerID"] in machines
        assert not [taint for taint in node["spec"].get("taints", []) if taint["key"].startswith("kekkai.dev/")]
    world.plane.kubectl("scale", f"acceleratorpool/{name}", "--replicas=0")
    until(f"the machines of {name} are gone", lambda: not world.list("machines.kekkai.dev"), 180)
    until("their nodes too", lambda: not world.list("node"), 60)
    world.delete("acceleratorpool", name)


def of_provider(name: str, provider: dict[str, Any], count: int) -> dict[str, Any]:
    out = pool(name, "H200", minimum=count, maximum=count, delay=1)
    out["spec"]["interconnect"] = {}
    out["spec"]["provider"] = provider
    return out


def test_cluster_api(world: World) -> None:
    deployment = {
        "apiVersion": "cluster.x-k8s.io/v1beta2",
        "kind": "MachineDeployment",
        "metadata": {"name": "gpu", "namespace": "default"},
        "spec": {"replicas": 0},
    }
    world.apply(deployment)
    with Beside(world.plane):
        provider = {"clusterApi": {"namespace": "default", "machineDeployment": "gpu"}}
        grow_and_shrink(world, of_provider("capi", provider, 3), 3)
        until("no Cluster API Machine is left", lambda: not world.list("machines.cluster.x-k8s.io", "default"), 60)
    left = world.get("machinedeployments.cluster.x-k8s.io", "gpu", "default")
    assert left is not None
    assert left["spec"]["replicas"] == 0


def test_karpenter(world: World) -> None:
    with Beside(world.plane):
        provider = {"karpenter": {"nodeClassRef": {"group": "emulated.dev", "kind": "NodeClass", "name": "gpu"}}}
        grow_and_shrink(world, of_provider("karp", provider, 3), 3)
        until("no NodeClaim is left", lambda: not world.list("nodeclaims.karpenter.sh"), 60)


class KubectlNodes:
    """What kubelets tell the API server."""

    def __init__(self, world: World) -> None:
        self._world = world

    def apply_node(self, node: dict[str, Any]) -> None:
        self._world.plane.kubectl("create", "-f", "-", stdin=yaml.safe_dump(node))

    def fail_node(self, name: str) -> None:
        pass  # the Node is removed by the operator once the power is off


def test_bare_metal_by_redfish(world: World, tmp_path: Path) -> None:
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "bmc", "namespace": "kekkai-machines"},
        "stringData": {"username": USERNAME, "password": PASSWORD},
    }
    world.apply(secret)
    with Farm(tmp_path, free_ports(1)[0], SERVERS) as farm:
        kubelets = Kubelets(farm, KubectlNodes(world), CAPACITY, boot_seconds=1.0)
        stop = threading.Event()

        def boot() -> None:
            while not stop.is_set():
                kubelets.step()
                time.sleep(0.5)

        thread = threading.Thread(target=boot, daemon=True)
        thread.start()
        try:
            provider = {"redfish": {"hosts": farm.inventory(), "credentials": "bmc"}}
            grow_and_shrink(world, of_provider("metal", provider, SERVERS), SERVERS)
            assert farm.powered_on() == set()
        finally:
            stop.set()
            thread.join(20)
