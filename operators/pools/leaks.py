"""Finds what nobody accounts for: instances and nodes that say they are ours and have no Machine with their token.

A Machine is written before its instance is made, so one glance at the API server (not at
our cache) decides. What a provider lists is taken only after it was found without a
Machine for a grace period; providers list only what carries this cluster's mark.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

from prometheus_client import Counter

from crds.labels import MACHINE, POOL
from operators.pools.providers import Instance, Provider, ProviderError, Providers
from operators.pools.providers.protocol import token_of
from operators.runtime import RESOURCES, Cluster, Key, Stores, Touches, WorkQueue

Object = Mapping[str, Any]
log = logging.getLogger(__name__)
LEAKED = Counter("kekkai_machines_leaked_total", "Provider instances without a Machine that were removed.")
SWEEP: Key = ("", "*")
_PACE = 30.0  # seconds between two full looks at each provider
_GRACE = 60.0  # seconds for which an instance must have been without a Machine
_AGAIN = 2.0


class LeakController:
    """Visits machine names of nodes, and once in a while all providers."""

    name = "leaks"
    workers = 4

    def __init__(
        self,
        cluster: Cluster,
        stores: Stores,
        providers: Providers,
        grace: float = _GRACE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.cluster = cluster
        self.stores = stores
        self.providers = providers
        self.machines, self.nodes = stores.watch("Machine"), stores.watch("Node")
        self._node_of = self.nodes.index("machine", lambda node: tuple(name for _, name in machine_of(node)))
        self._grace = grace
        self._clock = clock
        self._suspects: dict[tuple[str, str, str], float] = {}  # (scheme, pool, token) → first seen
        self.watches: Mapping[str, Touches] = {
            "Machine": lambda obj: (("", obj["metadata"]["name"]),),
            "Node": machine_of,
        }

    def attach(self, queue: WorkQueue[Key]) -> None:
        queue.add_after(SWEEP, 5.0)

    async def reconcile(self, key: Key) -> float | None:
        if key == SWEEP:
            return await self._sweep()
        return await self._nodes_without_machine(key[1]) if self.machines.get(key[1]) is None else None

    async def _nodes_without_machine(self, name: str) -> float | None:
        nodes = self._node_of.get(name)
        if not nodes or await self.cluster.get(RESOURCES["Machine"], name) is not None:
            return None
        again = None
        for node in nodes:
            provider_id = (node.get("spec") or {}).get("providerID", "")
            provider = self.providers.of_id(provider_id)
            if provider is None:
                continue  # its own provider's controllers remove it
            pool = node["metadata"]["labels"].get(POOL, "")
            if not await self._take_back(provider, pool, token_of(provider_id)):
                again = _AGAIN
                continue
            await self.cluster.delete(RESOURCES["Node"], node["metadata"]["name"], uid=node["metadata"].get("uid", ""))
            self.stores.forget(node)
        return again

    async def _sweep(self) -> float:
        seen = set()
        for provider in self.providers:
            try:
                found = list(await provider.list())
            except ProviderError as error:
                log.warning("provider %s cannot say what there is: %s", provider.scheme, error)
                seen |= {suspect for suspect in self._suspects if suspect[0] == provider.scheme}
                continue
            for pool, instance in found:
                if await self._accounted_for(instance):
                    continue
                suspect = (provider.scheme, pool, instance.client_token)
                seen.add(suspect)
                since = self._suspects.setdefault(suspect, self._clock())
                if self._clock() - since >= self._grace:
                    await self._take_back(provider, pool, instance.client_token)
        self._suspects = {suspect: since for suspect, since in self._suspects.items() if suspect in seen}
        return _PACE

    async def _accounted_for(self, instance: Instance) -> bool:
        machine = self.machines.get(instance.machine)
        if machine is None or machine["spec"]["clientToken"] != instance.client_token:
            machine = await self.cluster.get(RESOURCES["Machine"], instance.machine) if instance.machine else None
        return machine is not None and machine["spec"]["clientToken"] == instance.client_token

    async def _take_back(self, provider: Provider, pool: str, token: str) -> bool:
        log.warning("%s instance %s of pool %s has no Machine: it is removed", provider.scheme, token, pool)
        try:
            gone = await provider.delete(pool, token)
        except ProviderError as error:
            log.warning("%s instance %s is not removed yet: %s", provider.scheme, token, error)
            return False
        if gone:
            LEAKED.inc()
        return gone


def machine_of(node: Object) -> tuple[Key, ...]:
    """The Machine that a Node says it is, as a key."""
    name = (node["metadata"].get("labels") or {}).get(MACHINE)
    return (("", name),) if name else ()
