"""The workloads operator on a real API server, with the real Job controller and kube-scheduler."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from local.controlplane import ControlPlane
from tests.integration.operators_harness import (
    API,
    Operators,
    World,
    condition,
    holds,
    job,
    pod_template,
    pool,
    site,
    until,
)

CLASS = "H100"
TENANT = "queue-test"


@pytest.fixture(scope="module")
def operators(installed: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operators]:
    one = Operators(installed, Path(tmp_path_factory.mktemp("operators")) / "operators.log")
    one.start()
    yield one
    world = World(installed)
    world.delete("tenant", TENANT)
    world.delete("acceleratorpool", "queue")
    until("nodes and machines are gone", lambda: not world.list("node") and not world.list("machine"))
    until("the tenant's namespace is gone", lambda: world.get("namespace", TENANT) is None)
    assert one.stop() == 0, one.log()[-2000:]


@pytest.fixture(scope="module")
def base(installed: ControlPlane, operators: Operators) -> World:
    one = World(installed)
    one.apply(site(), pool("queue", CLASS, maximum=4, delay=3))
    one.tenant_with_namespace(TENANT, CLASS, 32)
    return one


@pytest.fixture
def world(base: World) -> Iterator[World]:
    yield base
    for kind in ("kwl", "job"):
        for one in base.list(kind, TENANT):
            base.delete(kind, one["metadata"]["name"], TENANT)
    for kind in ("kwl", "job", "pod"):
        until(f"no {kind} is left", lambda kind=kind: not base.list(kind, TENANT))


def finished(world: World, name: str) -> dict:
    def read() -> dict | None:
        one = world.workload_of(TENANT, name)
        return one if holds(one, "Finished") else None

    return until(f"Job {name} is Finished", read, state=lambda: world.describe(TENANT))


def running(world: World, count: int) -> list[dict]:
    def read() -> list[dict] | None:
        found = [one for one in world.list("pod", TENANT) if one["status"]["phase"] == "Running"]
        return found if len(found) == count else None

    return until(f"{count} pods run", read, state=lambda: world.describe(TENANT))


def test_a_gang_scales_the_pool_from_zero_runs_where_it_was_admitted_and_the_nodes_go(world: World) -> None:
    until("the pool is empty", lambda: not world.list("node"))
    world.apply(job("gang", TENANT, CLASS, pods=4, run_seconds=3))
    done = finished(world, "gang")
    pods = world.list("pod", TENANT)
    placements = done["status"]["admission"]["placements"]
    nodes = [p["node"] for p in placements]
    assert len(set(nodes)) == 4
    by_rank = {p["metadata"]["labels"]["batch.kubernetes.io/job-completion-index"]: p["spec"]["nodeName"] for p in pods}
    assert [by_rank[str(rank)] for rank in range(4)] == nodes
    assert holds(done, "Ready")
    assert {c["type"] for c in done["status"]["conditions"]} == {
        "Ready",
        "Admitted",
        "PodsReady",
        "Finished",
        "Evicted",
    }
    until("the nodes go away", lambda: not world.list("node"))


def test_beyond_quota_it_waits_with_a_reason_then_runs(world: World) -> None:
    world.apply(*(job(f"wait-{n}", TENANT, CLASS, pods=4, run_seconds=10) for n in range(2)))

    def waits() -> bool:
        found = world.list("kwl", TENANT)
        codes = [one["status"]["reasons"][0]["code"] for one in found if one.get("status", {}).get("reasons")]
        return "QuotaExceeded" in codes

    until("one waits for quota", waits)
    for n in range(2):
        assert holds(finished(world, f"wait-{n}"), "Ready")

    def told() -> bool:
        status = (world.get("tenant", TENANT) or {}).get("status") or {}
        return status.get("pendingWorkloads") == 0 and [one["used"] for one in status.get("usage", [])] == [0]

    until("the tenant's status says that nothing is used", told)


def test_an_operator_killed_at_random_moments_ends_with_each_job_run_once(world: World, operators: Operators) -> None:
    dice = random.Random(20261124)
    world.apply(*(job(f"kill-{n}", TENANT, CLASS, pods=2, devices=4, run_seconds=1) for n in range(6)))
    for _ in range(4):
        moment = dice.uniform(0.3, 2.5)
        until("the moment has come", _after(moment))
        operators.kill()
        operators.start()
    for n in range(6):
        finished(world, f"kill-{n}")
    assert len(world.list("kwl", TENANT)) == 6
    for one in world.list("job", TENANT):
        assert one["status"]["succeeded"] == 2
    pods = world.list("pod", TENANT)
    assert len(pods) == 12
    assert {one["status"]["phase"] for one in pods} == {"Succeeded"}


def _after(seconds: float):
    import time

    due = time.monotonic() + seconds
    return lambda: time.monotonic() >= due


def test_a_deleted_job_leaves_nothing(world: World) -> None:
    world.apply(job("deleted", TENANT, CLASS, pods=2, run_seconds=600))
    running(world, 2)
    world.delete("job", "deleted", TENANT)
    for kind in ("job", "kwl", "pod"):
        until(f"no {kind} is left", lambda kind=kind: not world.list(kind, TENANT))
    until("the nodes go away", lambda: not world.list("node"))


def test_a_workload_carries_its_own_job(world: World) -> None:
    spec = {"parallelism": 1, "completions": 1, "template": pod_template(CLASS, 8, 1)}
    world.apply(
        {
            "apiVersion": API,
            "kind": "Workload",
            "metadata": {"name": "carried", "namespace": TENANT},
            "spec": {"job": {"spec": spec}, "priority": 7},
        }
    )
    until("it is Finished", lambda: holds(world.get("kwl", "carried", TENANT), "Finished"))
    made = world.get("job", "carried", TENANT)
    assert made is not None
    assert made["metadata"]["labels"]["kekkai.dev/workload"] == "carried"
    assert len(world.list("kwl", TENANT)) == 1, "its Job has no second shadow"
    world.delete("kwl", "carried", TENANT)
    until("its Job is gone", lambda: world.get("job", "carried", TENANT) is None)


def test_active_false_stops_it_and_true_queues_it_again(world: World) -> None:
    world.apply(job("paused", TENANT, CLASS, run_seconds=600))
    running(world, 1)
    name = (world.workload_of(TENANT, "paused") or {})["metadata"]["name"]
    world.plane.kubectl("patch", "kwl", name, "-n", TENANT, "--type=merge", "-p", '{"spec":{"active":false}}')
    until("its pods are gone", lambda: not world.list("pod", TENANT))

    def let_go() -> bool:
        one = world.workload_of(TENANT, "paused")
        return one is not None and "admission" not in one["status"] and not holds(one, "Admitted")

    until("its admission is cleared", let_go)
    assert (world.get("job", "paused", TENANT) or {})["spec"]["suspend"] is True
    assert condition(world.workload_of(TENANT, "paused"), "Evicted")["reason"] == "Inactive"
    world.plane.kubectl("patch", "kwl", name, "-n", TENANT, "--type=merge", "-p", '{"spec":{"active":true}}')
    running(world, 1)


def test_a_lost_node_requeues_the_gang_onto_another(world: World) -> None:
    world.apply(job("lost", TENANT, CLASS, pods=2, run_seconds=8))
    pods = running(world, 2)
    gone = pods[0]["spec"]["nodeName"]
    world.delete("node", gone)
    done = finished(world, "lost")
    nodes = {p["node"] for p in done["status"]["admission"]["placements"]}
    assert gone not in nodes
    assert len(nodes) == 2
    assert holds(done, "Ready")


def test_pods_that_fail_are_made_again_within_the_admission(world: World) -> None:
    world.apply(job("retried", TENANT, CLASS, run_seconds=600))
    (first,) = running(world, 1)
    meta = first["metadata"]
    world.plane.kubectl(
        "patch",
        "pod",
        meta["name"],
        "-n",
        TENANT,
        "--subresource=status",
        "--type=merge",
        "-p",
        '{"status":{"phase":"Failed"}}',
    )

    def again() -> bool:
        found = [p for p in world.list("pod", TENANT) if p["metadata"]["uid"] != meta["uid"]]
        return any(
            p["status"]["phase"] == "Running" and p["spec"]["nodeName"] == first["spec"]["nodeName"] for p in found
        )

    until("another pod runs on the admitted node", again)
    assert not holds(world.workload_of(TENANT, "retried"), "Evicted")


def test_the_owner_can_neither_unsuspend_nor_ungate(world: World) -> None:
    world.apply(job("held", TENANT, CLASS, pods=1, devices=9))
    until("it waits", lambda: condition(world.workload_of(TENANT, "held"), "Admitted").get("status") == "False")
    owner = world.plane.kubeconfig_for(TENANT)
    done = world.plane.kubectl(
        "patch",
        "job",
        "held",
        "-n",
        TENANT,
        "--type=merge",
        "-p",
        '{"spec":{"suspend":false}}',
        user=owner,
        check=False,
    )
    assert done.returncode != 0
    assert "spec.suspend" in done.stderr
    assert (world.get("job", "held", TENANT) or {})["spec"]["suspend"] is True
