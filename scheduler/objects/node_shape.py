"""What a node of a pool looks like: labels, capacity, startup taint.

The provider is told to make it so, registration checks that it is so, and the planner
counts on it before the node exists. All three read it here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from crds.labels import (
    ACCELERATOR,
    BLOCK,
    CONFIDENTIAL,
    HOSTNAME,
    MACHINE,
    NVLINK_DOMAIN,
    POOL,
    RACK,
    SITE,
    STARTUP_TAINT,
    ZONE,
)

Object = Mapping[str, Any]
REGION = "topology.kubernetes.io/region"
INSTANCE_TYPE = "node.kubernetes.io/instance-type"
_EPHEMERAL_STORAGE = "7Ti"  # the local NVMe of such a server; the vocabulary does not ask for it


def pool_labels(pool: Object) -> dict[str, str]:
    """Labels that all nodes of the pool have."""
    spec = pool["spec"]
    site, accelerator = spec["site"], spec["accelerator"]
    return {
        **((spec.get("node") or {}).get("labels") or {}),
        POOL: pool["metadata"]["name"],
        SITE: site,
        ZONE: site,
        REGION: site,
        INSTANCE_TYPE: f"{accelerator['type']}-x{accelerator['perNode']}".lower(),
        ACCELERATOR: accelerator["type"],
        CONFIDENTIAL: (spec.get("confidential") or {}).get("cpu", "none"),
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": "amd64",
    }


def machine_labels(pool: Object, machine: Object) -> dict[str, str]:
    """Labels of the node of this machine, hostname excepted: that is the kubelet's to say."""
    slot = machine["spec"].get("topology") or {}
    levels = {BLOCK: slot.get("block"), RACK: slot.get("rack"), NVLINK_DOMAIN: slot.get("nvlinkDomain")}
    labels = {**pool_labels(pool), MACHINE: machine["metadata"]["name"]}
    return labels | {label: domain for label, domain in levels.items() if domain}


def node_labels(pool: Object, machine: Object, hostname: str) -> dict[str, str]:
    """All labels of the node of this machine."""
    return {**machine_labels(pool, machine), HOSTNAME: hostname}


def capacity(pool: Object) -> dict[str, str]:
    """Capacity of a node as Kubernetes quantities."""
    spec = pool["spec"]
    node, accelerator = spec.get("node") or {}, spec["accelerator"]
    return {
        "cpu": str(node.get("cpu", "64")),
        "memory": str(node.get("memory", "512Gi")),
        "ephemeral-storage": _EPHEMERAL_STORAGE,
        "pods": str(node.get("pods", 110)),
        resource_of(pool): str(accelerator["perNode"]),
    }


def resource_of(pool: Object) -> str:
    """The extended resource that the pool's devices are."""
    return str(pool["spec"]["accelerator"].get("resource", "nvidia.com/gpu"))


def startup_taint() -> dict[str, str]:
    """Keeps pods away until the devices have registered."""
    return {"key": STARTUP_TAINT, "effect": "NoSchedule"}
