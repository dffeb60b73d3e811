"""The Node of a machine that an emulated controller has bought."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from operators.runtime import RESOURCES, ApiFault, Cluster

MANAGER = "emulated-capacity"
CAPACITY = {"cpu": "192", "memory": "2Ti", "pods": "110", "ephemeral-storage": "7Ti", "nvidia.com/gpu": "8"}


async def register(
    cluster: Cluster, name: str, provider_id: str, labels: Mapping[str, str], taints: Sequence[Mapping[str, str]] = ()
) -> None:
    """Its kubelet registers; again is no harm."""
    node: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "labels": {**labels, "kubernetes.io/hostname": name},
            "annotations": {"kwok.x-k8s.io/node": "fake"},
        },
        "spec": {"providerID": provider_id, "taints": [dict(taint) for taint in taints]},
        "status": {"capacity": CAPACITY, "allocatable": CAPACITY},
    }
    try:
        await cluster.create(node, MANAGER)
    except ApiFault as fault:
        if not fault.conflict:
            raise


async def unregister(cluster: Cluster, name: str) -> None:
    """The machine is gone, and its Node with it."""
    await cluster.delete(RESOURCES["Node"], name)
