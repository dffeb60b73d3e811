"""The pools operator on a real API server: machines come, go, are replaced, and nothing is left."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from local.controlplane import ControlPlane
from tests.integration.operators_harness import API, Operators, World, condition, holds, pool, site, until

CLASS = "H200"


@pytest.fixture(scope="module")
def operators(installed: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operators]:
    one = Operators(installed, Path(tmp_path_factory.mktemp("operators")) / "operators.log")
    one.start()
    yield one
    assert one.stop() == 0, one.log()[-2000:]


@pytest.fixture
def world(installed: ControlPlane, operators: Operators) -> Iterator[World]:
    one = World(installed)
    one.apply(site())
    yield one
    for found in one.list("acceleratorpool"):
        one.delete("acceleratorpool", found["metadata"]["name"])
    until("all machines and nodes are gone", lambda: not one.list("machine") and not one.list("node"))
    until("the pools are gone", lambda: not one.list("acceleratorpool"))


def ready_machines(world: World, count: int) -> list[dict]:
    def read() -> list[dict] | None:
        found = [one for one in world.list("machine") if holds(one, "Ready")]
        return found if len(found) == count else None

    return until(f"{count} machines are Ready", read)


def test_the_minimum_is_kept_and_nodes_look_as_in_production(world: World) -> None:
    world.apply(pool("minimum", CLASS, minimum=1))
    (machine,) = ready_machines(world, 1)
    node = world.get("node", machine["status"]["nodeName"])
    assert node is not None
    assert node["spec"]["providerID"] == machine["status"]["providerID"]
    assert not [t for t in node["spec"].get("taints", []) if t["key"].startswith("kekkai.dev/")]
    labels = node["metadata"]["labels"]
    assert labels["kekkai.dev/pool"] == "minimum"
    assert labels["kekkai.dev/machine"] == machine["metadata"]["name"]
    assert labels["kekkai.dev/accelerator"] == CLASS
    assert labels["kekkai.dev/rack"] == machine["spec"]["topology"]["rack"]
    assert labels["topology.kubernetes.io/zone"] == "tokyo"
    assert labels["kubernetes.io/hostname"] == node["metadata"]["name"]
    assert node["status"]["allocatable"]["nvidia.com/gpu"] == "8"
    kinds = {one["type"] for one in machine["status"]["conditions"]}
    assert kinds == {"Ready", "Launched", "Registered", "Initialized", "Drained"}


def test_kubectl_scale_moves_the_floor_and_the_status_counts(world: World) -> None:
    world.apply(pool("scaled", CLASS))
    until("the pool is Ready", lambda: holds(world.get("acceleratorpool", "scaled"), "Ready"))
    world.plane.kubectl("scale", "acceleratorpool/scaled", "--replicas=2")
    ready_machines(world, 2)

    def counted() -> bool:
        status = (world.get("acceleratorpool", "scaled") or {})["status"]
        return status["replicas"] == 2 and status["machines"]["ready"] == 2 and status["devices"] == 16

    until("the status counts two machines", counted)
    world.plane.kubectl("scale", "acceleratorpool/scaled", "--replicas=0")
    until("idle machines go after the delay", lambda: not world.list("node"))


def test_a_machine_whose_node_vanished_is_replaced(world: World) -> None:
    world.apply(pool("vanish", CLASS, minimum=1))
    (machine,) = ready_machines(world, 1)
    world.delete("node", machine["status"]["nodeName"])

    def replaced() -> bool:
        found = world.list("machine")
        return (
            len(found) == 1 and found[0]["metadata"]["uid"] != machine["metadata"]["uid"] and holds(found[0], "Ready")
        )

    until("another machine has taken its place", replaced)


def test_an_instance_without_a_machine_is_collected(world: World) -> None:
    leaked = {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": "leaked-0-abc", "labels": {"kekkai.dev/machine": "leaked-0", "kekkai.dev/pool": "leaked"}},
        "spec": {"providerID": "kwok://tokyo/leaked-0-abc"},
    }
    world.apply(leaked)
    until("the leaked node is gone", lambda: world.get("node", "leaked-0-abc") is None)


def test_a_pool_at_an_unknown_site_says_so_and_makes_nothing(world: World) -> None:
    lost = pool("lost", CLASS, minimum=1)
    lost["spec"]["site"] = "atlantis"
    world.apply(lost)
    found = until(
        "the pool says SiteNotFound",
        lambda: (
            (one := condition(world.get("acceleratorpool", "lost"), "Ready")).get("reason") == "SiteNotFound" and one
        ),
    )
    assert "atlantis" in found["message"]
    assert world.list("machine") == []


def test_drain_honours_disruption_budgets(world: World) -> None:
    world.apply(pool("drained", CLASS, minimum=1))
    (machine,) = ready_machines(world, 1)
    name, node = machine["metadata"]["name"], machine["status"]["nodeName"]
    budget = {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": "keep", "namespace": "default"},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "kept"}}},
    }
    kept = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "kept", "namespace": "default", "labels": {"app": "kept"}},
        "spec": {"nodeName": node, "containers": [{"name": "c", "image": "registry.example/c:1"}]},
    }
    world.apply(budget, kept)

    def counted() -> bool:
        status = (world.get("pdb", "keep", "default") or {}).get("status") or {}
        return status.get("currentHealthy") == 1

    until("the budget counts the pod", counted)
    world.delete("machine", name)
    until(
        "the drain is held back",
        lambda: condition(world.get("machine", name), "Drained").get("reason") == "EvictionBlocked",
    )
    assert world.get("pod", "kept", "default") is not None
    world.delete("pdb", "keep", "default")
    until("the node is gone", lambda: world.get("node", node) is None)
    until("the pod is gone", lambda: world.get("pod", "kept", "default") is None)


def test_a_restart_while_machines_come_makes_no_machine_twice(world: World, operators: Operators) -> None:
    world.apply(pool("restarted", CLASS, minimum=4))
    until("the first machine is written", lambda: world.list("machine"))
    operators.kill()
    operators.start()
    ready_machines(world, 4)
    assert len(world.list("machine")) == 4
    assert len(world.list("node")) == 4
    assert {one["apiVersion"] for one in world.list("machine")} == {API}
