"""Data flow through a real Prometheus that scrapes emulated services: what is read, what is told, what is followed."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from crds.dataflow import PodsRead, PrometheusRead
from crds.errors import Unavailable
from local.services import EmulatedService, Flow
from local.services import Prometheus as Server
from operators.dataflow import Prometheus
from operators.dataflow.pod_pages import PodPages
from operators.dataflow.promql import query
from scheduler.dataflow import FlowSpec, Observation, RateClass, Sample, SignalSpec, Target, start, step
from scheduler.dataflow.samples import Counter
from tests.unit.dataflow.flows import reversals

MB = 1e6
FASTER = 15.0  # the decision's clock runs so many times faster than the wall's
RATE = PrometheusRead(metric="service_requests_total", read="rate", window_seconds=5)
WAITING = PrometheusRead(metric="service_waiting")
LATENCY = PrometheusRead(metric="service_latency_seconds", read="quantile", window_seconds=5)


@pytest.fixture
def flowing(tmp_path: Path) -> Iterator[Server]:
    with (
        EmulatedService("chat", "blue", Flow(requests=lambda _: 40.0), carries=10.0, ready=5) as service,
        EmulatedService("chat", "green", Flow(requests=lambda _: 9000.0), carries=10.0, ready=5) as other,
        Server(tmp_path, [service.address, other.address], interval=0.5) as server,
    ):
        yield server


async def _until_value(client: Prometheus, what: str, least: float = 0.0, seconds: float = 20.0) -> Sample:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        sample = await client.read(what, time.time())
        if sample is not None and sample.value >= least:
            return sample
        await asyncio.sleep(0.25)
    raise AssertionError(f"nothing to be read by {what}")


async def test_signals_are_read_from_prometheus_and_only_of_the_own_namespace(
    flowing: Server,
) -> None:
    client = Prometheus(flowing.url)
    try:
        rate = await _until_value(client, query(RATE, "blue"), least=20)
        assert 20 <= rate.value <= 60, "green's 9,000 a second are not in it"
        assert 0 <= time.time() - rate.at < 5
        assert (await _until_value(client, query(WAITING, "blue"))).value == pytest.approx(0, abs=1)
        assert (await _until_value(client, query(LATENCY, "blue"))).value < 1
        assert await client.read(query(WAITING, "red"), time.time()) is None
        flowing.stop()
        with pytest.raises(Unavailable) as error:
            await client.read(query(RATE, "blue"), time.time())
        assert error.value.problem.reason == "PrometheusUnreachable"
    finally:
        await client.close()


async def test_a_services_own_page_is_read_without_prometheus() -> None:
    with EmulatedService("chat", "blue", Flow(requests=lambda _: 0.0), carries=1.0) as service:
        pages = PodPages(address=lambda pod: "127.0.0.1")
        pods = [{"metadata": {"uid": uid}, "spec": {}, "status": {}} for uid in ("a", "b")]
        counters: dict[str, Counter] = {}
        total = PodsRead(port=service.port, metric="service_requests_total", read="rate")
        try:
            assert await pages.read(total, pods, counters, 100.0) is None, "one reading is no rate"
            service._requests.inc(30)
            sample = await pages.read(total, pods, counters, 110.0)
            assert sample is not None
            assert sample.value == pytest.approx(2 * 3.0)
            nothing = PodsRead(port=service.port, path="/nothing", metric="service_waiting")
            assert await pages.read(nothing, pods, {}, 110.0) is None
        finally:
            await pages.close()


class _Follower:
    """The decision on a service that runs: what it reads comes through Prometheus, what it says is done."""

    def __init__(self, service: EmulatedService, client: Prometheus) -> None:
        self.service, self.client = service, client
        self.spec = FlowSpec(
            signals=(
                SignalSpec("requests", "requests", capacity=8.0),
                SignalSpec("waiting", "queueDepth", of="requests", per_item=1 / FASTER),
                SignalSpec("ingress", "ingressBytes"),
                SignalSpec("writes", "storageWriteBytes"),
            ),
            max_replicas=60,
            startup=45.0,
            window=120.0,
            band=0.25,
            quantile=0.9,
            bandwidth=(RateClass("b1", 11 * MB), RateClass("b2", 40 * MB, 20_000)),
            volume_io=(RateClass("slow", 150 * MB), RateClass("fast", 1000 * MB, 3_000_000)),
            shared_volume=True,
            bandwidth_interval=60.0,
            volume_io_interval=240.0,
        )
        self.memory = start(self.spec)
        self.replicas = service.ready
        self.coming: list[tuple[float, int]] = []
        self.classes = {"bandwidth": "b1", "volume_io": "slow"}
        self.targets: list[Target] = []
        self.reads = {
            "requests": RATE,
            "waiting": WAITING,
            "ingress": PrometheusRead(metric="service_ingress_bytes_total", read="rate", window_seconds=5),
            "writes": PrometheusRead(metric="service_write_bytes_total", read="rate", window_seconds=5),
        }

    async def turn(self) -> None:
        now = time.monotonic() * FASTER
        samples: dict[str, Sample | None] = {}
        for name, read in self.reads.items():
            try:
                found = await self.client.read(query(read, self.service.namespace), time.time())
            except Unavailable:
                found = None
            samples[name] = None if found is None else Sample(found.value, now - (time.time() - found.at) * FASTER)
        self.service.ready += sum(count for at, count in self.coming if at <= now)
        self.coming = [one for one in self.coming if one[0] > now]
        link, disk = self.classes["bandwidth"], self.classes["volume_io"]
        seen = Observation(now, samples, self.replicas, self.service.ready, link, link, disk, disk)
        target, self.memory = step(self.spec, self.memory, seen)
        self.classes = {"bandwidth": target.bandwidth, "volume_io": target.volume_io}
        if target.replicas > self.replicas:
            self.coming.append((now + 45.0, target.replicas - self.replicas))
        elif target.replicas < self.replicas:
            self.coming = []
            self.service.ready = min(self.service.ready, target.replicas)
        self.replicas = target.replicas
        self.targets.append(target)

    @property
    def counts(self) -> list[int]:
        return [one.replicas for one in self.targets]


SHAPES = {
    "step": lambda t: 180.0 if 20 <= t < 55 else 30.0,
    "ramp": lambda t: 30.0 + 150.0 * min(1.0, max(0.0, (t - 15) / 30)) if t < 55 else 30.0,
    "spike": lambda t: 240.0 if 25 <= t < 32 else 30.0,
    "sinusoid": lambda t: 110.0 - 80.0 * math.cos(t / 45 * 2 * math.pi),
}


@pytest.mark.campaign
async def test_step_ramp_spike_and_sinusoid_are_followed_up_and_down_and_silence_holds(tmp_path: Path) -> None:
    """90 s of wall time are 22 minutes of the decision's."""
    services = [EmulatedService(name, name, Flow(shape), carries=10.0, ready=5) for name, shape in SHAPES.items()]
    for one in services:
        one.__enter__()
    server = Server(tmp_path, [one.address for one in services], interval=1.0)
    server.start()
    client = Prometheus(server.url)
    followers = {one.name: _Follower(one, client) for one in services}
    began = time.monotonic()
    try:
        for one in services:
            one.began = began
        while time.monotonic() - began < 92:
            await asyncio.gather(*(one.turn() for one in followers.values()))
            await asyncio.sleep(1.0)
        for name, one in followers.items():
            counts = one.counts
            story = f"{name}: {counts} {[(t.bandwidth, t.volume_io) for t in one.targets]}"
            assert max(counts) >= 12, story
            assert one.service.waiting < 60, story
            links, disks = ([getattr(t, what) for t in one.targets] for what in ("bandwidth", "volume_io"))
            assert "fast" in disks, story
            assert reversals(disks) <= 2, story
            assert reversals(links) <= 2, story
            if name != "sinusoid":
                assert counts[-1] <= max(counts) / 1.8, story
                assert disks[-1] == "slow", story
                assert reversals(counts[8:]) <= 4, story  # up and down; and once more, a little, after a spike
            else:
                assert reversals(counts[8:]) <= 5, story
        server.stop()
        before = {name: (one.replicas, dict(one.classes)) for name, one in followers.items()}
        for _ in range(20):
            await asyncio.gather(*(one.turn() for one in followers.values()))
            await asyncio.sleep(0.5)
        for name, one in followers.items():
            assert (one.replicas, one.classes) == before[name]
            assert set(one.targets[-1].states.values()) == {"Missing"}
            assert "nothing shrinks" in one.targets[-1].held
    finally:
        await client.close()
        server.stop()
        for one in services:
            one.__exit__()
