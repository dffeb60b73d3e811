"""Objects as the API server would return them, for tests of the workloads operator."""

from __future__ import annotations

from typing import Any

from crds.labels import API_VERSION, HOSTNAME, SCHEDULING_GATE
from operators.planning.ownership import shadow_name

NAME = shadow_name("train", "job-uid")

TEMPLATE = {
    "spec": {
        "schedulingGates": [{"name": SCHEDULING_GATE}],
        "containers": [{"name": "c", "resources": {"limits": {"nvidia.com/gpu": "2", "cpu": "1"}}}],
    }
}


def job(
    parallelism: int | None = 1, completions: int | None = 1, suspend: bool = True, **status: Any
) -> dict[str, Any]:
    spec: dict[str, Any] = {"template": TEMPLATE, "suspend": suspend}
    if parallelism is not None:
        spec["parallelism"] = parallelism
    if completions is not None:
        spec["completions"] = completions
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "train", "namespace": "a", "uid": "job-uid", "resourceVersion": "7"},
        "spec": spec,
        "status": status,
    }


def workload(
    placements: dict[str, int] | None = None, count: int = 1, spec: dict[str, Any] | None = None, **conditions: bool
) -> dict[str, Any]:
    status: dict[str, Any] = {}
    if placements is not None:
        status["admission"] = {
            "accelerator": "H200",
            "admittedAt": "2026-01-01T00:00:00Z",
            "placements": [{"podSet": "main", "node": node, "count": n} for node, n in placements.items()],
        }
        conditions.setdefault("Admitted", True)
    status["conditions"] = [
        {
            "type": kind,
            "status": "True" if value else "False",
            "reason": "Test",
            "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
            "observedGeneration": 1,
        }
        for kind, value in conditions.items()
    ]
    requests = {"nvidia.com/gpu": "2", "cpu": "1"}
    pod_set = {"name": "main", "count": count, "requests": requests, "runtimeClassName": ""}
    return {
        "apiVersion": API_VERSION,
        "kind": "Workload",
        "metadata": {
            "name": NAME,
            "namespace": "a",
            "uid": "workload-uid",
            "generation": 1,
            "resourceVersion": "1",
            "creationTimestamp": "2026-01-01T00:00:00Z",
        },
        "spec": {
            "tenant": "t",
            "active": True,
            "podSets": [pod_set],
            "ref": {"apiVersion": "batch/v1", "kind": "Job", "name": "train", "uid": "job-uid"},
            **(spec or {}),
        },
        "status": status,
    }


def pod(
    name: str, node: str = "", phase: str = "Pending", index: int | None = None, bound: bool = True, cpu: str = "1"
) -> dict[str, Any]:
    """Gated unless a node is given; then pinned there, and bound unless told otherwise."""
    spec: dict[str, Any] = {
        "containers": [{"name": "c", "resources": {"limits": {"nvidia.com/gpu": "2", "cpu": cpu}}}],
    }
    if node:
        spec["nodeSelector"] = {HOSTNAME: node}
        if bound:
            spec["nodeName"] = node
    else:
        spec["schedulingGates"] = [{"name": SCHEDULING_GATE}]
    meta: dict[str, Any] = {
        "name": name,
        "namespace": "a",
        "uid": f"uid-{name}",
        "resourceVersion": "1",
        "ownerReferences": [
            {"apiVersion": "batch/v1", "kind": "Job", "name": "train", "uid": "job-uid", "controller": True}
        ],
    }
    if index is not None:
        meta["annotations"] = {"batch.kubernetes.io/job-completion-index": str(index)}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec, "status": {"phase": phase}}
