"""What the queue reads from each kind of others: pod sets, suspension, end; and how it finds their pods."""

from __future__ import annotations

import copy
from collections import Counter
from typing import Any

import pytest

from crds.labels import POD_GROUP, POD_GROUP_COUNT, SCHEDULING_GATE
from operators.planning.batch_job import BATCH_JOB
from operators.planning.family import Family
from operators.planning.holding import held
from operators.planning.ownership import shadow_name
from operators.planning.queued_kind import QueuedKind
from operators.runtime import RESOURCES, Stores
from operators.workloads.integrations import ALWAYS, WHERE_SERVED
from operators.workloads.integrations.pods import role
from operators.workloads.lifecycle import decide
from operators.workloads.pinning import assign
from operators.workloads.queueing import request
from scheduler.objects.shape import Shape
from tests.unit.workloads.test_workloads_lifecycle import condition, view
from tests.unit.workloads.workload_objects import job, workload

Obj = dict[str, Any]
BY_KIND: dict[str, QueuedKind] = {kind.resource.kind: kind for kind in (*ALWAYS, *WHERE_SERVED)}


def template(devices: int = 2, **spec: Any) -> Obj:
    return {"spec": {"containers": [{"name": "c", "resources": {"limits": {"nvidia.com/gpu": str(devices)}}}], **spec}}


def made(kind: str, name: str, spec: Obj, owner: Obj | None = None, **meta: Any) -> Obj:
    out: Obj = {
        "apiVersion": RESOURCES[kind].api_version,
        "kind": kind,
        "metadata": {"name": name, "namespace": "a", "uid": f"uid-{kind}-{name}", "resourceVersion": "1", **meta},
        "spec": spec,
    }
    if owner is not None:
        its = owner["metadata"]
        reference = {"apiVersion": owner["apiVersion"], "kind": owner["kind"], "name": its["name"], "uid": its["uid"]}
        out["metadata"]["ownerReferences"] = [{**reference, "controller": True}]
    return out


def pod(name: str, owner: Obj | None = None, gated: bool = True, phase: str = "Pending", **meta: Any) -> Obj:
    spec = copy.deepcopy(template()["spec"])
    if gated:
        spec["schedulingGates"] = [{"name": SCHEDULING_GATE}]
    return made("Pod", name, spec, owner, **meta) | {"status": {"phase": phase}}


def jobset(**spec: Any) -> Obj:
    jobs = [
        {"name": "driver", "template": {"spec": {"template": template(1)}}},
        {
            "name": "workers",
            "replicas": 2,
            "template": {"spec": {"parallelism": 3, "completions": 3, "template": template()}},
        },
    ]
    return made("JobSet", "set", {"suspend": True, "replicatedJobs": jobs, **spec})


def cluster(**spec: Any) -> Obj:
    groups = [
        {"groupName": "Small", "replicas": 3, "numOfHosts": 2, "template": template()},
        {"groupName": "none", "replicas": 0, "template": template()},
    ]
    return {"headGroupSpec": {"template": template(0)}, "workerGroupSpecs": groups, **spec}


def rayjob(**spec: Any) -> Obj:
    given = {"suspend": True, "shutdownAfterJobFinishes": True, "rayClusterSpec": cluster(), **spec}
    return made("RayJob", "ray", given)


def lws(replicas: int = 2, size: int = 3) -> Obj:
    return made(
        "LeaderWorkerSet",
        "lws",
        {"replicas": replicas, "leaderWorkerTemplate": {"size": size, "workerTemplate": template()}},
    )


def shape(obj: Obj, *parts: Obj) -> Shape:
    return BY_KIND[obj["kind"]].shape(obj, parts, (), {})


def counts(found: Shape) -> dict[str, int]:
    assert found.refusal is None, found.refusal
    return {one["name"]: one["count"] for one in found.pod_sets}


def test_a_jobset_has_a_pod_set_a_replicated_job() -> None:
    assert counts(shape(jobset())) == {"driver": 1, "workers": 6}
    assert [one["requests"]["nvidia.com/gpu"] for one in shape(jobset()).pod_sets] == ["1", "2"]


def test_a_ray_cluster_has_a_head_and_its_groups_and_a_ray_job_a_submitter_too() -> None:
    assert counts(shape(made("RayCluster", "c", cluster()))) == {"head": 1, "small": 6}
    assert counts(shape(rayjob())) == {"head": 1, "small": 6, "submitter": 1}
    assert counts(shape(rayjob(submissionMode="HTTPMode"))) == {"head": 1, "small": 6}
    limits = shape(rayjob()).pod_sets[2]["requests"]
    assert limits == {"cpu": "500m", "memory": "200Mi"}


def test_a_train_job_has_those_of_the_jobset_that_its_controller_makes() -> None:
    one = made("TrainJob", "train", {"suspend": True, "runtimeRef": {"name": "torch"}})
    refusal = shape(one).refusal
    assert refusal is not None
    assert refusal.code == "NothingToRun"
    assert counts(shape(one, jobset())) == {"driver": 1, "workers": 6}


def test_a_leader_worker_set_has_leaders_and_workers_of_all_replicas() -> None:
    assert counts(shape(lws())) == {"leader": 2, "worker": 4}
    assert counts(shape(lws(size=1))) == {"leader": 2}


@pytest.mark.parametrize(
    ("obj", "code"),
    [
        (jobset(managedBy="example.com/x"), "RunByAnother"),
        (jobset(replicatedJobs=[]), "NothingToRun"),
        (made("RayCluster", "c", cluster(enableInTreeAutoscaling=True)), "UnsupportedPlacement"),
        (
            made(
                "RayCluster",
                "c",
                cluster(workerGroupSpecs=[{"groupName": "a_b", "replicas": 1, "template": template()}]),
            ),
            "InvalidSetting",
        ),
        (
            made(
                "RayCluster",
                "c",
                cluster(workerGroupSpecs=[{"groupName": "head", "replicas": 1, "template": template()}]),
            ),
            "InvalidSetting",
        ),
        (rayjob(shutdownAfterJobFinishes=False), "InvalidSetting"),
        (rayjob(clusterSelector={"ray.io/cluster": "c"}), "InvalidSetting"),
        (lws(replicas=0), "NothingToRun"),
        (
            jobset(
                replicatedJobs=[{"name": f"j{n}", "template": {"spec": {"template": template()}}} for n in range(17)]
            ),
            "TooManyShapes",
        ),
    ],
)
def test_what_the_queue_cannot_honour_is_refused_with_a_fix(obj: Obj, code: str) -> None:
    refusal = shape(obj).refusal
    assert refusal is not None
    assert refusal.code == code
    assert refusal.nearest


@pytest.mark.parametrize(
    "obj",
    [jobset(), rayjob(), made("RayCluster", "c", cluster(suspend=True)), made("TrainJob", "t", {"suspend": True})],
)
def test_suspension_is_a_patch_only_when_it_changes_something(obj: Obj) -> None:
    kind = BY_KIND[obj["kind"]]
    assert kind.is_suspended(obj)
    assert kind.suspension(obj, True, {}) is None
    assert kind.suspension(obj, False, {}) == {"spec": {"suspend": False}}


def test_a_job_that_is_admitted_in_part_runs_with_fewer_pods_and_gets_its_own_back() -> None:
    one = job(4, 8)
    patch = BATCH_JOB.suspension(one, False, {"main": 3})
    assert patch == {
        "spec": {"suspend": False, "parallelism": 3},
        "metadata": {"annotations": {"kekkai.dev/full-parallelism": "4"}},
    }
    one = copy.deepcopy(one)
    one["spec"] |= patch["spec"]
    one["metadata"] |= patch["metadata"]
    assert BATCH_JOB.shape(one, (), (), {}).pod_sets[0]["count"] == 4, "it still asks for all of its pods"
    assert BATCH_JOB.suspension(one, True, {}) == {
        "spec": {"suspend": True, "parallelism": 4},
        "metadata": {"annotations": {"kekkai.dev/full-parallelism": None}},
    }
    assert BATCH_JOB.suspension(job(4, 8), False, {"main": 4}) == {"spec": {"suspend": False}}


@pytest.mark.parametrize(
    ("obj", "status", "end"),
    [
        (jobset(), {"conditions": [{"type": "Completed", "status": "True"}]}, (True, "Succeeded")),
        (
            jobset(),
            {"conditions": [{"type": "Failed", "status": "True", "reason": "FailedJobs"}]},
            (False, "FailedJobs"),
        ),
        (jobset(), {"conditions": [{"type": "Suspended", "status": "True"}]}, None),
        (rayjob(), {"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"}, (True, "Succeeded")),
        (rayjob(), {"jobDeploymentStatus": "Failed", "reason": "AppFailed"}, (False, "AppFailed")),
        (rayjob(), {"jobDeploymentStatus": "Running"}, None),
        (made("TrainJob", "t", {}), {"conditions": [{"type": "Complete", "status": "True"}]}, (True, "Succeeded")),
        (pod("p"), {"phase": "Succeeded"}, (True, "Succeeded")),
        (pod("p"), {"phase": "Failed", "reason": "Evicted"}, (False, "Evicted")),
        (pod("p"), {"phase": "Running"}, None),
    ],
)
def test_the_end_is_what_the_kinds_own_status_says(obj: Obj, status: Obj, end: tuple[bool, str] | None) -> None:
    found = BY_KIND[obj["kind"]].end({**obj, "status": status}, ())
    assert (found[:2] if found else None) == end


def stores_with(*objects: Obj) -> tuple[Stores, Family]:
    stores = Stores()
    family = Family(stores, BY_KIND.values())
    for obj in objects:
        stores.watch(obj["kind"]).observe(copy.deepcopy(obj))
    return stores, family


def test_chains_of_owners_lead_to_the_queued_object_and_back() -> None:
    train = made("TrainJob", "train", {"suspend": True})
    inner = made("JobSet", "train", {}, train)
    its_job = made("Job", "train-node-0", {}, inner)
    first = pod("train-node-0-0", its_job, labels={"jobset.sigs.k8s.io/replicatedjob-name": "node"})
    stores, family = stores_with(train, inner, its_job, first)
    for one in (train, inner, its_job, first):
        root = family.root(one)
        assert root is not None
        assert root["kind"] == "TrainJob"
    assert [one["metadata"]["name"] for one in family.pods(train)] == ["train-node-0-0"]
    assert {one["kind"] for one in family.parts(train)} == {"JobSet", "Job", "Pod"}
    assert family.is_part(its_job)
    assert family.is_part(inner)
    assert not family.is_part(train)
    assert family.find("JobSet", "train", "a") is None, "it is a part"
    assert family.workload_of(train) == "a/" + shadow_name("train", "uid-TrainJob-train", "trainjob")
    stores.watch("TrainJob").forget(train)
    assert family.root(first) is None, "its queued object is not known, so nobody may take the pod for another's"


def test_a_leader_worker_sets_pods_hang_below_stateful_sets_and_pods() -> None:
    one = lws()
    leaders = made("StatefulSet", "lws", {}, one)
    leader = pod("lws-0", leaders, labels={"leaderworkerset.sigs.k8s.io/worker-index": "0"})
    workers = made("StatefulSet", "lws-0", {}, leader)
    worker = pod("lws-0-1", workers, labels={"leaderworkerset.sigs.k8s.io/worker-index": "1"})
    _, family = stores_with(one, leaders, leader, workers, worker)
    assert family.root(worker) == family.root(leader) == family.find("LeaderWorkerSet", "lws", "a")
    kind = BY_KIND["LeaderWorkerSet"]
    assert [kind.pod_set_of(two) for two in family.pods(one)] == ["leader", "worker"]


def test_a_label_or_a_name_alone_proves_no_ownership() -> None:
    ours = made("JobSet", "set", {})
    liar = made("Job", "j", {}, {**ours, "metadata": {"name": "set", "uid": "another"}})
    _, family = stores_with(ours, liar)
    assert family.root(liar) is None
    assert family.is_part(liar), "and it is not queued by itself"


def grouped(name: str, count: str = "2", devices: int = 2, **rest: Any) -> Obj:
    one = pod(name, labels={POD_GROUP: "g"}, annotations={POD_GROUP_COUNT: count}, **rest)
    one["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] = str(devices)
    return one


def test_pods_of_one_label_are_one_workload_once_all_exist() -> None:
    stores, family = stores_with(grouped("a"))
    group = family.root(grouped("a"))
    assert group is not None
    assert group["kind"] == "LabelledPods"
    refusal = family.shape(group, (), {}).refusal
    assert refusal is not None
    assert refusal.code == "GroupIncomplete"
    assert refusal.message == "1 of the 2 pods of its group exist"
    stores.watch("Pod").observe(grouped("b", devices=4))
    found = family.shape(group, (), {})
    assert sorted(counts(found).values()) == [1, 1]
    wanted = request(group, "t", found, owned=False)
    one = workload(spec={**wanted, "podSets": found.pod_sets})
    assert family.governed(one) == group
    assert wanted["ref"]["kind"] == "LabelledPods"
    other = grouped("c", count="3")
    stores.watch("Pod").observe(other)
    differs = family.shape(group, (), {}).refusal
    assert differs is not None
    assert differs.code == "InvalidSetting"


def test_a_plain_pod_with_devices_is_a_group_of_one_and_one_without_is_free() -> None:
    alone, free = pod("alone"), pod("free")
    free["spec"]["containers"][0]["resources"] = {"limits": {"cpu": "1"}}
    _, family = stores_with(alone, free)
    root = family.root(alone)
    assert root is not None
    assert root["metadata"]["name"] == "alone"
    assert counts(family.shape(root, (), {})) == {"main": 1}
    assert family.root(free) is None


def test_the_in_tree_pod_group_is_found_by_the_link_of_its_pods() -> None:
    group = made("PodGroup", "gang", {"schedulingPolicy": {"gang": {"minCount": 2}}})
    pods = [pod("a"), pod("b")]
    for one in pods:
        one["spec"]["schedulingGroup"] = {"podGroupName": "gang"}
    _, family = stores_with(group, *pods)
    root = family.root(pods[0])
    assert root is not None
    assert root["kind"] == "PodGroup"
    assert sum(counts(family.shape(root, (), {})).values()) == 2
    assert len(family.pods(root)) == 2


def test_a_role_does_not_change_when_the_pod_is_pinned() -> None:
    one = pod("a")
    before = role(one)
    one["spec"] = {**one["spec"], "nodeSelector": {"kubernetes.io/hostname": "x"}, "nodeName": "x"}
    del one["spec"]["schedulingGates"]
    assert role(one) == before
    one["spec"]["tolerations"] = [{"key": "a"}]
    assert role(one) != before


def admitted(obj: Obj, placements: list[tuple[str, str, int]]) -> Obj:
    one = workload({}, spec=request(obj, "t", shape(obj), owned=False))
    one["status"]["admission"]["placements"] = [{"podSet": s, "node": n, "count": c} for s, n, c in placements]
    return one


def test_each_pod_set_has_its_own_places() -> None:
    obj = jobset()
    kind = BY_KIND["JobSet"]
    name = "jobset.sigs.k8s.io/replicatedjob-name"
    index = {"batch.kubernetes.io/job-completion-index": "0"}
    pods = [
        pod("w0", labels={name: "workers", "jobset.sigs.k8s.io/job-index": "0"}, annotations=index),
        pod("w1", labels={name: "workers", "jobset.sigs.k8s.io/job-index": "1"}, annotations=index),
        pod("stranger", labels={}),
    ]
    driver = pod("d", labels={name: "driver"})
    driver["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] = "1"
    one = admitted(obj, [("driver", "x", 1), ("workers", "y", 3), ("workers", "z", 3)])
    pins, left = assign(one, [*pods, driver], kind)
    places = {pin.pod["metadata"]["name"]: pin.node for pin in pins}
    assert places == {"d": "x", "w0": "y", "w1": "y"}, "the stranger is of no pod set and stays gated"
    assert left == 0
    done = pod("w2", gated=False, phase="Succeeded", labels={name: "workers"})
    assert Counter({(s, n): c for s, n, c in held(one, obj, [done], False, kind)}) == {
        ("driver", "x"): 1,
        ("workers", "y"): 3,
        ("workers", "z"): 2,
    }


def test_what_cannot_be_suspended_is_stopped_by_deleting_the_pods_that_were_let_go() -> None:
    obj = pod("alone", gated=False)
    obj["spec"]["nodeName"] = "x"
    kind = BY_KIND["Pod"]
    one = admitted(obj, [("main", "x", 1)])
    one["spec"]["active"] = False
    outcome = decide(view(one, obj, pods=[obj], kind=kind, shape=Shape()))
    assert condition(outcome, "Evicted") == ("True", "Inactive")
    assert [each["metadata"]["name"] for each in outcome.remove] == ["alone"]
    assert outcome.status is not None
    one["status"] = outcome.status
    obj["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    waiting = decide(view(one, obj, pods=[obj], kind=kind, shape=Shape()))
    assert waiting.status is None, "its pod is still there"
    assert waiting.remove == (), "and is being deleted already"
    gone = decide(view(one, obj, pods=[], kind=kind, shape=Shape()))
    assert gone.status is not None
    assert "admission" not in gone.status
