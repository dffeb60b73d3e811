"""Objects as the API server would return them, and a provider in memory, for tests of the pools operator."""

from __future__ import annotations

from typing import Any

from crds.labels import API_VERSION, MACHINE, POOL, STARTUP_TAINT
from operators.pools.providers import Instance, ProviderError, ProviderOrder
from operators.pools.scope import Scope
from operators.runtime import Stores


def pool(**spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": API_VERSION,
        "kind": "AcceleratorPool",
        "metadata": {"name": "h200", "uid": "pool-uid", "generation": 1, "resourceVersion": "1"},
        "spec": {
            "site": "tokyo",
            "accelerator": {"type": "H200", "perNode": 8, "resource": "nvidia.com/gpu"},
            "node": {"cpu": "192", "memory": "2Ti", "pods": 110, "labels": {"disk": "fast"}},
            "interconnect": {"nodesPerRack": 4},
            "confidential": {"cpu": "sev-snp"},
            "scaling": {"min": 0, "max": 6, "scaleDownDelaySeconds": 6, "maxConcurrentLaunches": 2},
            "provider": {"kwok": {"bootSeconds": 2}},
            "price": {"perNodeHour": "42.40", "currency": "USD"},
            **spec,
        },
    }


def machine(*true: str, going: bool = False, created: str = "2026-01-01T00:00:00Z", **status: Any) -> dict[str, Any]:
    meta: dict[str, Any] = {
        "name": "h200-0",
        "uid": "machine-uid",
        "generation": 1,
        "resourceVersion": "5",
        "creationTimestamp": created,
        "finalizers": ["kekkai.dev/cleanup"],
    }
    if going:
        meta["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    conditions = [
        {"type": kind, "status": "True", "reason": kind, "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}
        for kind in true
    ]
    return {
        "apiVersion": API_VERSION,
        "kind": "Machine",
        "metadata": meta,
        "spec": {"pool": "h200", "clientToken": "h200-0-abc", "topology": {"rack": "h200-rack-0"}},
        "status": {"conditions": conditions, **status},
    }


def node(ready: bool = True, devices: int = 8, taints: tuple[str, ...] = (), **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": "h200-0-abc",
            "uid": "node-uid",
            "resourceVersion": "9",
            "labels": {POOL: "h200", MACHINE: "h200-0"},
        },
        "spec": {
            "providerID": "kwok://tokyo/h200-0-abc",
            "taints": [{"key": key, "effect": "NoSchedule"} for key in taints],
            **spec,
        },
        "status": {
            "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
            "allocatable": {"cpu": "192", "memory": "2Ti", "pods": "110", "nvidia.com/gpu": str(devices)},
        },
    }


class MemoryProvider:
    """Keeps instances in a dict; may be told to fail."""

    scheme = "kwok"

    def __init__(self) -> None:
        self.instances: dict[str, Instance] = {}
        self.failure: ProviderError | None = None
        self.calls: list[str] = []

    async def create(self, order: ProviderOrder) -> Instance:
        self.calls.append(f"create {order.client_token}")
        if self.failure is not None:
            raise self.failure
        made = Instance(f"kwok://tokyo/{order.client_token}", order.client_token, order.machine)
        return self.instances.setdefault(order.client_token, made)

    async def get(self, pool: str, client_token: str) -> Instance | None:
        return self.instances.get(client_token)

    async def delete(self, pool: str, client_token: str) -> bool:
        self.calls.append(f"delete {client_token}")
        self.instances.pop(client_token, None)
        return True

    async def list(self) -> list[tuple[str, Instance]]:
        return [("h200", one) for one in self.instances.values()]

    async def price(self, pool: Any) -> float | None:
        return None


class Writes:
    """Stands for the cluster: notes what is written and answers with what it would become."""

    def __init__(self, blocked: bool = False) -> None:
        self.done: list[tuple[str, str, Any]] = []
        self.blocked = blocked
        self.node: dict[str, Any] = node()

    async def json_patch(self, resource: Any, name: str, operations: Any, manager: str, namespace: Any = None) -> Any:
        self.done.append(("json", name, operations))
        return self.node

    async def merge_patch(self, resource: Any, name: str, patch: Any, manager: str, namespace: Any = None) -> Any:
        self.done.append(("merge", name, patch))
        return self.node

    async def evict(self, namespace: str, name: str) -> bool:
        self.done.append(("evict", name, None))
        return not self.blocked

    async def delete(self, resource: Any, name: str, namespace: Any = None, **_: Any) -> bool:
        self.done.append(("delete", name, None))
        return True


def scope(one: dict[str, Any], provider: Any = None, **rest: Any) -> Scope:
    stores = Stores()
    its_node = rest.pop("node", None)
    writes = Writes()
    if its_node is not None:
        stores.watch("Node").observe(its_node)
        writes.node = its_node
    given = {
        "cluster": writes,
        "stores": stores,
        "machine": one,
        "pool": pool(),
        "provider": provider or MemoryProvider(),
        "node": its_node,
        "pods": [],
        "starting": 0,
    }
    return Scope(**{**given, **rest})


__all__ = ["STARTUP_TAINT", "MemoryProvider", "Writes", "machine", "node", "pool", "scope"]
