"""The service: every call of the protocol, over the Machines of external pools."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from decimal import Decimal
from typing import Any, TypeVar

import grpc  # type: ignore[import-untyped]

from crds.errors import InvalidInput, KekkaiError, NotFound
from crds.labels import ACCELERATOR, MANAGER_POOLS
from crds.quantities import micro
from operators.pools.externalgrpc.groups import Groups
from operators.pools.externalgrpc.marshal import pod_spec, template_node
from operators.pools.externalgrpc.wire import externalgrpc_pb2 as pb
from operators.pools.externalgrpc.wire.externalgrpc_pb2_grpc import CloudProviderServicer
from operators.pools.ordering import manifest
from operators.runtime import RESOURCES, ApiFault, Cluster, Stores
from scheduler.objects.node_shape import capacity, pool_labels
from scheduler.objects.pod_requests import pod_requests, read_amounts

T = TypeVar("T")
log = logging.getLogger(__name__)
_MACHINE = RESOURCES["Machine"]
_STATES = {
    "running": pb.InstanceStatus.instanceRunning,
    "creating": pb.InstanceStatus.instanceCreating,
    "deleting": pb.InstanceStatus.instanceDeleting,
}


class CloudProvider(CloudProviderServicer):
    """Answers a Cluster Autoscaler. `ready` says whether the caches are filled and we are the leader."""

    def __init__(self, cluster: Cluster, stores: Stores, ready: Callable[[], bool]) -> None:
        self._cluster = cluster
        self._stores = stores
        self._ready = ready
        self._groups = Groups(stores)
        self._sizing: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def NodeGroups(self, request: pb.NodeGroupsRequest, context: Any) -> pb.NodeGroupsResponse:
        async def answer() -> pb.NodeGroupsResponse:
            return pb.NodeGroupsResponse(nodeGroups=[_group(pool) for pool in self._groups.all()])

        return await self._answer(context, answer)

    async def NodeGroupForNode(self, request: pb.NodeGroupForNodeRequest, context: Any) -> pb.NodeGroupForNodeResponse:
        async def answer() -> pb.NodeGroupForNodeResponse:
            machine = self._groups.of_node(request.node.providerID, request.node.name, request.node.labels)
            if machine is None:
                return pb.NodeGroupForNodeResponse(nodeGroup=pb.NodeGroup())
            return pb.NodeGroupForNodeResponse(nodeGroup=_group(self._groups.get(machine["spec"]["pool"])))

        return await self._answer(context, answer)

    async def PricingNodePrice(self, request: pb.PricingNodePriceRequest, context: Any) -> pb.PricingNodePriceResponse:
        async def answer() -> pb.PricingNodePriceResponse:
            pool = self._groups.pool_of_labels(request.node.labels)
            return pb.PricingNodePriceResponse(price=_price(pool) * _hours(request))

        return await self._answer(context, answer)

    async def PricingPodPrice(self, request: pb.PricingPodPriceRequest, context: Any) -> pb.PricingPodPriceResponse:
        async def answer() -> pb.PricingPodPriceResponse:
            spec = pod_spec(request.pod_bytes)
            prices = [_price(pool) * share for pool in self._groups.all() if (share := _share(pool, spec)) is not None]
            if not prices:
                raise NotFound("the pod fits no node group", where="pod_bytes")
            return pb.PricingPodPriceResponse(price=min(prices) * _hours(request))

        return await self._answer(context, answer)

    async def GPULabel(self, request: pb.GPULabelRequest, context: Any) -> pb.GPULabelResponse:
        return pb.GPULabelResponse(label=ACCELERATOR)

    async def GetAvailableGPUTypes(
        self, request: pb.GetAvailableGPUTypesRequest, context: Any
    ) -> pb.GetAvailableGPUTypesResponse:
        async def answer() -> pb.GetAvailableGPUTypesResponse:
            reply = pb.GetAvailableGPUTypesResponse()
            for pool in self._groups.all():
                reply.gpuTypes[pool["spec"]["accelerator"]["type"]].SetInParent()
            return reply

        return await self._answer(context, answer)

    async def Cleanup(self, request: pb.CleanupRequest, context: Any) -> pb.CleanupResponse:
        """It holds nothing for a client: the autoscaler may come and go."""
        return pb.CleanupResponse()

    async def Refresh(self, request: pb.RefreshRequest, context: Any) -> pb.RefreshResponse:
        """Watches keep everything fresh; it fails while they do not, so that the autoscaler waits."""

        async def answer() -> pb.RefreshResponse:
            return pb.RefreshResponse()

        return await self._answer(context, answer)

    async def NodeGroupTargetSize(
        self, request: pb.NodeGroupTargetSizeRequest, context: Any
    ) -> pb.NodeGroupTargetSizeResponse:
        async def answer() -> pb.NodeGroupTargetSizeResponse:
            self._groups.get(request.id)
            return pb.NodeGroupTargetSizeResponse(targetSize=len(self._groups.standing(request.id)))

        return await self._answer(context, answer)

    async def NodeGroupIncreaseSize(
        self, request: pb.NodeGroupIncreaseSizeRequest, context: Any
    ) -> pb.NodeGroupIncreaseSizeResponse:
        async def answer() -> pb.NodeGroupIncreaseSizeResponse:
            pool = self._groups.get(request.id)
            async with self._sizing[request.id]:
                wanted = self._groups.requests(request.id, request.delta)
                machines = [manifest(one, pool, secrets.token_hex(3)) for one in wanted]
                await _all_or_error([self._make(machine) for machine in machines])
            return pb.NodeGroupIncreaseSizeResponse()

        return await self._answer(context, answer)

    async def NodeGroupDeleteNodes(
        self, request: pb.NodeGroupDeleteNodesRequest, context: Any
    ) -> pb.NodeGroupDeleteNodesResponse:
        async def answer() -> pb.NodeGroupDeleteNodesResponse:
            pool = self._groups.get(request.id)
            async with self._sizing[request.id]:
                found = [self._member(request.id, node) for node in request.nodes]  # all are known, or nothing happens
                going = {one["metadata"]["name"]: one for one in found if not one["metadata"].get("deletionTimestamp")}
                left, least = len(self._groups.standing(request.id)) - len(going), pool["spec"]["scaling"].get("min", 0)
                if going and left < least:
                    raise InvalidInput(f"{left} machines would be left, fewer than the minimum {least}", where="nodes")
                await _all_or_error([self._remove(machine) for machine in going.values()])
            return pb.NodeGroupDeleteNodesResponse()

        return await self._answer(context, answer)

    async def NodeGroupDecreaseTargetSize(
        self, request: pb.NodeGroupDecreaseTargetSizeRequest, context: Any
    ) -> pb.NodeGroupDecreaseTargetSizeResponse:
        async def answer() -> pb.NodeGroupDecreaseTargetSizeResponse:
            self._groups.get(request.id)
            if request.delta >= 0:
                raise InvalidInput(f"delta is {request.delta}", where="delta", fix="give a negative number")
            async with self._sizing[request.id]:
                machines = self._groups.unfulfilled(request.id, -request.delta)
                await _all_or_error([self._remove(machine) for machine in machines])
            return pb.NodeGroupDecreaseTargetSizeResponse()

        return await self._answer(context, answer)

    async def NodeGroupNodes(self, request: pb.NodeGroupNodesRequest, context: Any) -> pb.NodeGroupNodesResponse:
        async def answer() -> pb.NodeGroupNodesResponse:
            self._groups.get(request.id)
            instances = []
            for one in self._groups.members(request.id):
                error = pb.InstanceErrorInfo(
                    errorCode=one.error_code, errorMessage=one.error_message, instanceErrorClass=one.error_class
                )
                status = pb.InstanceStatus(instanceState=_STATES[one.state], errorInfo=error)
                instances.append(pb.Instance(id=one.id, status=status))
            return pb.NodeGroupNodesResponse(instances=instances)

        return await self._answer(context, answer)

    async def NodeGroupTemplateNodeInfo(
        self, request: pb.NodeGroupTemplateNodeInfoRequest, context: Any
    ) -> pb.NodeGroupTemplateNodeInfoResponse:
        async def answer() -> pb.NodeGroupTemplateNodeInfoResponse:
            return pb.NodeGroupTemplateNodeInfoResponse(nodeBytes=template_node(self._groups.get(request.id)))

        return await self._answer(context, answer)

    async def NodeGroupGetOptions(
        self, request: pb.NodeGroupAutoscalingOptionsRequest, context: Any
    ) -> pb.NodeGroupAutoscalingOptionsResponse:
        async def answer() -> pb.NodeGroupAutoscalingOptionsResponse:
            spec = self._groups.get(request.id)["spec"]
            options = pb.NodeGroupAutoscalingOptions()
            options.CopyFrom(request.defaults)
            options.scaleDownUnneededDuration.FromSeconds(spec["scaling"].get("scaleDownDelaySeconds", 600))
            boot = max((int((one or {}).get("bootSeconds", 0)) for one in spec["provider"].values()), default=0)
            join = (spec.get("repair") or {}).get("joinTimeoutSeconds", 900)
            options.MaxNodeProvisionDuration.FromSeconds(boot + join)
            return pb.NodeGroupAutoscalingOptionsResponse(nodeGroupAutoscalingOptions=options)

        return await self._answer(context, answer)

    def _member(self, group: str, node: pb.ExternalGrpcNode) -> dict[str, Any]:
        machine = self._groups.of_node(node.providerID, node.name, node.labels)
        if machine is None or machine["spec"]["pool"] != group:
            raise InvalidInput(f"node {node.name or node.providerID} is not of group {group}", where="nodes")
        return machine

    async def _make(self, machine: dict[str, Any]) -> None:
        self._stores.observe(await self._cluster.create(machine, MANAGER_POOLS))

    async def _remove(self, machine: Mapping[str, Any]) -> None:
        name = machine["metadata"]["name"]
        await self._cluster.delete(_MACHINE, name, uid=machine["metadata"]["uid"])
        left = await self._cluster.get(_MACHINE, name)  # so that the next question sees the new size
        if left is None:
            self._stores.forget(dict(machine))
        else:
            self._stores.observe(left)

    async def _answer(self, context: Any, work: Callable[[], Awaitable[T]]) -> T:
        if not self._ready():
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the operator is starting, or is not the leader")
        try:
            return await work()
        except NotFound as error:
            code, said = grpc.StatusCode.NOT_FOUND, str(error)
        except InvalidInput as error:
            code, said = grpc.StatusCode.INVALID_ARGUMENT, str(error)
        except ApiFault as error:
            code, said = grpc.StatusCode.UNAVAILABLE, str(error)
        except KekkaiError as error:
            code, said = grpc.StatusCode.INTERNAL, str(error)
        await context.abort(code, said[:1024])
        raise AssertionError  # abort raises


async def _all_or_error(calls: list[Awaitable[None]]) -> None:
    """Wait for all, then raise the first fault: what succeeded counts, and the target size says so."""
    for result in await asyncio.gather(*calls, return_exceptions=True):
        if isinstance(result, BaseException):
            raise result


def _group(pool: Mapping[str, Any]) -> pb.NodeGroup:
    spec, name = pool["spec"], pool["metadata"]["name"]
    scaling, accelerator = spec["scaling"], spec["accelerator"]
    debug = f"{name}: {accelerator['perNode']} {accelerator['type']} a node at site {spec['site']}"
    return pb.NodeGroup(id=name, minSize=scaling.get("min", 0), maxSize=scaling["max"], debug=debug)


def _price(pool: Mapping[str, Any]) -> float:
    return float(Decimal(micro((pool["spec"].get("price") or {}).get("perNodeHour", "0"))) / 1_000_000)


def _hours(request: Any) -> float:
    start, end = request.startTimestamp, request.endTimestamp
    seconds = end.seconds - start.seconds + (end.nanos - start.nanos) / 1e9
    if seconds < 0:
        raise InvalidInput("it is before startTimestamp", where="endTimestamp")
    return float(seconds / 3600)


def _share(pool: Mapping[str, Any], spec: Mapping[str, Any]) -> float | None:
    """How much of a node the pod takes, 0 to 1; None when it does not fit."""
    if not spec["nodeSelector"].items() <= pool_labels(pool).items():
        return None
    have = read_amounts(capacity(pool))
    share = 0.0
    for resource, amount in pod_requests(spec).items():
        if amount > have.get(resource, 0):
            return None
        share = max(share, amount / have[resource] if amount else 0.0)
    return share
