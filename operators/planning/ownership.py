"""Which Workload governs a Job, which Job a Workload, which Job a pod; by name and uid, never by label alone."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from crds.labels import API_VERSION
from operators.runtime import Store

Object = Mapping[str, Any]
_NAME_LIMIT = 63  # names longer than a label value would be awkward to select by

# API groups whose kinds the queue starts and stops itself, now or later. A Workload that stands for an object of
# any other group is run by the controller that made it. The admission policy 50-workloads.yaml names the same.
QUEUED_GROUPS = frozenset(
    {
        "",
        "apps",
        "autoscaling.x-k8s.io",
        "batch",
        "jobset.x-k8s.io",
        "kekkai.dev",
        "kubeflow.org",
        "leaderworkerset.x-k8s.io",
        "ray.io",
        "scheduling.k8s.io",
        "trainer.kubeflow.org",
    }
)


def runs_elsewhere(workload: Object) -> bool:
    """Whether another controller starts and stops what this Workload stands for; the queue only admits it."""
    ref = workload["spec"].get("ref")
    if ref is None:
        return False
    group, slash, _ = str(ref.get("apiVersion", "")).rpartition("/")
    return bool(slash) and group not in QUEUED_GROUPS


def shadow_name(name: str, uid: str, kind: str = "job") -> str:
    """The name of an object's shadow Workload. The uid tells it from an earlier one of the same name."""
    mark = hashlib.sha256(uid.encode()).hexdigest()[:6]
    return f"{kind}-{name[: _NAME_LIMIT - len(kind) - 8].rstrip('-.')}-{mark}"


def controller_of(obj: Object) -> Object | None:
    """The owner reference that is the controller."""
    return next((ref for ref in obj["metadata"].get("ownerReferences") or () if ref.get("controller")), None)


def owned_by_workload(job: Object) -> Object | None:
    """The owner reference of a Job that a Workload (`spec.job`) made."""
    owner = controller_of(job)
    if owner is not None and owner.get("kind") == "Workload" and owner.get("apiVersion") == API_VERSION:
        return owner
    return None


def governing_workload(job: Object) -> str:
    """namespace/name of the Workload that governs a Job: its maker, or its shadow."""
    meta = job["metadata"]
    owner = owned_by_workload(job)
    name = owner["name"] if owner is not None else shadow_name(meta["name"], meta["uid"])
    return f"{meta['namespace']}/{name}"


def governed_job(workload: Object, jobs: Store) -> Object | None:
    """The Job that a Workload governs; None when there is none, or another has its name."""
    meta, spec = workload["metadata"], workload["spec"]
    ref = spec.get("ref")
    if ref is not None:
        job = jobs.get(ref["name"], meta["namespace"]) if ref.get("kind") == "Job" else None
        return job if job is not None and job["metadata"]["uid"] == ref["uid"] else None
    job = jobs.get(meta["name"], meta["namespace"])
    owner = owned_by_workload(job) if job is not None else None
    return job if owner is not None and owner["uid"] == meta.get("uid") else None


def owning_job(pod: Object) -> tuple[str, ...]:
    """The uid of the Job that controls a pod, as an index key."""
    owner = controller_of(pod)
    if owner is None or owner.get("kind") != "Job" or not str(owner.get("apiVersion", "")).startswith("batch/"):
        return ()
    return (owner["uid"],)


def job_of(pod: Object, jobs: Store) -> Object | None:
    """The Job that controls a pod, if it is known."""
    owner = controller_of(pod)
    if owner is None or not owning_job(pod):
        return None
    job = jobs.get(owner["name"], pod["metadata"]["namespace"])
    return job if job is not None and job["metadata"]["uid"] == owner["uid"] else None
