"""The external gRPC protocol over real mutual TLS: our service before a generated client, and our provider before it."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import Descriptor

from local.controlplane.pki import Authority
from operators.pools.externalgrpc import CloudProvider, Listening, listen
from operators.pools.externalgrpc.wire import core_pb2
from operators.pools.externalgrpc.wire import externalgrpc_pb2 as pb
from operators.pools.externalgrpc.wire.externalgrpc_pb2_grpc import CloudProviderStub
from operators.pools.providers import ProviderError, ProviderOrder
from operators.pools.providers.externalgrpc import ExternalGrpcProvider
from operators.runtime import Stores
from tests.unit.pools.memory_cluster import MemoryCluster
from tests.unit.pools.pool_objects import pool

KINDS = ("Machine", "AcceleratorPool", "Node")
# Of the names, numbers and types of kubernetes/autoscaler's proto at 55c37cd5eb550756c5ccc5a89e9068d77797e575 …
PUBLISHED = "b4a507224085fede262df052e511d5a838097bd437a0009332db58d47486d3e6"
# … and what its main branch has added since.
ADDED = {
    ("NodeGroupAutoscalingOptions", "maxNodeStartupDuration"),
    ("NodeGroupAutoscalingOptions", "allowNonAtomicScaleUpToMax"),
    ("NodeGroupTemplateNodeInfoResponse", "resourceSliceBytes"),
}


class Side:
    """The cluster whose pools are served, and what its operator and kubelets would do meanwhile."""

    def __init__(self) -> None:
        self.cluster = MemoryCluster()
        external = pool()
        external["spec"]["scaling"] |= {"driver": "External", "max": 6}
        self.cluster.put(external)
        ours = pool()
        ours["metadata"] = {"name": "ours"}
        self.cluster.put(ours)
        self.stores: Stores = self.cluster.stores(*KINDS)
        self.ready = True

    def launch(self, name: str, reason: str = "Launched", **status: Any) -> None:
        true = reason == "Launched"
        self._say(name, [("Launched", true, reason)], **status)

    def join(self, name: str) -> str:
        token = self.machine(name)["spec"]["clientToken"]
        id = f"kwok://tokyo/{token}"
        self._say(
            name,
            [(kind, True, kind) for kind in ("Launched", "Registered", "Initialized")],
            providerID=id,
            nodeName=token,
        )
        return id

    def machine(self, name: str) -> dict[str, Any]:
        return self.cluster.objects["machines", "", name]

    def finish(self) -> None:
        """What is being deleted has been drained and given back."""
        for machine in self.cluster.all("Machine"):
            if machine["metadata"].get("deletionTimestamp"):
                machine["metadata"]["finalizers"] = []
                self.cluster.put(machine)
        self.cluster.sync(self.stores)

    def _say(self, name: str, conditions: list[tuple[str, bool, str]], **status: Any) -> None:
        machine = self.machine(name)
        machine["status"] = {
            "conditions": [
                {"type": kind, "status": str(true), "reason": reason, "message": reason}
                for kind, true, reason in conditions
            ],
            **status,
        }
        self.cluster.put(machine)
        self.cluster.sync(self.stores)


@pytest.fixture
def side() -> Side:
    return Side()


@pytest.fixture
async def served(side: Side, tmp_path: Path) -> AsyncIterator[tuple[int, Authority]]:
    authority = Authority(tmp_path, "external")
    pair = authority.server("server", ("localhost", "127.0.0.1"))
    service = CloudProvider(side.cluster, side.stores, lambda: side.ready)  # type: ignore[arg-type]
    how = Listening("127.0.0.1:0", pair.certificate, pair.key, authority.files.certificate, ("cluster-autoscaler",))
    server, port = await listen(service, how)
    yield port, authority
    await server.stop(None)


def channel(port: int, authority: Authority, user: str = "cluster-autoscaler") -> Any:
    pair = authority.client(user, user)
    credentials = grpc.ssl_channel_credentials(
        authority.files.certificate.read_bytes(), pair.key.read_bytes(), pair.certificate.read_bytes()
    )
    return grpc.aio.secure_channel(f"localhost:{port}", credentials)


@pytest.fixture
async def client(served: tuple[int, Authority]) -> AsyncIterator[Any]:
    async with channel(*served) as one:
        yield CloudProviderStub(one)


def _facts(of: Descriptor, prefix: str = "") -> list[str]:
    name = prefix + of.name
    out = [name]
    for field in of.fields:
        kind = field.message_type or field.enum_type
        full = f".{kind.full_name}" if kind is not None else ""
        label = 3 if field.is_repeated else 1
        if (name, field.name) not in ADDED:
            out.append(str((name, field.name, field.number, field.type, label, full)))
    for enum in of.enum_types:
        out += [str((name, enum.name, one.name, one.number)) for one in enum.values]
    for nested in of.nested_types:
        out += _facts(nested, f"{name}.")
    return out


def test_the_contract_is_the_published_one() -> None:
    facts = [fact for message in pb.DESCRIPTOR.message_types_by_name.values() for fact in _facts(message)]
    for service in pb.DESCRIPTOR.services_by_name.values():
        for method in service.methods:
            types = (f".{method.input_type.full_name}", f".{method.output_type.full_name}")
            facts.append(str((pb.DESCRIPTOR.package, service.name, method.name, *types, False, False)))
    assert hashlib.sha256("\n".join(sorted(facts)).encode()).hexdigest() == PUBLISHED


async def test_groups_sizes_and_the_life_of_their_nodes(side: Side, client: Any) -> None:
    (group,) = (await client.NodeGroups(pb.NodeGroupsRequest())).nodeGroups
    assert (group.id, group.minSize, group.maxSize) == ("h200", 0, 6)
    await client.Refresh(pb.RefreshRequest())
    await client.NodeGroupIncreaseSize(pb.NodeGroupIncreaseSizeRequest(id="h200", delta=3))
    size = await client.NodeGroupTargetSize(pb.NodeGroupTargetSizeRequest(id="h200"))
    assert size.targetSize == 3
    assert [one["spec"]["topology"] for one in side.cluster.all("Machine")] == [{"rack": "h200-rack-0"}] * 3
    node_id = side.join("h200-0")
    side.launch("h200-1", reason="OutOfCapacity")
    side.launch("h200-2", reason="ProviderFailed")
    listed = (await client.NodeGroupNodes(pb.NodeGroupNodesRequest(id="h200"))).instances
    state = {one.id: (one.status.instanceState, one.status.errorInfo.instanceErrorClass) for one in listed}
    assert state[node_id] == (pb.InstanceStatus.instanceRunning, 0)
    assert sorted(state.values()) == [(1, 0), (2, 1), (2, 99)]
    # Decreasing takes none that is a node.
    await client.NodeGroupDecreaseTargetSize(pb.NodeGroupDecreaseTargetSizeRequest(id="h200", delta=-2))
    with pytest.raises(grpc.aio.AioRpcError, match=r"become nodes") as refused:
        await client.NodeGroupDecreaseTargetSize(pb.NodeGroupDecreaseTargetSizeRequest(id="h200", delta=-1))
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    side.finish()
    assert [one["metadata"]["name"] for one in side.cluster.all("Machine")] == ["h200-0"]
    stranger = pb.ExternalGrpcNode(providerID="aws:///x", name="x")
    known = pb.ExternalGrpcNode(providerID=node_id, name="n")
    with pytest.raises(grpc.aio.AioRpcError, match="not of group"):
        await client.NodeGroupDeleteNodes(pb.NodeGroupDeleteNodesRequest(id="h200", nodes=[known, stranger]))
    assert (await client.NodeGroupTargetSize(pb.NodeGroupTargetSizeRequest(id="h200"))).targetSize == 1
    await client.NodeGroupDeleteNodes(pb.NodeGroupDeleteNodesRequest(id="h200", nodes=[known]))
    assert (await client.NodeGroupTargetSize(pb.NodeGroupTargetSizeRequest(id="h200"))).targetSize == 0
    (last,) = (await client.NodeGroupNodes(pb.NodeGroupNodesRequest(id="h200"))).instances
    assert last.status.instanceState == pb.InstanceStatus.instanceDeleting
    await client.Cleanup(pb.CleanupRequest())


async def test_what_it_may_not_do_is_refused(side: Side, client: Any) -> None:
    for bad in (0, -1, 7):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await client.NodeGroupIncreaseSize(pb.NodeGroupIncreaseSizeRequest(id="h200", delta=bad))
        assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    for name in ("ours", "none"):  # a pool with another driver is no group
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await client.NodeGroupIncreaseSize(pb.NodeGroupIncreaseSizeRequest(id=name, delta=1))
        assert refused.value.code() == grpc.StatusCode.NOT_FOUND
    assert side.cluster.all("Machine") == []
    side.ready = False
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await client.Refresh(pb.RefreshRequest())
    assert refused.value.code() == grpc.StatusCode.UNAVAILABLE


async def test_templates_prices_options_and_devices(side: Side, client: Any) -> None:
    reply = await client.NodeGroupTemplateNodeInfo(pb.NodeGroupTemplateNodeInfoRequest(id="h200"))
    node = core_pb2.Node.FromString(reply.nodeBytes)
    assert node.status.allocatable["nvidia.com/gpu"].string == "8"
    assert node.metadata.labels["kekkai.dev/pool"] == "h200"
    assert not node.spec.taints
    label = (await client.GPULabel(pb.GPULabelRequest())).label
    assert node.metadata.labels[label] == "H200"
    assert set((await client.GetAvailableGPUTypes(pb.GetAvailableGPUTypesRequest())).gpuTypes) == {"H200"}
    priced = pb.PricingNodePriceRequest(node=pb.ExternalGrpcNode(labels=dict(node.metadata.labels)))
    priced.startTimestamp.FromSeconds(0)
    priced.endTimestamp.FromSeconds(1800)
    assert (await client.PricingNodePrice(priced)).price == pytest.approx(21.2)
    gpus = core_pb2.ResourceRequirements(requests={"nvidia.com/gpu": core_pb2.Quantity(string="2")})
    pod = core_pb2.Pod(spec=core_pb2.PodSpec(containers=[core_pb2.Container(name="c", resources=gpus)]))
    asked = pb.PricingPodPriceRequest(pod_bytes=pod.SerializeToString())
    asked.endTimestamp.FromSeconds(3600)
    assert (await client.PricingPodPrice(asked)).price == pytest.approx(10.6)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await client.PricingPodPrice(pb.PricingPodPriceRequest(pod_bytes=b"\xff\xff"))
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    defaults = pb.NodeGroupAutoscalingOptions(scaleDownUtilizationThreshold=0.4)
    options = (
        await client.NodeGroupGetOptions(pb.NodeGroupAutoscalingOptionsRequest(id="h200", defaults=defaults))
    ).nodeGroupAutoscalingOptions
    assert options.scaleDownUtilizationThreshold == 0.4
    assert options.scaleDownUnneededDuration.seconds == 6
    assert options.MaxNodeProvisionDuration.seconds == 902


async def test_nodes_of_others_are_left_alone(side: Side, client: Any) -> None:
    await client.NodeGroupIncreaseSize(pb.NodeGroupIncreaseSizeRequest(id="h200", delta=1))
    node_id = side.join("h200-0")
    ours = pb.ExternalGrpcNode(providerID=node_id, labels={"kekkai.dev/machine": "h200-0"})
    assert (await client.NodeGroupForNode(pb.NodeGroupForNodeRequest(node=ours))).nodeGroup.id == "h200"
    # A label alone proves nothing when the provider id says otherwise.
    for node in (pb.ExternalGrpcNode(name="x"), pb.ExternalGrpcNode(providerID="aws:///x", labels=dict(ours.labels))):
        assert (await client.NodeGroupForNode(pb.NodeGroupForNodeRequest(node=node))).nodeGroup.id == ""


async def test_only_named_clients_with_a_certificate_get_in(side: Side, served: tuple[int, Authority]) -> None:
    port, authority = served
    async with channel(port, authority, "somebody") as other:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await CloudProviderStub(other).NodeGroups(pb.NodeGroupsRequest())
        assert refused.value.code() == grpc.StatusCode.PERMISSION_DENIED
    bare = grpc.ssl_channel_credentials(authority.files.certificate.read_bytes())
    async with grpc.aio.secure_channel(f"localhost:{port}", bare) as nobody:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await CloudProviderStub(nobody).NodeGroups(pb.NodeGroupsRequest(), timeout=5)
        assert refused.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


def near(port: int, authority: Authority) -> tuple[ExternalGrpcProvider, MemoryCluster, dict[str, Any]]:
    """Our provider, in a cluster of its own, with the served pool as its node group."""
    cluster = MemoryCluster()
    pair = authority.client("cluster-autoscaler", "cluster-autoscaler")
    files = {"tls.crt": pair.certificate, "tls.key": pair.key, "ca.crt": authority.files.certificate}
    data = {key: base64.b64encode(path.read_bytes()).decode() for key, path in files.items()}
    meta = {"name": "grpc", "namespace": "kekkai-machines"}
    cluster.put({"apiVersion": "v1", "kind": "Secret", "metadata": meta, "data": data})
    spec = {"externalGrpc": {"address": f"localhost:{port}", "nodeGroup": "h200", "tls": "grpc"}}
    return ExternalGrpcProvider(cluster), cluster, pool(provider=spec)  # type: ignore[arg-type]


async def test_our_provider_counts_names_and_deletes(side: Side, served: tuple[int, Authority]) -> None:
    one, cluster, of = near(*served)
    orders = [ProviderOrder(f"h200-{n}", f"token-{n}", of, {}, {}) for n in range(3)]
    made = await asyncio.gather(*(one.create(order) for order in orders))
    again = await ExternalGrpcProvider(cluster).create(orders[0])  # type: ignore[arg-type]
    assert [each.state for each in [*made, again]] == ["creating"] * 4
    assert len(side.cluster.all("Machine")) == 3
    ids = {side.join(f"h200-{n}") for n in range(2)}
    found = [await one.get("h200", f"token-{n}") for n in range(3)]
    assert {each.provider_id for each in found[:2]} == ids  # type: ignore[union-attr]
    assert found[2] is not None
    assert found[2].state == "creating"
    # One that never came is called off; one that runs is deleted by name.
    assert await one.delete("h200", "token-2") is True
    side.finish()
    assert await one.delete("h200", "token-0") is False
    side.finish()
    assert await one.delete("h200", "token-0") is True
    left = [each["status"]["providerID"] for each in side.cluster.all("Machine")]
    assert left == [found[1].provider_id]  # type: ignore[union-attr]
    assert [each.client_token for _, each in await one.list()] == ["token-1"]
    # One that disappears.
    side.cluster.objects.clear()
    side.cluster.put(pool(scaling={"driver": "External", "max": 6}))
    side.cluster.sync(side.stores)
    assert await one.get("h200", "token-1") is None
    assert await one.price(of) == pytest.approx(42.4)


async def test_our_provider_says_what_failed(side: Side, served: tuple[int, Authority]) -> None:
    one, _, of = near(*served)
    await one.create(ProviderOrder("h200-0", "token-0", of, {}, {}))
    side.launch("h200-0", reason="OutOfCapacity")
    found = await one.get("h200", "token-0")
    assert found is not None
    assert found.state == "failed"
    assert "no such machine now" in found.fault
    assert await one.delete("h200", "token-0") is False
    side.finish()
    assert await one.delete("h200", "token-0") is True
    side.ready = False
    with pytest.raises(ProviderError, match="UNAVAILABLE"):
        await one.create(ProviderOrder("h200-1", "token-1", of, {}, {}))
