"""Visits Machines: gathers what the steps need, lets them run, writes one status."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from prometheus_client import Counter, Histogram

from crds.conditions import INITIALIZED, LAUNCHED, is_true
from crds.errors import NotFound
from crds.labels import FINALIZER, MANAGER_POOLS
from operators.pools.backoff import Backoff
from operators.pools.leaks import machine_of
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
    add_finalizer,
    drop_finalizer,
    write_status,
)

Object = Mapping[str, Any]
log = logging.getLogger(__name__)
REPLACED = Counter("kekkai_machines_replaced_total", "Machines given up because they vanished or never started.")
_DELETION_SEEN = 5.0  # seconds within which a watch tells of our own deletion
JOINED = Histogram(
    "kekkai_machine_join_seconds",
    "Time from a Machine's creation until it is initialized.",
    ["pool"],
    buckets=(1, 5, 15, 30, 60, 120, 300, 600, 1800),
)


class MachineController:
    """The level-triggered loop of each Machine's life."""

    name = "machines"
    workers = 32

    def __init__(
        self,
        cluster: Cluster,
        stores: Stores,
        providers: Providers,
        backoff: Backoff,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.cluster = cluster
        self.stores = stores
        self.providers = providers
        self.backoff = backoff
        self._clock = clock
        self._given_up: dict[str, str] = {}  # machine → uid of the one that was deleted
        self._asked: dict[str, dict[str, float]] = {}  # machine → what its provider was asked, and when
        self.machines, self.pools = stores.watch("Machine"), stores.watch("AcceleratorPool")
        self.nodes, self.pods = stores.watch("Node"), stores.watch("Pod")
        self._of_pool = self.machines.index("pool", lambda machine: (machine["spec"]["pool"],))
        self._starting = self.machines.index("starting", _starting)
        self._on_node = self.pods.index("node", _node_of_pod)
        self._node_of = self.nodes.index("machine", lambda node: tuple(name for _, name in machine_of(node)))
        self.watches: Mapping[str, Touches] = {
            "Machine": lambda obj: (_key(obj),),
            "Node": machine_of,
            "Pod": self._going_under,
            "AcceleratorPool": self._waiting_for_pool,
        }

    def _going_under(self, pod: Object) -> Iterable[Key]:
        """A pod matters only while its node's machine is going."""
        node = self.nodes.get((pod.get("spec") or {}).get("nodeName") or "")
        for key in machine_of(node) if node is not None else ():
            machine = self.machines.get(key[1])
            if machine is not None and machine["metadata"].get("deletionTimestamp"):
                yield key

    def _waiting_for_pool(self, pool: Object) -> Iterable[Key]:
        found = self._of_pool.get(pool["metadata"]["name"])
        return (_key(machine) for machine in found if not is_true(machine, LAUNCHED))

    async def reconcile(self, key: Key) -> float | None:
        machine = self.machines.get(key[1])
        if machine is None:
            self._asked.pop(key[1], None)
            self._given_up.pop(key[1], None)
            return None
        if self._given_up.get(key[1]) == machine["metadata"]["uid"] and not machine["metadata"].get(
            "deletionTimestamp"
        ):
            return _DELETION_SEEN  # it has been deleted, and the watch has yet to say so
        scope = self._look(machine)
        if not scope.going:
            machine = scope.machine = await add_finalizer(self.cluster, self.stores, machine, FINALIZER, MANAGER_POOLS)
        again = await advance(scope)
        if scope.is_true(INITIALIZED) and not is_true(machine, INITIALIZED):
            JOINED.labels(scope.pool_name).observe(scope.age())
            self.backoff.succeeded(scope.name)
        if not scope.gone:
            await write_status(self.cluster, self.stores, machine, scope.status(), MANAGER_POOLS)
        if scope.doomed:
            log.warning("machine %s is given up: %s", scope.name, scope.doomed)
            await self.cluster.delete(RESOURCES["Machine"], scope.name, uid=machine["metadata"]["uid"])
            self._given_up[scope.name] = machine["metadata"]["uid"]
            REPLACED.inc()
            if not scope.is_true(INITIALIZED):
                self.backoff.failed(scope.name)
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
            ticks=self._clock(),
            asked=self._asked.setdefault(machine["metadata"]["name"], {}),
        )

    def _provider(self, pool: Object | None, provider_id: str) -> Provider | None:
        if pool is None:
            return self.providers.of_id(provider_id)
        try:
            return self.providers.of_pool(pool)
        except NotFound:
            return None


def _starting(machine: Object) -> tuple[str, ...]:
    coming = is_true(machine, LAUNCHED) and not is_true(machine, INITIALIZED)
    return (machine["spec"]["pool"],) if coming and not machine["metadata"].get("deletionTimestamp") else ()


def _node_of_pod(pod: Object) -> tuple[str, ...]:
    name = (pod.get("spec") or {}).get("nodeName")
    return (name,) if name else ()


def _key(obj: Object) -> Key:
    return "", obj["metadata"]["name"]
