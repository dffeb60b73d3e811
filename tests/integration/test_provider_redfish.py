"""The Redfish provider against the real sushy-emulator; claims lie in an API server in memory."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from local.controlplane.ports import free_ports
from local.hardware.redfish.farm import PASSWORD, USERNAME, Farm
from operators.pools.providers import Instance, OrderRefused, OutOfCapacity, ProviderError, ProviderOrder
from operators.pools.providers.bmc import Bmc, BmcCalls
from operators.pools.providers.redfish import RedfishProvider
from tests.integration.faulty_proxy import FaultyProxy
from tests.unit.pools.memory_cluster import MemoryCluster
from tests.unit.pools.pool_objects import pool

FLEET = 50


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    folder = Path(tmp_path_factory.mktemp("farm"))
    with Farm(folder, free_ports(1)[0], FLEET, on=["server-0"]) as one:
        yield one


def cluster_with_secret(password: str = PASSWORD) -> MemoryCluster:
    cluster = MemoryCluster()
    text = {"username": USERNAME, "password": password}
    data = {key: base64.b64encode(value.encode()).decode() for key, value in text.items()}
    meta = {"name": "bmc", "namespace": "kekkai-machines"}
    cluster.put({"apiVersion": "v1", "kind": "Secret", "metadata": meta, "data": data})
    return cluster


def metal(hosts: list[dict[str, str]], per_rack: int = 0) -> dict[str, Any]:
    spec = {"redfish": {"hosts": hosts, "credentials": "bmc", "bootFrom": "Pxe"}}
    return pool(provider=spec, interconnect={"nodesPerRack": per_rack})


def order(of: dict[str, Any], slot: int, mark: str = "abc") -> ProviderOrder:
    return ProviderOrder(f"h200-{slot}", f"h200-{slot}-{mark}", of, {}, {})


def provider(cluster: MemoryCluster, calls: BmcCalls | None = None) -> RedfishProvider:
    return RedfishProvider(cluster, calls, settle=13.0)  # type: ignore[arg-type]


async def test_who_is_on_and_claimed_by_nobody_is_left_alone(farm: Farm) -> None:
    cluster = cluster_with_secret()
    of = metal(farm.inventory(names=["server-0"]))
    with pytest.raises(OutOfCapacity, match=r"claimed by nobody|no server is free"):
        await provider(cluster).create(order(of, 0))
    assert farm.power("server-0") == "On"
    (ledger,) = cluster.all("ConfigMap")
    assert ledger["data"] == {}


async def test_wrong_credentials_unknown_systems_and_plain_http_are_refused(farm: Farm) -> None:
    of = metal(farm.inventory(names=["server-1"]))
    with pytest.raises(OrderRefused, match="refuses the credentials") as refused:
        await provider(cluster_with_secret("wrong")).create(order(of, 0))
    assert "wrong" not in str(refused.value)
    calls = BmcCalls()
    with pytest.raises(OrderRefused, match="does not know this system"):
        await calls.state(Bmc(farm.address, "/redfish/v1/Systems/none", USERNAME, PASSWORD))
    with pytest.raises(OrderRefused, match="in the clear"):
        await calls.state(Bmc("http://bmc.example", "", USERNAME, PASSWORD))
    with pytest.raises(ProviderError):
        await calls.state(Bmc(f"http://127.0.0.1:{free_ports(1)[0]}", "", USERNAME, PASSWORD))
    calls.close()


async def test_a_server_of_the_right_rack_is_claimed_once_and_its_token_finds_it_again(farm: Farm) -> None:
    cluster = cluster_with_secret()
    of = metal(farm.inventory(names=[f"server-{n}" for n in range(1, 5)]), per_rack=2)
    first = await provider(cluster).create(order(of, 2))
    again = await provider(cluster).create(order(of, 2))  # another process: the reply was lost
    assert first.provider_id == again.provider_id == "redfish://h200/server-3/h200-2-abc"
    assert first.system_uuid == farm.uuid("server-3")
    assert farm.system("server-3")["Boot"]["BootSourceOverrideTarget"] == "Pxe"
    other = await provider(cluster).create(order(of, 3))
    assert "server-4" in other.provider_id
    with pytest.raises(OutOfCapacity, match="no server is free for slot 2"):
        await provider(cluster).create(order(of, 2, "new"))
    listed = [(pool_name, one.client_token) for pool_name, one in await provider(cluster).list()]
    assert listed == [("h200", "h200-2-abc"), ("h200", "h200-3-abc")]
    # Off, but it may be about to come on: not given up yet.
    assert await provider(cluster).delete("h200", "h200-2-abc") is False


@pytest.mark.campaign
async def test_fifty_servers_go_on_for_demand_and_off_when_idle_through_a_faulty_network(tmp_path: Path) -> None:
    proxy = None
    with Farm(tmp_path, free_ports(1)[0], FLEET) as farm:
        try:
            proxy = FaultyProxy(farm.address, probability=0.08)
            cluster = cluster_with_secret()
            of = metal(farm.inventory(proxy.address), per_rack=10)
            calls = BmcCalls(at_once=16, read_timeout=2.0)
            one = provider(cluster, calls)
            orders = [order(of, slot) for slot in range(FLEET)]
            tries = await asyncio.gather(*(_until_made(one, each) for each in orders))
            await _until(lambda: farm.powered_on() == set(farm.names), "all are on")
            known = await asyncio.gather(*(_until_known(one, each.client_token) for each in orders))
            assert {each.state for each in known} == {"running"}
            assert len({each.provider_id for each in known}) == FLEET
            one = provider(cluster, calls)  # a restart between growth and shrinking
            gone = await asyncio.gather(*(_until_gone(one, each.client_token) for each in orders))
            assert farm.powered_on() == set()
            assert list(await one.list()) == []
            faults = sum(proxy.injected.values())
            print(f"{proxy.requests} requests, {proxy.injected}; {sum(tries)} creates, {sum(gone)} deletes")
            assert faults > 50
            assert all(proxy.injected.values())
            calls.close()
        finally:
            if proxy is not None:
                proxy.close()


async def _until_made(one: RedfishProvider, what: ProviderOrder) -> int:
    for tries in range(1, 60):
        try:
            await one.create(what)
            return tries
        except ProviderError:
            await asyncio.sleep(0.5)
    raise AssertionError(f"{what.machine} was never made")


async def _until_known(one: RedfishProvider, token: str) -> Instance:
    for _ in range(60):
        try:
            found = await one.get("h200", token)
            if found is not None and found.state == "running":
                return found
        except ProviderError:
            pass
        await asyncio.sleep(0.5)
    raise AssertionError(f"{token} does not run")


async def _until_gone(one: RedfishProvider, token: str) -> int:
    for tries in range(1, 120):
        try:
            if await one.delete("h200", token):
                return tries
        except ProviderError:
            pass
        await asyncio.sleep(1.0)
    raise AssertionError(f"{token} does not go")


async def _until(fits: Any, what: str, seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if await asyncio.to_thread(fits):
            return
        await asyncio.sleep(1)
    raise AssertionError(what)
