"""Machines of somebody's provider that speaks Cluster Autoscaler's external gRPC protocol.

The protocol knows sizes, not tokens: instances come without a name. So each token has a
claim (see `claims`), the group's target size is made equal to the number of claims, and
an instance that runs is bound to a claim that has none. A lost reply does no harm, since
every call begins by asking for the target size. The node group belongs to the pool alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import grpc  # type: ignore[import-untyped]

from operators.pools.externalgrpc.wire import externalgrpc_pb2 as pb
from operators.pools.externalgrpc.wire.externalgrpc_pb2_grpc import CloudProviderStub
from operators.pools.providers.claims import Claim, Claims, Ledger
from operators.pools.providers.protocol import Instance, OrderRefused, OutOfCapacity, ProviderError, ProviderOrder
from operators.pools.providers.secrets import Credentials
from operators.runtime import Cluster
from scheduler.objects.node_shape import pool_labels

_DEADLINE = 20.0  # seconds a call
_OUT_OF_RESOURCES = 1  # InstanceErrorClass
_DELETING = pb.InstanceStatus.instanceDeleting
_CREATING = pb.InstanceStatus.instanceCreating
Dial = Callable[[str, Mapping[str, bytes]], Any]


class ExternalGrpcProvider:
    """Sizes node groups and names their instances."""

    scheme = "externalGrpc"

    def __init__(self, cluster: Cluster, dial: Dial | None = None, clock: Callable[[], float] = time.time) -> None:
        self._claims = Claims(cluster, self.scheme)
        self._credentials = Credentials(cluster)
        self._dial = dial or _dial
        self._clock = clock
        self._channels: dict[tuple[str, str], Any] = {}  # (address, digest of the credentials) → channel
        self._sizing: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def create(self, order: ProviderOrder) -> Instance:
        pool, token = order.pool["metadata"]["name"], order.client_token
        spec = order.pool["spec"]["provider"]["externalGrpc"]
        claim = {
            "machine": order.machine,
            "at": self._clock(),
            "instance": "",
            "address": spec["address"],
            "group": spec["nodeGroup"],
            "tls": spec["tls"],
        }
        await self._claims.change(pool, lambda ledger: {token: claim} | ledger)
        found = await self._look(pool, token)
        if found is None:
            raise ProviderError("the instance came and went while it was made", where=f"node group {claim['group']}")
        return found

    async def get(self, pool: str, client_token: str) -> Instance | None:
        return await self._look(pool, client_token)

    async def delete(self, pool: str, client_token: str) -> bool:
        async with self._sizing[pool]:
            ledger = await self._claims.change(pool, lambda old: _marked(old, client_token))
            claim = ledger.get(client_token)
            if claim is None:
                return True
            stub = await self._stub(claim)
            ledger, listed = await self._settle(pool, claim, stub)
            claim = ledger[client_token]
            instance = listed.get(claim["instance"])
            if instance is not None:
                if instance.status.instanceState != _DELETING:
                    node = pb.ExternalGrpcNode(providerID=instance.id, name=claim.get("node", "") or instance.id)
                    await _call(
                        stub.NodeGroupDeleteNodes, pb.NodeGroupDeleteNodesRequest(id=claim["group"], nodes=[node])
                    )
                return False
            if not claim["instance"] and await self._target(stub, claim) > _live(ledger, claim):
                return False  # it is on its way and cannot be called off any more
            await self._claims.change(pool, lambda old: {key: one for key, one in old.items() if key != client_token})
            return True

    async def list(self) -> Iterable[tuple[str, Instance]]:
        out = []
        for pool in await self._claims.pools():
            for token, claim in (await self._claims.read(pool)).items():
                out.append((pool, _instance(token, claim, None)))
        return out

    async def price(self, pool: Mapping[str, Any]) -> float | None:
        spec = pool["spec"]["provider"]["externalGrpc"]
        stub = await self._stub({"address": spec["address"], "tls": spec["tls"]})
        request = pb.PricingNodePriceRequest(node=pb.ExternalGrpcNode(labels=pool_labels(pool)))
        request.startTimestamp.FromSeconds(int(self._clock()))
        request.endTimestamp.FromSeconds(int(self._clock()) + 3600)
        try:
            reply = await stub.PricingNodePrice(request, timeout=_DEADLINE)
        except grpc.RpcError as error:
            if error.code() == grpc.StatusCode.UNIMPLEMENTED:
                return None
            raise _as_provider_error(error) from error
        return float(reply.price)

    async def _look(self, pool: str, token: str) -> Instance | None:
        async with self._sizing[pool]:
            claim = (await self._claims.read(pool)).get(token)
            if claim is None:
                return None
            ledger, listed = await self._settle(pool, claim, await self._stub(claim))
            claim = ledger[token]
            instance = listed.get(claim["instance"])
            return None if claim["instance"] and instance is None else _instance(token, claim, instance)

    async def _settle(self, pool: str, like: Claim, stub: Any) -> tuple[Ledger, dict[str, pb.Instance]]:
        """Make the target size that of the claims, and bind what runs. Returns the ledger and what there is, by id."""
        group = like["group"]
        ledger = await self._claims.read(pool)
        target, live = await self._target(stub, like), _live(ledger, like)
        if target < live:
            await _call(stub.NodeGroupIncreaseSize, pb.NodeGroupIncreaseSizeRequest(id=group, delta=live - target))
        reply = await _call(stub.NodeGroupNodes, pb.NodeGroupNodesRequest(id=group))
        listed = {one.id: one for one in reply.instances}
        ledger = await self._claims.change(pool, lambda old: _bound(old, like, listed))
        loose = sum(1 for one in ledger.values() if _same(one, like) and one.get("going") and not one["instance"])
        if target > live and loose:
            request = pb.NodeGroupDecreaseTargetSizeRequest(id=group, delta=-min(target - live, loose))
            with contextlib.suppress(ProviderError):  # fulfilled meanwhile: it will be bound and deleted by name
                await _call(stub.NodeGroupDecreaseTargetSize, request)
        return ledger, listed

    async def _target(self, stub: Any, claim: Claim) -> int:
        reply = await _call(stub.NodeGroupTargetSize, pb.NodeGroupTargetSizeRequest(id=claim["group"]))
        return int(reply.targetSize)

    async def _stub(self, claim: Mapping[str, Any]) -> Any:
        secret = await self._credentials.read(claim["tls"], "tls.crt", "tls.key", "ca.crt")
        digest = hashlib.sha256(b"\0".join(secret[key] for key in sorted(secret))).hexdigest()
        key = (claim["address"], digest)
        if key not in self._channels:
            for old in [one for one in self._channels if one[0] == claim["address"]]:
                await self._channels.pop(old).close()
            self._channels[key] = self._dial(claim["address"], secret)
        return CloudProviderStub(self._channels[key])


def _dial(address: str, secret: Mapping[str, bytes]) -> Any:
    credentials = grpc.ssl_channel_credentials(secret["ca.crt"], secret["tls.key"], secret["tls.crt"])
    return grpc.aio.secure_channel(address, credentials)


async def _call(method: Any, request: Any) -> Any:
    try:
        return await method(request, timeout=_DEADLINE)
    except grpc.RpcError as error:
        raise _as_provider_error(error) from error


def _as_provider_error(error: Any) -> ProviderError:
    code = error.code()
    kind: type[ProviderError] = ProviderError
    if code == grpc.StatusCode.RESOURCE_EXHAUSTED:
        kind = OutOfCapacity
    elif code in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.PERMISSION_DENIED):
        kind = OrderRefused
    return kind(f"{code.name}: {error.details()}"[:512], where="external gRPC provider")


def _same(one: Claim, like: Claim) -> bool:
    return (one["address"], one["group"]) == (like["address"], like["group"])


def _live(ledger: Ledger, like: Claim) -> int:
    return sum(1 for one in ledger.values() if _same(one, like) and not one.get("going"))


def _marked(ledger: Ledger, token: str) -> Ledger:
    return {**ledger, token: {**ledger[token], "going": True}} if token in ledger else ledger


def _bound(ledger: Ledger, like: Claim, listed: Mapping[str, pb.Instance]) -> Ledger:
    """Claims without an instance take those that nobody has: running or failed ones, in the order of their ids.

    One that is being created has no lasting name yet, and is left.
    """
    taken = {one["instance"] for one in ledger.values()}
    free = [
        id
        for id, one in sorted(listed.items())
        if id not in taken
        and one.status.instanceState != _DELETING
        and (one.status.instanceState != _CREATING or one.status.errorInfo.errorCode)
    ]
    loose = [token for token, one in ledger.items() if _same(one, like) and not one["instance"]]
    loose.sort(key=lambda token: (bool(ledger[token].get("going")), ledger[token]["at"], token))
    return ledger | {token: {**ledger[token], "instance": id} for token, id in zip(loose, free, strict=False)}


def _instance(token: str, claim: Claim, listed: pb.Instance | None) -> Instance:
    error = listed.status.errorInfo if listed is not None else pb.InstanceErrorInfo()
    if claim.get("going"):
        state: Any = "deleting"
    elif error.errorCode:
        state = "failed"
    else:
        state = "running" if claim["instance"] else "creating"
    fault = f"{error.errorCode}: {error.errorMessage}" if error.errorCode else ""
    if error.instanceErrorClass == _OUT_OF_RESOURCES:
        fault = f"the provider has no such machine now ({fault})"
    return Instance(claim["instance"], token, claim["machine"], state, fault, float(claim["at"]))
