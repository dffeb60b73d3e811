"""Visits Machines: gathers what the steps need, lets them run, writes one status."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from prometheus_client import Counter

from crds.conditions import INITIALIZED, LAUNCHED, is_true
from crds.errors import NotFound
from crds.labels import FINALIZER, MACHINE, MANAGER_POOLS
from operators.pools.lifecycle import advance
from operators.pools.providers import Provider, Providers
from operators.pools.providers.protocol import token_of
from operators.pools.registration import node_of
from operators.pools.scope import Scope
from operators.runtime import (
    RESOURCES,
    Cluster,
    Key,
    Stores,
    Touches,
    WorkQueue,
    add_finalizer,
    drop_finalizer,
    write_status,
)

Object = Mapping[str, Any]
log = logging.getLogger(__name__)
REPLACED = Counter("kekkai_machines_replaced_total", "Machines given up because they vanished or never started.")
LEAKED = Counter("kekkai_machines_leaked_total", "Provider instances without a Machine that were removed.")
_LEAK_SWEEP = 60.0  # seconds between two full looks at each provider
SWEEP: Key = ("", "*")


class MachineController:
    """The level-triggered loop of each Machine's life."""

    name = "machines"
    workers = 32

    def __init__(self, cluster: Cluster, stores: Stores, providers: Providers) -> None:
        self.cluster = cluster
        self.stores = stores
        self.providers = providers
        self.machines, self.pools = stores.watch("Machine"), stores.watch("AcceleratorPool")
        self.nodes, self.pods = stores.watch("Node"), stores.watch("Pod")
        self._of_pool = self.machines.index("pool", lambda machine: (machine["spec"]["pool"],))
        self._starting = self.machines.index("starting", _starting)
        self._on_node = self.pods.index("node", _node_of_pod)
        self._node_of = self.nodes.index("machine", lambda node: tuple(name for _, name in _machine_of(node)))
        self.watches: Mapping[str, Touches] = {
            "Machine": lambda obj: (_key(obj),),
            "Node": _machine_of,
            "Pod": self._going_under,
            "AcceleratorPool": self._waiting_for_pool,
        }

    def attach(self, queue: WorkQueue[Key]) -> None:
        queue.add_after(SWEEP, 5.0)

    def _going_under(self, pod: Object) -> Iterable[Key]:
        """A pod matters only while its node's machine is going."""
        node = self.nodes.get((pod.get("spec") or {}).get("nodeName") or "")
        for key in _machine_of(node) if node is not None else ():
            machine = self.machines.get(key[1])
            if machine is not None and machine["metadata"].get("deletionTimestamp"):
                yield key

    def _waiting_for_pool(self, pool: Object) -> Iterable[Key]:
        found = self._of_pool.get(pool["metadata"]["name"])
        return (_key(machine) for machine in found if not is_true(machine, LAUNCHED))

    async def reconcile(self, key: Key) -> float | None:
        if key == SWEEP:
            return await self._sweep()
        machine = self.machines.get(key[1])
        if machine is None:
            await self._collect(key[1])
            return None
        scope = self._look(machine)
        if not scope.going:
            machine = scope.machine = await add_finalizer(self.cluster, self.stores, machine, FINALIZER, MANAGER_POOLS)
        again = await advance(scope)
        if not scope.gone:
            await write_status(self.cluster, self.stores, machine, scope.status(), MANAGER_POOLS)
        if scope.doomed:
            log.warning("machine %s is given up: %s", scope.name, scope.doomed)
            REPLACED.inc()
            await self.cluster.delete(RESOURCES["Machine"], scope.name, uid=machine["metadata"]["uid"])
        if scope.gone:
            newest = self.machines.get(scope.name) or machine
            await drop_finalizer(self.cluster, self.stores, newest, FINALIZER, MANAGER_POOLS)
        return again

    def _look(self, machine: dict[str, Any]) -> Scope:
        pool = self.pools.get(machine["spec"]["pool"])
        provider_id = (machine.get("status") or {}).get("providerID") or ""
        node = node_of(self.stores, provider_id)
        if node is None and not provider_id:
            # Launched, but the status was not written: its node carries the token in its provider id.
            token = machine["spec"]["clientToken"]
            named = self._node_of.get(machine["metadata"]["name"])
            node = next((one for one in named if token_of(one["spec"].get("providerID", "")) == token), None)
        return Scope(
            cluster=self.cluster,
            stores=self.stores,
            machine=machine,
            pool=pool,
            provider=self._provider(pool, provider_id),
            node=node,
            pods=self._on_node.get(node["metadata"]["name"]) if node is not None else [],
            starting=self._starting.count(machine["spec"]["pool"]),
        )

    def _provider(self, pool: Object | None, provider_id: str) -> Provider | None:
        if pool is None:
            return self.providers.of_id(provider_id)
        try:
            return self.providers.of_pool(pool)
        except NotFound:
            return None

    async def _collect(self, name: str) -> None:
        """Nodes that say they are this Machine, which does not exist: they leaked. Checked against the server."""
        nodes = self._node_of.get(name)
        if not nodes or await self.cluster.get(RESOURCES["Machine"], name) is not None:
            return
        for node in nodes:
            await self._take_back(node["spec"].get("providerID", ""))

    async def _sweep(self) -> float:
        """Instances whose Machine is gone or has another token."""
        for provider in self.providers:
            for instance in await provider.list():
                machine = self.machines.get(instance.machine)
                if machine is not None and machine["spec"]["clientToken"] == instance.client_token:
                    continue
                live = await self.cluster.get(RESOURCES["Machine"], instance.machine) if instance.machine else None
                if live is None or live["spec"]["clientToken"] != instance.client_token:
                    await self._take_back(instance.provider_id)
        return _LEAK_SWEEP

    async def _take_back(self, provider_id: str) -> None:
        provider = self.providers.of_id(provider_id)
        if provider is not None:
            log.warning("instance %s has no Machine: it is removed", provider_id)
            LEAKED.inc()
            await provider.delete(token_of(provider_id))


def _starting(machine: Object) -> tuple[str, ...]:
    coming = is_true(machine, LAUNCHED) and not is_true(machine, INITIALIZED)
    return (machine["spec"]["pool"],) if coming and not machine["metadata"].get("deletionTimestamp") else ()


def _machine_of(node: Object) -> tuple[Key, ...]:
    name = (node["metadata"].get("labels") or {}).get(MACHINE)
    return (("", name),) if name else ()


def _node_of_pod(pod: Object) -> tuple[str, ...]:
    name = (pod.get("spec") or {}).get("nodeName")
    return (name,) if name else ()


def _key(obj: Object) -> Key:
    return "", obj["metadata"]["name"]
