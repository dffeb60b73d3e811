"""What happens on a server once it is on: it boots, its kubelet registers a Node, and kwok goes on from there.

The kubelet knows its system's UUID and nothing of Machines or provider ids, as on bare
metal. When the power goes, the Node stays and turns NotReady: nobody renews its lease.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from local.hardware.redfish.farm import Farm


class Nodes(Protocol):
    """The calls of an API server that a kubelet needs."""

    def apply_node(self, node: dict[str, Any]) -> None:
        """Register, or register again."""
        ...

    def fail_node(self, name: str) -> None:
        """It does not report any more."""
        ...


class Kubelets:
    """`step()` looks at the power of all servers once."""

    def __init__(
        self,
        farm: Farm,
        nodes: Nodes,
        capacity: Mapping[str, str],
        boot_seconds: float = 2.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._farm = farm
        self._nodes = nodes
        self._capacity = dict(capacity)
        self._boot = boot_seconds
        self._clock = clock
        self._on: dict[str, float] = {}  # server → when it came on
        self._registered: set[str] = set()

    def step(self) -> None:
        """Register the kubelets of servers that have booted; let go of those that are off."""
        now = self._clock()
        on = self._farm.powered_on()
        for name in self._farm.names:
            if name in on:
                since = self._on.setdefault(name, now)
                if name not in self._registered and now >= since + self._boot:
                    self._nodes.apply_node(self.node(name))
                    self._registered.add(name)
            else:
                self._on.pop(name, None)
                if name in self._registered:
                    self._registered.discard(name)
                    self._nodes.fail_node(name)

    def node(self, name: str) -> dict[str, Any]:
        """The Node as this server's kubelet registers it."""
        return {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {
                "name": name,
                "labels": {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"},
                "annotations": {"kwok.x-k8s.io/node": "fake"},
            },
            "spec": {"taints": [{"key": "kekkai.dev/uninitialized", "effect": "NoSchedule"}]},
            "status": {
                "capacity": self._capacity,
                "allocatable": self._capacity,
                "nodeInfo": {"systemUUID": self._farm.uuid(name)},
            },
        }
