"""A Workload of another controller on a real API server: admitted by one write, evicted, reported, never forged."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from local.controlplane import ControlPlane
from tests.integration.operators_harness import API, Operators, World, condition, holds, pool, site, until

CLASS, TENANT = "H800", "foreign-test"
CONTROLLER = "flow-controller"
NAMED = {"name": "flow", "namespace": TENANT}


@pytest.fixture(scope="module")
def world(installed: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    operators = Operators(installed, Path(tmp_path_factory.mktemp("operators")) / "operators.log")
    operators.start()
    one = World(installed)
    one.apply(site(), pool("foreign", CLASS, maximum=2, delay=3))
    one.tenant_with_namespace(TENANT, CLASS, 8)
    subject = {"kind": "User", "name": CONTROLLER, "apiGroup": "rbac.authorization.k8s.io"}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "kekkai-external-controller"}
    binding = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding"}
    one.apply({**binding, "metadata": {"name": CONTROLLER}, "roleRef": role, "subjects": [subject]})
    yield one
    one.delete("clusterrolebinding", CONTROLLER)
    one.delete("tenant", TENANT)
    one.delete("acceleratorpool", "foreign")
    until("nodes and machines are gone", lambda: not one.list("node") and not one.list("machine"))
    until("the tenant's namespace is gone", lambda: one.get("namespace", TENANT) is None)
    assert operators.stop() == 0, operators.log()[-2000:]


def flow(**spec: Any) -> dict[str, Any]:
    ref = {"apiVersion": "flows.example/v1", "kind": "Flow", "name": "flow", "uid": "1"}
    sets = [{"name": "main", "count": 2, "requests": {"cpu": "1", "nvidia.com/gpu": "4"}}]
    said = {"ref": ref, "tenant": TENANT, "podSets": sets, **spec}
    return {"apiVersion": API, "kind": "Workload", "metadata": NAMED, "spec": said}


def send(world: World, user: str, *args: str, body: dict[str, Any] | None = None) -> str:
    """kubectl as this user; what it said when it was refused, "" when it was not."""
    stdin = json.dumps(body) if body is not None else None
    done = world.plane.kubectl(*args, user=world.plane.kubeconfig_for(user), stdin=stdin, check=False)
    return done.stderr if done.returncode else ""


def report(world: World, user: str, kind: str, status: str, reason: str) -> str:
    found = world.get("kwl", "flow", TENANT)
    assert found is not None
    said = {"type": kind, "status": status, "reason": reason, "lastTransitionTime": "2026-01-01T00:00:00Z"}
    kept = [one for one in found["status"]["conditions"] if one["type"] != kind]
    patch = json.dumps({"status": {"conditions": [*kept, said]}})
    return send(world, user, "patch", "kwl", "flow", "-n", TENANT, "--subresource=status", "--type=merge", "-p", patch)


def admission(world: World) -> dict[str, Any] | None:
    found = world.get("kwl", "flow", TENANT) or {}
    return (found.get("status") or {}).get("admission")


def test_it_is_admitted_evicted_and_ended_by_the_word_of_its_controller(world: World) -> None:
    assert "spec.ref is written by the operator" in send(world, TENANT, "create", "-f", "-", body=flow())
    assert "spec.tenant" in send(world, CONTROLLER, "create", "-f", "-", body=flow(tenant="another"))
    assert send(world, CONTROLLER, "create", "-f", "-", body=flow()) == ""
    first = until("it is admitted", lambda: admission(world))
    assert sum(one["count"] for one in first["placements"]) == 2

    assert "admission" in str(world.get("kwl", "flow", TENANT))
    forged = json.dumps({"status": {"admission": {**first, "placements": []}}})
    patch = ("patch", "kwl", "flow", "-n", TENANT, "--subresource=status", "--type=merge", "-p", forged)
    assert "but for the conditions Finished and PodsReady" in send(world, CONTROLLER, *patch)
    assert "is forbidden" in send(world, TENANT, *patch)

    world.plane.kubectl("patch", "kwl", "flow", "-n", TENANT, "--type=merge", "-p", '{"spec":{"active":false}}')
    until("it is evicted", lambda: holds(world.get("kwl", "flow", TENANT), "Evicted"))
    assert admission(world) == first, "its room is kept until its controller has stopped it"
    assert report(world, CONTROLLER, "PodsReady", "False", "Stopped") == ""
    until("its admission is taken back", lambda: admission(world) is None)

    world.plane.kubectl("patch", "kwl", "flow", "-n", TENANT, "--type=merge", "-p", '{"spec":{"active":true}}')
    until("it is admitted again", lambda: admission(world))
    assert not holds(world.get("kwl", "flow", TENANT), "Evicted")
    assert report(world, CONTROLLER, "Finished", "True", "Succeeded") == ""
    used = until("its quota is free", lambda: _usage(world))
    assert used[0]["used"] == 0
    assert condition(world.get("kwl", "flow", TENANT), "Finished")["reason"] == "Succeeded"
    assert "Finished stay so" in report(world, CONTROLLER, "Finished", "False", "Again")


def _usage(world: World) -> list[dict[str, Any]] | None:
    found = (world.get("tenant", TENANT) or {}).get("status", {}).get("usage") or []
    return found if found and found[0]["used"] == 0 else None
