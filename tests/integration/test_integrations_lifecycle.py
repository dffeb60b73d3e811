"""Time limits, put-backs, partial admission and admission checks, with the real Job controller and kube-scheduler."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from local.controlplane import ControlPlane
from scheduler import (
    ClassQuota,
    Fleet,
    MachineState,
    Memory,
    NodeState,
    PodSet,
    PoolState,
    TenantState,
    WorkloadState,
    plan,
)
from tests.integration.operators_harness import Operators, World, condition, holds, job, pool, site, until

CLASS, TENANT = "H100", "lifecycle-test"
KINDS = Path(__file__).parent / "kinds"
Obj = dict[str, Any]
pytestmark = pytest.mark.campaign
NOW = "2026-01-01T00:00:00Z"


@pytest.fixture(scope="module")
def base(installed: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    operators = Operators(installed, Path(tmp_path_factory.mktemp("operators")) / "operators.log")
    operators.start()
    one = World(installed)
    one.apply(*yaml.safe_load_all((KINDS / "provisioningrequest.yaml").read_text()))
    one.apply(site(), pool("lifecycle", CLASS, minimum=4, maximum=4, delay=30))
    one.tenant_with_namespace(TENANT, CLASS, 64)
    yield one
    one.delete("tenant", TENANT)
    one.delete("acceleratorpool", "lifecycle")
    until("nodes and machines are gone", lambda: not one.list("node") and not one.list("machine"))
    until("the tenant's namespace is gone", lambda: one.get("namespace", TENANT) is None)
    assert operators.stop() == 0, operators.log()[-2000:]
    text = operators.log()
    assert "Traceback" not in text, text[text.index("Traceback") :][:4000]


@pytest.fixture
def world(base: World) -> Iterator[World]:
    yield base
    for one in base.list("job", TENANT):
        base.delete("job", one["metadata"]["name"], TENANT)
    for kind in ("kwl", "job", "pod"):
        until(f"no {kind} is left", lambda kind=kind: not base.list(kind, TENANT))


def annotated(name: str, run_seconds: int = 1, pods: int = 1, **annotations: str) -> Obj:
    one = job(name, TENANT, CLASS, pods=pods, run_seconds=run_seconds)
    one["metadata"]["annotations"] = {f"kekkai.dev/{key.replace('_', '-')}": text for key, text in annotations.items()}
    return one


def reaches(world: World, name: str, what: str, read: Any) -> Obj:
    def found() -> Obj | None:
        one = world.workload_of(TENANT, name)
        return one if one is not None and read({"status": {}, **one}) else None

    return until(f"{name}: {what}", found, state=lambda: world.describe(TENANT))


def waits(world: World, name: str, code: str) -> Obj:
    return reaches(world, name, f"waits for {code}", lambda one: condition(one, "Admitted").get("reason") == code)


def running(world: World, count: int) -> None:
    def read() -> bool:
        return [p["status"]["phase"] for p in world.list("pod", TENANT)] == ["Running"] * count

    until(f"{count} pods run", read, state=lambda: world.describe(TENANT))


def patch(world: World, name: str, spec: Obj) -> None:
    workload = (world.workload_of(TENANT, name) or {})["metadata"]["name"]
    change = json.dumps({"spec": spec})
    world.plane.kubectl("patch", "kwl", workload, "-n", TENANT, "--type=merge", "-p", change)


def test_pods_that_do_not_become_ready_are_put_back_and_in_the_end_left_out(world: World) -> None:
    one = annotated("stuck", pods_ready_timeout_seconds="2")
    one["spec"]["template"]["spec"]["schedulingGates"] = [{"name": "example.com/held"}]
    world.apply(one)
    first = reaches(world, "stuck", "is put back", lambda one: (one["status"].get("requeue") or {}).get("count") == 1)
    assert condition(first, "Evicted")["reason"] == "PodsReadyTimeout"
    reaches(world, "stuck", "gives its room back", lambda one: "admission" not in one["status"])
    assert (world.get("job", "stuck", TENANT) or {})["spec"]["suspend"] is True
    waits(world, "stuck", "PutBack")
    patch(world, "stuck", {"podsReady": {"backoffLimit": 0}})
    waits(world, "stuck", "RequeueLimitExceeded")
    patch(world, "stuck", {"active": False})
    reaches(world, "stuck", "forgets the count", lambda one: "requeue" not in one["status"])


def test_a_run_over_its_limit_is_stopped_for_good(world: World) -> None:
    world.apply(annotated("long", run_seconds=600, maximum_runtime_seconds="4"))
    running(world, 1)
    over = waits(world, "long", "MaximumRuntimeExceeded")
    assert over["status"]["pastRuntimeSeconds"] >= 4
    assert "admission" not in over["status"]
    until("its pod is gone", lambda: not world.list("pod", TENANT))
    assert (world.get("job", "long", TENANT) or {})["spec"]["suspend"] is True


def _planner_admits_in_part() -> bool:
    """Whether `plan` starts a gang of two, of which one may do, on the one node that there is."""
    fleet = Fleet()
    node = {"cpu": 8000, "nvidia.com/gpu": 8, "pods": 110}
    fleet.upsert_tenant(TenantState("t", quota={CLASS: ClassQuota(64)}))
    fleet.upsert_pool(PoolState("p", "s", "JP", CLASS, "nvidia.com/gpu", 8, node, 1, 1))
    fleet.upsert_machine(MachineState("m", "p", "n"))
    fleet.upsert_node(NodeState("n", pool="p", machine="m", site="s", accelerator=CLASS, allocatable=node))
    pods = (PodSet("main", 2, {"nvidia.com/gpu": 8}, min_count=1),)
    fleet.upsert_workload(WorkloadState("a/w", "u", "t", 1.0, pods))
    return bool(plan(fleet, Memory(), 2.0)[0].admissions)


@pytest.mark.skipif(not _planner_admits_in_part(), reason="the planner does not admit in part")
def test_a_job_that_may_start_with_fewer_pods_does_and_gets_its_own_back(world: World) -> None:
    world.apply(annotated("elastic", run_seconds=600, pods=6, min_count="2"))
    done = reaches(world, "elastic", "is admitted", lambda one: holds(one, "Admitted"))
    placed = sum(one["count"] for one in done["status"]["admission"]["placements"])
    assert 2 <= placed <= 4, "the pool has four nodes at most"
    running(world, placed)
    started = world.get("job", "elastic", TENANT) or {}
    assert started["spec"]["parallelism"] == placed
    assert started["metadata"]["annotations"]["kekkai.dev/full-parallelism"] == "6"
    assert holds(reaches(world, "elastic", "has its pods ready", lambda one: holds(one, "PodsReady")), "Ready")
    patch(world, "elastic", {"active": False})
    reaches(world, "elastic", "gives its room back", lambda one: "admission" not in one["status"])
    stopped = world.get("job", "elastic", TENANT) or {}
    assert (stopped["spec"]["suspend"], stopped["spec"]["parallelism"]) == (True, 6)
    assert "kekkai.dev/full-parallelism" not in stopped["metadata"]["annotations"]


def test_a_check_of_another_controller_lets_it_start_and_takes_its_word_back(world: World) -> None:
    world.apply(annotated("checked", run_seconds=600, admission_checks="budget"))
    name = waits(world, "checked", "CheckPending")["metadata"]["name"]

    def say(state: str) -> None:
        change = {"status": {"admissionChecks": [{"name": "budget", "state": state, "lastTransitionTime": NOW}]}}
        where = ("-n", TENANT, "--subresource=status", "--type=merge", "-p", json.dumps(change))
        world.plane.kubectl("patch", "kwl", name, *where)

    say("Ready")
    running(world, 1)
    say("Rejected")
    stopped = reaches(world, "checked", "gives its room back", lambda one: "admission" not in one["status"])
    assert condition(stopped, "Evicted")["reason"] == "AdmissionCheckRejected"
    waits(world, "checked", "AdmissionCheckRejected")


def test_capacity_is_asked_of_the_autoscaler_and_awaited(world: World) -> None:
    world.apply(annotated("asking", run_seconds=8, pods=2, admission_checks="provisioning-check-capacity"))
    request = until(
        "a ProvisioningRequest is made",
        lambda: next(iter(world.list("provisioningrequest", TENANT)), None),
        state=lambda: world.describe(TENANT),
    )
    assert request["spec"]["provisioningClassName"] == "check-capacity.autoscaling.x-k8s.io"
    (pod_set,) = request["spec"]["podSets"]
    assert pod_set["count"] == 2
    template = world.get("podtemplate", pod_set["podTemplateRef"]["name"], TENANT) or {}
    (container,) = template["template"]["spec"]["containers"]
    assert container["resources"]["limits"] == {"nvidia.com/gpu": "8"}
    assert not holds(world.workload_of(TENANT, "asking"), "Admitted")
    ready = {
        "type": "Provisioned",
        "status": "True",
        "reason": "Found",
        "message": "2 nodes",
        "lastTransitionTime": NOW,
    }
    change = json.dumps({"status": {"conditions": [ready]}})
    where = ("-n", TENANT, "--subresource=status", "--type=merge", "-p", change)
    world.plane.kubectl("patch", "provisioningrequest", request["metadata"]["name"], *where)
    running(world, 2)
    consumes = "autoscaling.x-k8s.io/consume-provisioning-request"
    for one in world.list("pod", TENANT):
        assert one["metadata"]["annotations"][consumes] == request["metadata"]["name"]
    done = reaches(world, "asking", "is finished", lambda one: holds(one, "Finished"))
    assert holds(done, "Ready")
    until("the request is gone", lambda: not world.list("provisioningrequest", TENANT))
