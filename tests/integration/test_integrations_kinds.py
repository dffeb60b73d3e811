"""Kinds of others through the real API server, Job controller and kube-scheduler.

Their own controllers are not on this machine: where one is needed the test does what it
does, under its service account. Its CRD is made when the operators run already, so each
kind is also found without a restart.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from local.controlplane import ControlPlane
from tests.integration.operators_harness import Operators, World, condition, holds, pod_template, pool, site, until

CLASS, TENANT = "H100", "kinds-test"
KINDS = Path(__file__).parent / "kinds"
Obj = dict[str, Any]
pytestmark = pytest.mark.campaign
JOBSET = "system:serviceaccount:jobset-system:jobset-controller-manager"
KUBERAY = "system:serviceaccount:ray-system:kuberay-operator"
TRAINER = "system:serviceaccount:kubeflow-system:kubeflow-trainer-controller-manager"


class Patient(World):
    """Admission policies that change objects learn of a new CRD some seconds after it is served (503 until then)."""

    acting: tuple[str, ...] = ()
    operators: Operators

    def apply(self, *objects: Obj) -> None:
        def send() -> bool:
            text = yaml.safe_dump_all(objects)
            done = self.plane.kubectl("apply", "-f", "-", *self.acting, stdin=text, check=False)
            assert done.returncode == 0 or "ServiceUnavailable" in done.stderr, done.stderr
            return done.returncode == 0

        until("it is applied", send)


class Account(Patient):
    """Writes as a controller's service account."""

    def __init__(self, plane: ControlPlane, user: str) -> None:
        super().__init__(plane)
        self.acting = (f"--as={user}", "--as-group=system:masters")

    def status(self, kind: str, name: str, status: str) -> None:
        patch = ("--subresource=status", "--type=merge", "-p", f'{{"status":{status}}}')
        self.plane.kubectl("patch", kind, name, "-n", TENANT, *patch, *self.acting)


@pytest.fixture(scope="module")
def world(installed: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    operators = Operators(installed, Path(tmp_path_factory.mktemp("operators")) / "operators.log")
    operators.start()
    one = Patient(installed)
    one.operators = operators
    one.apply(site(), pool("kinds", CLASS, maximum=4, delay=30))
    one.tenant_with_namespace(TENANT, CLASS, 32)
    for file in sorted(KINDS.glob("*.yaml")):
        documents = list(yaml.safe_load_all(file.read_text()))
        one.apply(*documents)
        for doc in documents:
            installed.kubectl("wait", "--for=condition=Established", f"crd/{doc['metadata']['name']}", "--timeout=60s")
    yield one
    one.delete("tenant", TENANT)
    one.delete("acceleratorpool", "kinds")
    until("nodes and machines are gone", lambda: not one.list("node") and not one.list("machine"))
    until("the tenant's namespace is gone", lambda: one.get("namespace", TENANT) is None)
    assert operators.stop() == 0, operators.log()[-2000:]
    text = operators.log()
    assert "Traceback" not in text, text[text.index("Traceback") :][:4000]


def made(api: str, kind: str, name: str, spec: Obj, owner: Obj | None = None, **meta: Any) -> Obj:
    out: Obj = {"apiVersion": api, "kind": kind, "metadata": {"name": name, "namespace": TENANT, **meta}, "spec": spec}
    if owner is not None:
        its = owner["metadata"]
        ref = {"apiVersion": owner["apiVersion"], "kind": owner["kind"], "name": its["name"], "uid": its["uid"]}
        out["metadata"]["ownerReferences"] = [{**ref, "controller": True}]
    return out


def pod_from(template: Obj, name: str, owner: Obj | None = None, **meta: Any) -> Obj:
    annotations = template["metadata"]["annotations"] | meta.pop("annotations", {})
    return made("v1", "Pod", name, copy.deepcopy(template["spec"]), owner, annotations=annotations, **meta)


def shadow(world: World, kind: str, name: str) -> Obj | None:
    found = [
        one
        for one in world.list("kwl", TENANT)
        if (one["spec"].get("ref") or {}).get("kind") == kind and one["spec"]["ref"]["name"] == name
    ]
    return found[0] if len(found) == 1 else None


def admitted(world: World, kind: str, name: str) -> Obj:
    def read() -> Obj | None:
        one = shadow(world, kind, name)
        return one if holds(one, "Admitted") else None

    return until(f"{kind} {name} is admitted", read, state=lambda: world.describe(TENANT))


def finished(world: World, kind: str, name: str) -> Obj:
    def read() -> Obj | None:
        one = shadow(world, kind, name)
        return one if holds(one, "Finished") else None

    return until(f"{kind} {name} is finished", read, state=lambda: world.describe(TENANT))


def running(world: World, *names: str) -> None:
    def read() -> bool:
        phases = {p["metadata"]["name"]: p["status"]["phase"] for p in world.list("pod", TENANT)}
        return all(phases.get(name) in {"Running", "Succeeded"} for name in names)

    until(f"{', '.join(names)} run", read, state=lambda: world.describe(TENANT))


def get(world: World, kind: str, name: str) -> Obj:
    found = world.get(kind, name, TENANT)
    assert found is not None, (kind, name)
    return found


def remove(world: World, kind: str, name: str) -> None:
    world.delete(kind, name, TENANT)
    until("no shadow is left", lambda: not world.list("kwl", TENANT), state=lambda: world.describe(TENANT))
    until("no pod is left", lambda: not world.list("pod", TENANT), state=lambda: world.describe(TENANT))


def replicated_job(jobset: Obj, replicated: Obj, index: int) -> Obj:
    """A child as the JobSet controller makes it."""
    marks = {"jobset.sigs.k8s.io/replicatedjob-name": replicated["name"], "jobset.sigs.k8s.io/job-index": str(index)}
    spec = copy.deepcopy(replicated["template"]["spec"])
    spec["suspend"] = bool(jobset["spec"].get("suspend"))
    spec["template"]["metadata"]["labels"] = marks
    name = f"{jobset['metadata']['name']}-{replicated['name']}-{index}"
    return made("batch/v1", "Job", name, spec, jobset, labels=marks)


def jobset(name: str, run_seconds: int) -> Obj:
    workers = {"parallelism": 2, "completions": 2, "completionMode": "Indexed"}
    return made(
        "jobset.x-k8s.io/v1alpha2",
        "JobSet",
        name,
        {
            "replicatedJobs": [
                {"name": "driver", "template": {"spec": {"template": pod_template(CLASS, 2, run_seconds)}}},
                {
                    "name": "workers",
                    "replicas": 2,
                    "template": {"spec": {**workers, "template": pod_template(CLASS, 4, run_seconds)}},
                },
            ]
        },
        annotations={"kekkai.dev/preemptible": "false"},
    )


def make_children(world: World, name: str) -> Account:
    account, one = Account(world.plane, JOBSET), get(world, "jobset", name)
    driver, workers = one["spec"]["replicatedJobs"]
    account.apply(replicated_job(one, driver, 0), *(replicated_job(one, workers, index) for index in range(2)))
    return account


def test_a_jobset_starts_whole_where_it_was_admitted_and_its_jobs_have_no_shadows(world: World) -> None:
    world.apply(jobset("set", 3))
    done = admitted(world, "JobSet", "set")
    assert {one["name"]: one["count"] for one in done["spec"]["podSets"]} == {"driver": 1, "workers": 4}
    assert done["spec"]["preemptible"] is False
    until("it is unsuspended", lambda: get(world, "jobset", "set")["spec"].get("suspend") is False)
    account = make_children(world, "set")
    until("its pods end", lambda: [p["status"]["phase"] for p in world.list("pod", TENANT)] == ["Succeeded"] * 5)
    assert len(world.list("kwl", TENANT)) == 1
    places = {(p["podSet"], p["node"]) for p in done["status"]["admission"]["placements"]}
    for pod in world.list("pod", TENANT):
        its_set = pod["metadata"]["labels"]["jobset.sigs.k8s.io/replicatedjob-name"]
        assert (its_set, pod["spec"]["nodeName"]) in places
    ended = '{"conditions":[{"type":"Completed","status":"True","reason":"AllJobsCompleted","message":""}]}'
    account.status("jobset", "set", ended)
    assert holds(finished(world, "JobSet", "set"), "Ready")
    remove(world, "jobset", "set")


def test_a_jobset_that_is_stopped_is_suspended_and_gives_its_room_back(world: World) -> None:
    world.apply(jobset("stopped", 600))
    name = admitted(world, "JobSet", "stopped")["metadata"]["name"]
    account = make_children(world, "stopped")
    running(world, *(p["metadata"]["name"] for p in until("pods", lambda: world.list("pod", TENANT))))
    world.plane.kubectl("patch", "kwl", name, "-n", TENANT, "--type=merge", "-p", '{"spec":{"active":false}}')
    until("it is suspended", lambda: get(world, "jobset", "stopped")["spec"]["suspend"] is True)
    for job in world.list("job", TENANT):  # as the JobSet controller does
        account.apply(
            made(
                "batch/v1",
                "Job",
                job["metadata"]["name"],
                {**job["spec"], "suspend": True},
                get(world, "jobset", "stopped"),
            )
        )
    until(
        "its admission is cleared",
        lambda: "admission" not in (shadow(world, "JobSet", "stopped") or {"status": {"admission": 1}})["status"],
        state=lambda: world.describe(TENANT),
    )
    remove(world, "jobset", "stopped")


def test_a_restart_knows_the_kinds_from_the_start_and_goes_on_with_what_runs(world: Patient) -> None:
    world.apply(jobset("kept", 6))
    placed = admitted(world, "JobSet", "kept")["status"]["admission"]
    world.operators.kill()
    account = make_children(world, "kept")
    world.operators.start()
    until("its pods end", lambda: [p["status"]["phase"] for p in world.list("pod", TENANT)] == ["Succeeded"] * 5)
    ended = '{"conditions":[{"type":"Completed","status":"True","reason":"AllJobsCompleted","message":""}]}'
    account.status("jobset", "kept", ended)
    done = finished(world, "JobSet", "kept")
    assert done["status"]["admission"] == placed
    assert not holds(done, "Evicted")
    remove(world, "jobset", "kept")


def test_nobody_but_the_queue_unsuspends(world: World) -> None:
    world.apply(jobset("held", 1) | {"spec": {**jobset("held", 1)["spec"], "suspend": False}})
    owner = world.plane.kubeconfig_for(TENANT)
    patch = ("patch", "jobset", "held", "-n", TENANT, "--type=merge", "-p")
    world.plane.kubectl(*patch, '{"metadata":{"labels":{"kekkai.dev/priority":"5"}}}', user=owner)
    name = admitted(world, "JobSet", "held")["metadata"]["name"]
    world.plane.kubectl("patch", "kwl", name, "-n", TENANT, "--type=merge", "-p", '{"spec":{"active":false}}')
    until("it is suspended", lambda: get(world, "jobset", "held")["spec"]["suspend"] is True)
    done = world.plane.kubectl(*patch, '{"spec":{"suspend":false}}', user=owner, check=False)
    assert done.returncode != 0
    assert "spec.suspend: only the queue starts" in done.stderr
    remove(world, "jobset", "held")


def test_a_ray_job_waits_for_its_cluster_and_its_submitter(world: World) -> None:
    head, worker = pod_template(CLASS, 0, 600), pod_template(CLASS, 8, 600)
    spec = {
        "shutdownAfterJobFinishes": True,
        "entrypoint": "python train.py",
        "rayClusterSpec": {
            "headGroupSpec": {"template": head},
            "workerGroupSpecs": [{"groupName": "gpu", "replicas": 2, "template": worker}],
        },
        "submitterPodTemplate": pod_template(CLASS, 0, 1),
    }
    world.apply(made("ray.io/v1", "RayJob", "ray", spec))
    done = admitted(world, "RayJob", "ray")
    assert {one["name"]: one["count"] for one in done["spec"]["podSets"]} == {"gpu": 2, "head": 1, "submitter": 1}
    until("it is unsuspended", lambda: get(world, "rayjob", "ray")["spec"].get("suspend") is False)
    account = Account(world.plane, KUBERAY)
    account.apply(made("ray.io/v1", "RayCluster", "ray-c", spec["rayClusterSpec"], get(world, "rayjob", "ray")))
    cluster = get(world, "raycluster", "ray-c")
    assert not cluster["spec"].get("suspend"), "it is part of the RayJob"
    labels = {"ray.io/node-type": "worker", "ray.io/group": "gpu"}
    account.apply(
        pod_from(head, "ray-head", cluster, labels={"ray.io/node-type": "head"}),
        *(pod_from(worker, f"ray-worker-{n}", cluster, labels=labels) for n in range(2)),
        made("batch/v1", "Job", "ray", {"template": pod_template(CLASS, 0, 1)}, get(world, "rayjob", "ray")),
    )
    running(world, "ray-head", "ray-worker-0", "ray-worker-1")
    until("the submitter has ended", lambda: (get(world, "job", "ray").get("status") or {}).get("succeeded") == 1)
    assert len(world.list("kwl", TENANT)) == 1
    account.status("rayjob", "ray", '{"jobDeploymentStatus":"Complete","jobStatus":"SUCCEEDED"}')
    assert holds(finished(world, "RayJob", "ray"), "Ready")
    remove(world, "rayjob", "ray")


def test_a_train_job_is_queued_by_the_jobset_that_it_makes(world: World) -> None:
    world.apply(made("trainer.kubeflow.org/v1alpha1", "TrainJob", "train", {"runtimeRef": {"name": "torch"}}))
    until(
        "it waits for its JobSet",
        lambda: condition(shadow(world, "TrainJob", "train"), "Admitted").get("reason") == "NothingToRun",
    )
    one = get(world, "trainjob", "train")
    assert one["spec"]["suspend"] is True
    nodes = {"name": "node", "template": {"spec": {"template": pod_template(CLASS, 8, 2)}}}
    inner = {"suspend": True, "replicatedJobs": [nodes]}
    trainer = Account(world.plane, TRAINER)
    trainer.apply(made("jobset.x-k8s.io/v1alpha2", "JobSet", "train", inner, one))
    assert admitted(world, "TrainJob", "train")["spec"]["podSets"][0]["name"] == "node"
    until("it is unsuspended", lambda: get(world, "trainjob", "train")["spec"].get("suspend") is False)
    trainer.apply(made("jobset.x-k8s.io/v1alpha2", "JobSet", "train", {**inner, "suspend": False}, one))
    its_set = get(world, "jobset", "train")
    Account(world.plane, JOBSET).apply(replicated_job(its_set, nodes, 0))
    until("its pod ends", lambda: [p["status"]["phase"] for p in world.list("pod", TENANT)] == ["Succeeded"])
    assert len(world.list("kwl", TENANT)) == 1
    trainer.status("trainjob", "train", '{"conditions":[{"type":"Complete","status":"True","reason":"JobsCompleted"}]}')
    assert holds(finished(world, "TrainJob", "train"), "Ready")
    remove(world, "trainjob", "train")


def test_a_leader_worker_set_runs_whole_and_its_pods_come_again_within_the_admission(world: World) -> None:
    template = pod_template(CLASS, 4, 600)
    template["spec"]["restartPolicy"] = "Always"
    spec = {"replicas": 1, "leaderWorkerTemplate": {"size": 3, "workerTemplate": template}}
    world.apply(made("leaderworkerset.x-k8s.io/v1", "LeaderWorkerSet", "lws", spec))
    done = admitted(world, "LeaderWorkerSet", "lws")
    assert {one["name"]: one["count"] for one in done["spec"]["podSets"]} == {"leader": 1, "worker": 2}
    name, index = "leaderworkerset.sigs.k8s.io/name", "leaderworkerset.sigs.k8s.io/worker-index"

    def stateful(of: str, start: int, count: int, owner: Obj) -> Obj:
        marks = {name: "lws", "set": of, **({index: "0"} if not start else {})}
        body = copy.deepcopy(template)
        body["metadata"]["labels"] = marks
        ordinals = {
            "ordinals": {"start": start},
            "replicas": count,
            "podManagementPolicy": "Parallel",
            "serviceName": "x",
        }
        selector = {"selector": {"matchLabels": {"set": of}}}
        return made("apps/v1", "StatefulSet", of, {**ordinals, **selector, "template": body}, owner)

    account = Account(world.plane, "system:serviceaccount:lws-system:lws-controller-manager")
    account.apply(stateful("lws", 0, 1, get(world, "leaderworkerset", "lws")))
    running(world, "lws-0")
    workers = stateful("lws-0", 1, 2, get(world, "pod", "lws-0"))
    workers["spec"]["template"]["metadata"]["labels"][index] = "1"
    account.apply(workers)
    running(world, "lws-0", "lws-0-1", "lws-0-2")
    until("all are ready", lambda: holds(shadow(world, "LeaderWorkerSet", "lws"), "PodsReady"))
    before = get(world, "pod", "lws-0-2")
    world.delete("pod", "lws-0-2", TENANT)

    def again() -> bool:
        now = world.get("pod", "lws-0-2", TENANT)
        return (
            now is not None
            and now["metadata"]["uid"] != before["metadata"]["uid"]
            and now["status"]["phase"] == "Running"
        )

    until("it comes again", again, state=lambda: world.describe(TENANT))
    assert len(world.list("kwl", TENANT)) == 1
    world.delete("leaderworkerset", "lws", TENANT)
    remove(world, "statefulset", "lws")


def test_pods_of_a_group_start_together_or_wait(world: World) -> None:
    def one(name: str, devices: int = 8) -> Obj:
        template = pod_template(CLASS, devices, 3)
        return pod_from(
            template, name, labels={"kekkai.dev/pod-group": "gang"}, annotations={"kekkai.dev/pod-group-count": "3"}
        )

    world.apply(one("g-0"), one("g-1"))
    until(
        "the group waits for its third pod",
        lambda: condition(shadow(world, "LabelledPods", "gang"), "Admitted").get("reason") == "GroupIncomplete",
        state=lambda: world.describe(TENANT),
    )
    assert all(p["spec"].get("schedulingGates") for p in world.list("pod", TENANT))
    world.apply(one("g-2", 4))
    done = finished(world, "LabelledPods", "gang")
    assert sorted(one["count"] for one in done["spec"]["podSets"]) == [1, 2]
    assert {p["status"]["phase"] for p in world.list("pod", TENANT)} == {"Succeeded"}
    remove(world, "pods", "--all")


def test_a_plain_pod_with_devices_is_queued_and_deleted_when_it_is_stopped(world: World) -> None:
    free = pod_from(pod_template(CLASS, 0, 600), "free")
    del free["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"]
    world.apply(pod_from(pod_template(CLASS, 8, 600), "alone"), free)
    running(world, "alone")
    name = admitted(world, "Pod", "alone")["metadata"]["name"]
    assert shadow(world, "Pod", "free") is None
    world.plane.kubectl("patch", "kwl", name, "-n", TENANT, "--type=merge", "-p", '{"spec":{"active":false}}')
    until("it is deleted", lambda: world.get("pod", "alone", TENANT) is None)
    remove(world, "pods", "--all")
