"""Cluster API and Karpenter behind the provider protocol, their controllers played on an API server in memory."""

from __future__ import annotations

from typing import Any

import pytest

from local.capacity import ClusterApiController, KarpenterController
from local.capacity.cluster_api import DEPLOYMENTS, MACHINES
from operators.pools.providers import OrderRefused, ProviderOrder
from operators.pools.providers.cluster_api import CLAIMS, DELETE, TOKEN, ClusterApiProvider
from operators.pools.providers.karpenter import KarpenterProvider, node_claim
from scheduler.objects.node_shape import capacity, machine_labels, startup_taint
from tests.unit.pools.memory_cluster import MemoryCluster
from tests.unit.pools.pool_objects import machine, pool

CAPI = {"clusterApi": {"namespace": "fleet", "machineDeployment": "gpu", "version": "v1beta2"}}
CLASS = {"group": "karpenter.k8s.aws", "kind": "EC2NodeClass", "name": "gpu"}
KARPENTER = {"karpenter": {"nodeClassRef": CLASS, "instanceTypes": ["p5en.48xlarge"], "capacityTypes": ["spot"]}}


def order(of: dict[str, Any], token: str) -> ProviderOrder:
    labels = machine_labels(of, machine())
    return ProviderOrder("h200-0", token, of, labels, capacity(of), (startup_taint(),))


class Killed(BaseException):
    pass


def capi_world(replicas: int = 0) -> tuple[MemoryCluster, dict[str, Any]]:
    cluster = MemoryCluster()
    meta = {"name": "gpu", "namespace": "fleet"}
    made = {"apiVersion": DEPLOYMENTS.api_version, "kind": "MachineDeployment", "metadata": meta}
    cluster.put({**made, "spec": {"replicas": replicas}})
    of = pool(provider=CAPI)
    cluster.put(of)
    return cluster, of


def provider(cluster: MemoryCluster) -> ClusterApiProvider:
    return ClusterApiProvider(cluster, cluster.stores("AcceleratorPool"))  # type: ignore[arg-type]


def replicas(cluster: MemoryCluster) -> int:
    return int(cluster.objects["machinedeployments", "fleet", "gpu"]["spec"]["replicas"])


async def capi_machines(cluster: MemoryCluster) -> list[dict[str, Any]]:
    return await cluster.list(MACHINES, "fleet")


async def test_replicas_and_tokens_are_one_patch_and_a_token_is_one_machine() -> None:
    cluster, of = capi_world()
    controller = ClusterApiController(cluster)  # type: ignore[arg-type]
    for token in ("a", "b", "a"):
        assert (await provider(cluster).create(order(of, token))).state == "creating"
    assert replicas(cluster) == 2
    for _ in range(2):
        await controller.step()
    found = [await provider(cluster).get("h200", token) for token in ("a", "b")]
    ids = {one.provider_id for one in found if one is not None}
    assert len(ids) == 2
    assert {one.state for one in found if one is not None} == {"running"}
    listed = await provider(cluster).list()
    assert sorted(one.client_token for _, one in listed) == ["a", "b"]


async def test_the_very_machine_of_the_token_goes() -> None:
    cluster, of = capi_world()
    controller = ClusterApiController(cluster)  # type: ignore[arg-type]
    for token in ("a", "b", "c"):
        await provider(cluster).create(order(of, token))
    for _ in range(2):
        await controller.step()
    one = await provider(cluster).get("h200", "b")
    assert one is not None
    assert await provider(cluster).delete("h200", "b") is False
    assert replicas(cluster) == 2
    for _ in range(2):
        await controller.step()
    assert await provider(cluster).delete("h200", "b") is True
    left = await capi_machines(cluster)
    assert one.node not in {each["metadata"]["name"] for each in left}
    assert {each["metadata"]["annotations"][TOKEN] for each in left} == {"a", "c"}
    assert not any(DELETE in each["metadata"]["annotations"] for each in left)
    assert await provider(cluster).get("h200", "b") is None


async def test_what_another_hand_did_to_the_replicas_is_mended() -> None:
    cluster, of = capi_world(replicas=7)
    await provider(cluster).create(order(of, "a"))
    assert replicas(cluster) == 1
    cluster.objects["machinedeployments", "fleet", "gpu"]["spec"]["replicas"] = 5
    await provider(cluster).get("h200", "a")
    assert replicas(cluster) == 1
    assert cluster.objects["machinedeployments", "fleet", "gpu"]["metadata"]["annotations"][CLAIMS] == "a=h200-0"


async def test_a_deployment_that_is_not_there_is_refused() -> None:
    cluster, of = capi_world()
    cluster.objects.pop(("machinedeployments", "fleet", "gpu"))
    with pytest.raises(OrderRefused, match="does not exist"):
        await provider(cluster).create(order(of, "a"))


@pytest.mark.parametrize("after", [False, True])
async def test_cluster_api_survives_a_kill_at_every_write(after: bool) -> None:
    async def life(cluster: MemoryCluster, of: dict[str, Any], die_at: int) -> int:
        count = 0

        def step(*_: str) -> None:
            nonlocal count
            count += 1
            if count == die_at:
                raise Killed

        async def do(name: str, *arguments: Any) -> Any:
            nothing = lambda *_: None  # noqa: E731
            cluster.before, cluster.after = (nothing, step) if after else (step, nothing)
            try:
                return await getattr(provider(cluster), name)(*arguments)
            except Killed:
                return await getattr(provider(cluster), name)(*arguments)
            finally:
                cluster.before = cluster.after = nothing

        controller = ClusterApiController(cluster)  # type: ignore[arg-type]
        for token in ("a", "b"):
            await do("create", order(of, token))
        for _ in range(3):
            await controller.step()
            await do("get", "h200", "a")
        for _ in range(6):
            gone = await do("delete", "h200", "a")
            await controller.step()
        assert gone
        return count

    writes = await life(*capi_world(), die_at=0)
    assert writes >= 5
    for die_at in range(1, writes + 1):
        cluster, of = capi_world()
        await life(cluster, of, die_at)
        left = await capi_machines(cluster)
        assert [one["metadata"]["annotations"].get(TOKEN) for one in left] == ["b"], die_at
        assert replicas(cluster) == 1, die_at
        assert len(cluster.all("Node")) == 1, die_at


def test_a_node_claim_says_what_the_pool_and_the_machine_say() -> None:
    claim = node_claim(order(pool(provider=KARPENTER), "t"))
    assert claim["metadata"]["name"] == "t"
    assert claim["spec"]["nodeClassRef"] == CLASS
    needs = {one["key"]: one["values"] for one in claim["spec"]["requirements"]}
    assert needs["karpenter.sh/capacity-type"] == ["spot"]
    assert needs["node.kubernetes.io/instance-type"] == ["p5en.48xlarge"]
    assert claim["spec"]["resources"]["requests"]["nvidia.com/gpu"] == "8"
    assert claim["spec"]["startupTaints"] == [startup_taint()]
    assert claim["metadata"]["labels"]["kekkai.dev/rack"] == "h200-rack-0"
    assert "node.kubernetes.io/instance-type" not in claim["metadata"]["labels"]


async def test_node_claims_come_go_and_may_be_refused_for_want_of_capacity() -> None:
    cluster, of = MemoryCluster(), pool(provider=KARPENTER)
    one = KarpenterProvider(cluster)  # type: ignore[arg-type]
    sold_out: set[str] = {"c"}
    controller = KarpenterController(cluster, sold_out.__contains__)  # type: ignore[arg-type]
    for token in ("a", "a", "b", "c"):
        await one.create(order(of, token))
    assert len(await one.list()) == 3  # type: ignore[arg-type]
    await controller.step()
    found = await one.get("h200", "a")
    assert found is not None
    assert (found.state, found.provider_id, found.node) == ("running", "emulated:///karpenter/a", "a")
    assert await one.get("h200", "c") is None
    assert await one.delete("h200", "a") is False
    await controller.step()
    assert await one.delete("h200", "a") is True
    assert [each["metadata"]["name"] for each in cluster.all("Node")] == ["b"]


async def test_a_node_claim_of_somebody_else_is_neither_taken_nor_deleted() -> None:
    cluster, of = MemoryCluster(), pool(provider=KARPENTER)
    cluster.put({"apiVersion": "karpenter.sh/v1", "kind": "NodeClaim", "metadata": {"name": "a"}, "spec": {}})
    one = KarpenterProvider(cluster)  # type: ignore[arg-type]
    with pytest.raises(OrderRefused, match="not ours"):
        await one.create(order(of, "a"))
    assert await one.delete("h200", "a") is True
    assert ("nodeclaims", "", "a") in cluster.objects
    assert await one.list() == []
