"""A small cluster as `kubectl get -o json` writes it."""

from __future__ import annotations

from typing import Any

GPU = "nvidia.com/gpu"
RUNNING_SINCE = "2026-11-24T12:00:00Z"


def state(*, nodes: int = 2, maximum: int = 2, busy: int = 0, limit: int | None = None) -> dict[str, Any]:
    """`busy`: of the nodes, those whose devices a running workload holds; `limit`: its maximum run time."""
    items: list[dict[str, Any]] = [
        {"kind": "Site", "metadata": {"name": "tokyo"}, "spec": {"jurisdiction": "JP"}},
        {
            "kind": "AcceleratorPool",
            "metadata": {"name": "h200"},
            "spec": {
                "site": "tokyo",
                "accelerator": {"type": "H200", "perNode": 8},
                "scaling": {"min": 0, "max": maximum},
            },
        },
        {
            "kind": "Tenant",
            "metadata": {"name": "aurora"},
            "spec": {"quota": [{"accelerator": "H200", "nominal": 16, "borrow": 16}]},
        },
        {
            "kind": "Namespace",
            "metadata": {"name": "aurora-train", "labels": {"kekkai.dev/tenant": "aurora", "kekkai.dev/ready": "true"}},
        },
        {"kind": "Namespace", "metadata": {"name": "elsewhere"}},
    ]
    for index in range(nodes):
        name = f"h200-{index}"
        labels = {
            "kekkai.dev/pool": "h200",
            "kekkai.dev/machine": name,
            "kekkai.dev/accelerator": "H200",
            "kubernetes.io/hostname": name,
        }
        items.append({"kind": "Machine", "metadata": {"name": name}, "spec": {"pool": "h200"}})
        items.append(
            {
                "kind": "Node",
                "metadata": {"name": name, "labels": labels},
                "status": {
                    "conditions": [{"type": "Ready", "status": "True"}],
                    "allocatable": {"cpu": "64", "memory": "512Gi", "pods": "110", GPU: "8"},
                },
            }
        )
    if busy:
        placements = [{"podSet": "main", "node": f"h200-{index}", "count": 1} for index in range(busy)]
        spec: dict[str, Any] = {
            "tenant": "aurora",
            "podSets": [{"name": "main", "count": busy, "requests": {"cpu": "8", GPU: "8"}}],
        }
        if limit is not None:
            spec["maximumRuntimeSeconds"] = limit
        items.append(
            {
                "kind": "Workload",
                "metadata": {
                    "namespace": "aurora-train",
                    "name": "old",
                    "uid": "uid-old",
                    "creationTimestamp": RUNNING_SINCE,
                },
                "spec": spec,
                "status": {
                    "admission": {"accelerator": "H200", "admittedAt": RUNNING_SINCE, "placements": placements},
                },
            }
        )
    return {"apiVersion": "v1", "kind": "List", "items": items}


def job(pods: int = 1, devices: int = 8, **meta: Any) -> dict[str, Any]:
    """A plain Job, as a user writes it."""
    container = {"name": "work", "resources": {"limits": {GPU: str(devices), "cpu": "8"}}}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "train", "namespace": "aurora-train", **meta},
        "spec": {"parallelism": pods, "completions": pods, "template": {"spec": {"containers": [container]}}},
    }
