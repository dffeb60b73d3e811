"""What arrives, when and on what: 5 cohorts x 6 queues, three classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from operators.runtime import RESOURCES

API = "kekkai.dev/v1alpha1"
GPU = "nvidia.com/gpu"
COHORTS, QUEUES, NODES = 5, 6, 15
NOMINAL, BORROW = 20, 100
SYSTEM, RUNNER = "kekkai-system", "foreign-controller"
WORKLOADS = RESOURCES["Workload"]


@dataclass(frozen=True, slots=True)
class Class:
    """A class of Kueue's baseline configuration."""

    name: str
    count: int  # a queue
    every: float  # seconds between two arrivals in a queue
    devices: int
    runtime: float  # seconds
    priority: int


CLASSES = (
    Class("large", 50, 1.2, 20, 1.0, 200),
    Class("medium", 100, 0.5, 5, 0.5, 100),
    Class("small", 350, 0.1, 1, 0.2, 50),
)
PEER = {  # Kueue v0.19 built and run on two cores (reference/scheduling.md)
    "seconds": 470,
    "perSecond": 32,
    "usePercent": 62,
    "cpu": {"operators": 129, "kube-apiserver": 611},
    "rssMb": {"operators": 633, "kube-apiserver": 1900},
    "wait": {"small": 259, "medium": 149, "large": 51},
}


def tenants() -> dict[str, str]:
    """Tenant, which is a namespace too, to the pool that is its cohort's."""
    return {f"cohort-{c}-queue-{q}": f"cohort-{c}" for c in range(COHORTS) for q in range(QUEUES)}


def setup_objects() -> list[dict[str, Any]]:
    """The site, a pool a cohort, a tenant a queue."""
    out: list[dict[str, Any]] = [
        {"apiVersion": API, "kind": "Site", "metadata": {"name": "tokyo"}, "spec": {"jurisdiction": "JP"}}
    ]
    for cohort in dict.fromkeys(tenants().values()):
        spec: dict[str, Any] = {
            "site": "tokyo",
            "accelerator": {"type": "H200", "perNode": 8},
            "scaling": {"min": NODES, "max": NODES},
            "provider": {"kwok": {}},
        }
        out.append({"apiVersion": API, "kind": "AcceleratorPool", "metadata": {"name": cohort}, "spec": spec})
    for tenant, cohort in tenants().items():
        spec = {
            "owners": [{"kind": "User", "name": "owner"}],
            "namespaces": [{"name": tenant}],
            "quota": [{"accelerator": "H200", "nominal": NOMINAL, "borrow": BORROW}],
            "isolation": {"pools": [cohort]},
        }
        out.append({"apiVersion": API, "kind": "Tenant", "metadata": {"name": tenant}, "spec": spec})
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": RUNNER},
        "roleRef": {
            "apiGroup": "rbac.authorization.k8s.io",
            "kind": "ClusterRole",
            "name": "kekkai-external-controller",
        },
        "subjects": [{"kind": "ServiceAccount", "name": RUNNER, "namespace": SYSTEM}],
    }
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": RUNNER, "namespace": SYSTEM}}
    return [*out, account, binding]


def workload(tenant: str, of: Class, index: int) -> dict[str, Any]:
    """A Workload as a foreign controller makes it for its own object."""
    name = f"{of.name}-{index}"
    return {
        "apiVersion": API,
        "kind": "Workload",
        "metadata": {"name": name, "namespace": tenant, "labels": {"class": of.name}},
        "spec": {
            "ref": {"apiVersion": "bench.example/v1", "kind": "Task", "name": name, "uid": f"{tenant}-{name}"},
            "tenant": tenant,
            "priority": of.priority,
            "podSets": [{"name": "main", "count": of.devices, "requests": {"cpu": "1", GPU: "1"}}],
        },
    }


BY_NAME = {one.name: one for one in CLASSES}


def class_of(key: tuple[str, str]) -> Class:
    return BY_NAME[key[1].split("-")[0]]
