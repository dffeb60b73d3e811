"""Machines of a Cluster API MachineDeployment.

Its replicas and the tokens they are for (annotation `kekkai.dev/claims`) are written in
ONE patch, so no crash can come between them. A Cluster API Machine is bound to a token by
an annotation of its own; the one that is to go carries `cluster.x-k8s.io/delete-machine`
before the replicas are lowered, which makes its MachineSet delete just that one.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from crds.labels import GROUP, MANAGER_POOLS
from operators.pools.providers.protocol import Instance, OrderRefused, ProviderError, ProviderOrder, State
from operators.runtime import ApiFault, Cluster, ResourceType, Stores
from scheduler.objects.fleet_objects import seconds

CLAIMS = f"{GROUP}/claims"  # on the MachineDeployment: "token=machine", comma separated
TOKEN = f"{GROUP}/client-token"  # on a Cluster API Machine
DELETE = "cluster.x-k8s.io/delete-machine"
_DEPLOYMENT = "cluster.x-k8s.io/deployment-name"  # label on its Machines
_TRIES = 8
Object = dict[str, Any]


class ClusterApiProvider:
    """Scales MachineDeployments and knows their Machines by token."""

    scheme = "clusterApi"

    def __init__(self, cluster: Cluster, stores: Stores, clock: Callable[[], float] = time.time) -> None:
        self._cluster = cluster
        self._pools = stores.watch("AcceleratorPool")
        self._clock = clock
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def create(self, order: ProviderOrder) -> Instance:
        name = order.pool["metadata"]["name"]
        async with self._locks[name]:
            deployment = _Deployment(self._cluster, order.pool)
            claims = await deployment.claim(lambda old: {order.client_token: order.machine} | old)
            return _instance(order.client_token, claims, await deployment.bind(claims))

    async def get(self, pool: str, client_token: str) -> Instance | None:
        async with self._locks[pool]:
            deployment = _Deployment(self._cluster, self._pool(pool))
            claims = await deployment.claim(lambda old: old)
            if client_token not in claims:
                return None
            return _instance(client_token, claims, await deployment.bind(claims))

    async def delete(self, pool: str, client_token: str) -> bool:
        async with self._locks[pool]:
            deployment = _Deployment(self._cluster, self._pool(pool))
            claims = await deployment.claim(lambda old: old)
            machines = await deployment.bind(claims)
            mine = machines.get(client_token)
            if client_token in claims:
                if mine is not None:
                    await deployment.annotate(mine, {DELETE: "true"})
                await deployment.claim(lambda old: {key: name for key, name in old.items() if key != client_token})
            # The annotation stays on the Machine while its infrastructure is taken down.
            return mine is None

    async def list(self) -> Iterable[tuple[str, Instance]]:
        out = []
        for pool in self._pools:
            if self.scheme not in pool["spec"]["provider"]:
                continue
            deployment = _Deployment(self._cluster, pool)
            try:
                claims = await deployment.claim(lambda old: old)
                machines = await deployment.machines()
            except OrderRefused:
                continue  # its pool says so; the other pools' machines are to be seen all the same
            for token, name in sorted(claims.items()):
                found = machines.get(token)
                out.append((pool["metadata"]["name"], _instance(token, {token: name}, {token: found} if found else {})))
        return out

    async def price(self, pool: Mapping[str, Any]) -> float | None:
        return None

    def _pool(self, name: str) -> Mapping[str, Any]:
        found = self._pools.get(name)
        if found is None:
            raise ProviderError("the pool is not there", where=f"AcceleratorPool {name}")
        return found


class _Deployment:
    """One MachineDeployment and its Machines."""

    def __init__(self, cluster: Cluster, pool: Mapping[str, Any]) -> None:
        spec = pool["spec"]["provider"]["clusterApi"]
        version = spec.get("version", "v1beta2")
        self._cluster = cluster
        self._namespace, self._name = spec["namespace"], spec["machineDeployment"]
        self._deployments = ResourceType("cluster.x-k8s.io", version, "machinedeployments", "MachineDeployment", True)
        self._machines = ResourceType("cluster.x-k8s.io", version, "machines", "Machine", True)
        self._where = f"MachineDeployment {self._namespace}/{self._name}"

    async def claim(self, edit: Callable[[dict[str, str]], dict[str, str]]) -> dict[str, str]:
        """Write tokens and replicas at once; token → our machine. What others made of the replicas is mended."""
        for _ in range(_TRIES):
            found = await self._read(self._cluster.get(self._deployments, self._name, self._namespace))
            if found is None:
                raise OrderRefused("it does not exist", where=self._where, fix="make it, with replicas: 0")
            meta = found["metadata"]
            old = _parse((meta.get("annotations") or {}).get(CLAIMS, ""))
            new = edit(dict(old))
            if new == old and found["spec"].get("replicas") == len(new):
                return new
            text = ",".join(f"{token}={machine}" for token, machine in sorted(new.items()))
            patch = {
                "metadata": {"resourceVersion": meta["resourceVersion"], "annotations": {CLAIMS: text}},
                "spec": {"replicas": len(new)},
            }
            try:
                await self._cluster.merge_patch(self._deployments, self._name, patch, MANAGER_POOLS, self._namespace)
                return new
            except ApiFault as fault:
                if not fault.conflict:
                    raise _as_provider_error(fault, self._where) from fault
        raise ProviderError("it changes too fast", where=self._where)

    async def bind(self, claims: Mapping[str, str]) -> dict[str, Object]:
        """Give tokens without a Machine those that have no token, the oldest first. Returns Machines by token."""
        found = await self._all()
        bound = {token: one for one in found if (token := _token(one))}
        loose = [token for token in sorted(claims) if token not in bound]
        free = [one for one in found if not _token(one) and not one["metadata"].get("deletionTimestamp")]
        free.sort(key=lambda one: (one["metadata"].get("creationTimestamp", ""), one["metadata"]["name"]))
        for token, one in zip(loose, free, strict=False):
            await self.annotate(one, {TOKEN: token})
            bound[token] = one
        return bound

    async def machines(self) -> dict[str, Object]:
        """Machines by token, as they are."""
        return {token: one for one in await self._all() if (token := _token(one))}

    async def annotate(self, machine: Object, annotations: Mapping[str, str]) -> None:
        meta = machine["metadata"]
        patch = {"metadata": {"resourceVersion": meta["resourceVersion"], "annotations": dict(annotations)}}
        try:
            await self._cluster.merge_patch(self._machines, meta["name"], patch, MANAGER_POOLS, self._namespace)
        except ApiFault as fault:
            raise _as_provider_error(fault, f"Machine {self._namespace}/{meta['name']}") from fault

    async def _all(self) -> list[Object]:
        selector = f"{_DEPLOYMENT}={self._name}"
        found: list[Object] = await self._read(self._cluster.list(self._machines, self._namespace, selector))
        return found

    async def _read(self, call: Any) -> Any:
        try:
            return await call
        except ApiFault as fault:
            raise _as_provider_error(fault, self._where) from fault


def _parse(text: str) -> dict[str, str]:
    pairs = (part.partition("=") for part in text.split(",") if part)
    return {token: machine for token, _, machine in pairs}


def _token(machine: Object) -> str:
    return str((machine["metadata"].get("annotations") or {}).get(TOKEN, ""))


def _instance(token: str, claims: Mapping[str, str], machines: Mapping[str, Object]) -> Instance:
    machine = machines.get(token)
    if machine is None:
        return Instance("", token, claims.get(token, ""), "creating")
    spec, status = machine.get("spec") or {}, machine.get("status") or {}
    phase = status.get("phase", "")
    states: dict[str, State] = {"Failed": "failed", "Deleting": "deleting", "Running": "running"}
    state: State = "deleting" if machine["metadata"].get("deletionTimestamp") else states.get(phase, "creating")
    fault = str(status.get("failureMessage") or "Cluster API says Failed") if state == "failed" else ""
    return Instance(
        str(spec.get("providerID") or ""),
        token,
        claims.get(token, ""),
        state,
        fault,
        seconds(machine["metadata"].get("creationTimestamp")),
        str((status.get("nodeRef") or {}).get("name") or ""),
    )


def _as_provider_error(fault: ApiFault, where: str) -> ProviderError:
    kind = OrderRefused if fault.final or fault.gone else ProviderError
    return kind(fault.problem.what, where=where)
