"""The process is killed between any two steps of a Machine's life; whoever comes after leaves nothing behind."""

from __future__ import annotations

import copy
import random
from datetime import UTC, datetime
from typing import Any

import pytest

from crds.conditions import is_true
from crds.labels import MACHINE, POOL, STARTUP_TAINT
from operators.planning.decisions import Decisions
from operators.pools.backoff import Backoff
from operators.pools.leaks import SWEEP, LeakController
from operators.pools.machines import MachineController
from operators.pools.ordering import Ordering
from operators.pools.providers import Instance, OutOfCapacity, ProviderError, ProviderOrder, Providers
from operators.runtime import RESOURCES, ApiFault, Stores
from scheduler import MachineRequest
from tests.unit.pools.memory_cluster import MemoryCluster
from tests.unit.pools.pool_objects import node, pool

KINDS = ("Machine", "AcceleratorPool", "Node", "Pod")


class Killed(BaseException):
    """kill -9: nothing catches it."""


class Cloud:
    """A provider outside of the cluster, whose instances join as nodes when the test lets time pass."""

    scheme = "kwok"

    def __init__(self, cluster: MemoryCluster) -> None:
        self.cluster = cluster
        self.instances: dict[str, Instance] = {}
        self.made = 0
        self.before: Any = lambda call: None
        self.after: Any = lambda call: None

    async def create(self, order: ProviderOrder) -> Instance:
        self.before("create")
        if order.client_token not in self.instances:
            self.made += 1
            name = f"kwok://tokyo/{order.client_token}"
            self.instances[order.client_token] = Instance(name, order.client_token, order.machine)
        self.after("create")
        return self.instances[order.client_token]

    async def get(self, pool: str, client_token: str) -> Instance | None:
        self.before("get")
        return self.instances.get(client_token)

    async def delete(self, pool: str, client_token: str) -> bool:
        self.before("delete")
        self.instances.pop(client_token, None)
        self.after("delete")
        return True

    async def list(self) -> list[tuple[str, Instance]]:
        return [("h200", one) for one in self.instances.values()]

    async def price(self, pool: Any) -> float | None:
        return None

    def join(self, stuck: frozenset[str] = frozenset()) -> None:
        """Kubelets of new instances register."""
        known = {one["spec"].get("providerID") for one in self.cluster.all("Node")}
        for token, one in self.instances.items():
            if one.provider_id not in known and token not in stuck:
                made = node()
                made["metadata"] = {"name": token, "labels": {POOL: "h200", MACHINE: one.machine}}
                made["spec"]["providerID"] = one.provider_id
                self.cluster.put(made)


def _request(name: str) -> MachineRequest:
    return MachineRequest("h200", name, "", "h200-rack-0", "", "test")


class Process:
    """One life of the operator: its caches and controllers. Its work queues are the test's loop."""

    def __init__(self, cluster: MemoryCluster, cloud: Cloud, clock: list[float]) -> None:
        self.cluster = cluster
        self.stores: Stores = cluster.stores(*KINDS)
        providers = Providers([cloud])
        backoff = Backoff(lambda: clock[0])
        self.machines = MachineController(cluster, self.stores, providers, backoff, lambda: clock[0])  # type: ignore[arg-type]
        self.leaks = LeakController(cluster, self.stores, providers, 60.0, lambda: clock[0])  # type: ignore[arg-type]
        self.decisions = Decisions()
        self.ordering = Ordering(cluster, self.stores, self.decisions, backoff)  # type: ignore[arg-type]

    async def ask(self, names: list[str]) -> None:
        for name in names:
            self.decisions.requests[name] = _request(name)
            await self.ordering.reconcile(("", name))

    async def turn(self) -> None:
        """Visit everything once, as events and timers would; a fault comes again, as the work queue does it."""
        self.cluster.sync(self.stores)
        names = {one["metadata"]["name"] for one in self.stores.watch("Machine")}
        names |= {name for one in self.stores.watch("Node") if (name := one["metadata"]["labels"].get(MACHINE))}
        for controller in (self.machines, self.leaks):
            for name in sorted(names):
                try:
                    await controller.reconcile(("", name))
                except ApiFault:
                    continue
        await self.leaks.reconcile(SWEEP)


def world() -> tuple[MemoryCluster, Cloud]:
    cluster = MemoryCluster()
    cluster.born = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    big = pool()
    big["spec"]["scaling"]["maxConcurrentLaunches"] = 100
    cluster.put(big)
    return cluster, Cloud(cluster)


async def live_and_die(cluster: MemoryCluster, cloud: Cloud, die_at: int, after: bool) -> tuple[int, bool]:
    """Three machines come and one goes; the process dies at one of its effects. (effects seen, whether it died)"""
    clock, count, died = [0.0], 0, False

    def step(*_: str) -> None:
        nonlocal count, died
        count += 1
        if count == die_at and not died:
            died = True
            raise Killed

    def arm(on: bool) -> None:
        nothing = lambda *_: None  # noqa: E731
        hook = step if on else nothing
        cluster.before, cluster.after = (nothing, hook) if after else (hook, nothing)
        cloud.before, cloud.after = (nothing, hook) if after else (hook, nothing)

    process = Process(cluster, cloud, clock)

    async def do(what: Any) -> None:
        nonlocal process
        arm(True)
        try:
            await what(process)
        except Killed:
            process = Process(cluster, cloud, clock)  # what it held in memory is gone
            await what(process)
        finally:
            arm(False)

    names = ["h200-0", "h200-1", "h200-2"]

    async def order(one: Process) -> None:
        await one.ask(names)

    async def remove(one: Process) -> None:
        await cluster.delete(RESOURCES["Machine"], "h200-1")

    await do(order)
    for _ in range(3):
        await do(lambda one: one.turn())
        cloud.join()
    await do(remove)
    for _ in range(6):
        clock[0] += 40.0
        await do(lambda one: one.turn())
        cloud.join()
    return count, died


def counts(cluster: MemoryCluster, cloud: Cloud) -> tuple[set[str], set[str], set[str]]:
    machines = {one["spec"]["clientToken"] for one in cluster.all("Machine")}
    nodes = {one["metadata"]["name"] for one in cluster.all("Node")}
    return machines, set(cloud.instances), nodes


@pytest.mark.parametrize("after", [False, True], ids=["before the effect", "after the effect"])
async def test_killed_at_every_single_effect_machines_instances_and_nodes_agree(after: bool) -> None:
    cluster, cloud = world()
    effects, died = await live_and_die(cluster, cloud, die_at=0, after=after)
    assert not died
    assert effects > 15
    for die_at in range(1, effects + 1):
        cluster, cloud = world()
        _, died = await live_and_die(cluster, cloud, die_at, after)
        machines, instances, nodes = counts(cluster, cloud)
        assert died, die_at
        assert machines == instances == nodes, die_at
        assert {one["metadata"]["name"] for one in cluster.all("Machine")} == {"h200-0", "h200-2"}, die_at
        assert all(is_true(one, "Ready") for one in cluster.all("Machine")), die_at
        assert cloud.made == 3, die_at


class Faulty(Cloud):
    """5xx, timeouts after which the call took effect all the same, quota; at random, from a seed."""

    def __init__(self, cluster: MemoryCluster, seed: int) -> None:
        super().__init__(cluster)
        self.chance = random.Random(seed)
        self.broken = True

        def fail(call: str) -> None:
            if self.broken and self.chance.random() < 0.3:
                raise self.chance.choice([ProviderError("503"), ProviderError("timed out"), OutOfCapacity("quota")])

        self.before = fail
        self.after = fail  # it was done, and the reply was lost


@pytest.mark.parametrize("seed", range(8))
async def test_a_faulty_provider_and_random_kills_converge(seed: int) -> None:
    cluster, _ = world()
    cloud = Faulty(cluster, seed)
    chance = random.Random(seed)
    clock = [0.0]
    process = Process(cluster, cloud, clock)
    names = [f"h200-{number}" for number in range(6)]
    budget = chance.randrange(5, 40)

    def kill(*_: str) -> None:
        nonlocal budget
        budget -= 1
        if budget == 0:
            budget = chance.randrange(5, 40)
            raise Killed

    for turn in range(40):
        cloud.broken = turn < 25
        cluster.before = cluster.after = kill if cloud.broken else (lambda *_: None)
        clock[0] += 45.0
        try:
            await process.ask(names)
            await process.turn()
        except Killed:
            process = Process(cluster, cloud, clock)
        except ApiFault:
            pass
        cloud.join()
        if cloud.broken and chance.random() < 0.2 and cloud.instances:
            lost = chance.choice(sorted(cloud.instances))  # one that disappears, node and all
            del cloud.instances[lost]
            cluster.objects.pop(("nodes", "", lost), None)
    machines, instances, nodes = counts(cluster, cloud)
    assert machines == instances == nodes
    assert {one["metadata"]["name"] for one in cluster.all("Machine")} == set(names)
    assert all(is_true(one, "Ready") for one in cluster.all("Machine"))


async def test_one_that_never_joins_is_replaced_and_its_successor_waits_longer_each_time() -> None:
    cluster, cloud = world()
    clock = [0.0]
    process = Process(cluster, cloud, clock)
    waits = []
    for _ in range(3):
        process.decisions.requests["h200-0"] = _request("h200-0")
        wait = await process.ordering.reconcile(("", "h200-0"))
        waits.append(wait)
        if wait:
            clock[0] += wait
            assert await process.ordering.reconcile(("", "h200-0")) is None
        await process.turn()
        (machine,) = cluster.all("Machine")
        for condition in machine["status"]["conditions"]:
            condition["lastTransitionTime"] = "2020-01-01T00:00:00Z"  # long ago
        cluster.put(machine)
        for _ in range(3):
            await process.turn()
        assert cluster.all("Machine") == []
        assert cloud.instances == {}
    assert waits == [None, 10.0, 20.0]


async def test_a_leak_is_taken_only_after_its_grace_and_only_if_nobody_owns_it() -> None:
    cluster, cloud = world()
    clock = [0.0]
    process = Process(cluster, cloud, clock)
    await process.ask(["h200-0"])
    await process.turn()
    cloud.instances["old"] = Instance("kwok://tokyo/old", "old", "h200-9")
    # A Machine of that name exists, with another token: the instance is of an earlier one.
    cloud.instances["h200-0-old"] = Instance("kwok://tokyo/h200-0-old", "h200-0-old", "h200-0")
    kept = copy.deepcopy(cloud.instances)
    await process.leaks.reconcile(SWEEP)
    clock[0] += 30
    await process.leaks.reconcile(SWEEP)
    assert cloud.instances == kept
    clock[0] += 31
    await process.leaks.reconcile(SWEEP)
    (machine,) = cluster.all("Machine")
    assert set(cloud.instances) == {machine["spec"]["clientToken"]}


async def test_a_node_whose_taints_changed_unseen_is_read_again() -> None:
    cluster, cloud = world()
    process = Process(cluster, cloud, [0.0])
    await process.ask(["h200-0"])
    await process.turn()
    cloud.join()
    (token,) = cloud.instances
    starting = cluster.objects["nodes", "", token]
    starting["spec"]["taints"] = [{"key": STARTUP_TAINT, "effect": "NoSchedule"}, {"key": "a", "effect": "NoSchedule"}]
    starting["status"]["conditions"][0]["status"] = "False"
    cluster.put(starting)
    await process.turn()  # its labels are completed; it is not ready
    starting = cluster.objects["nodes", "", token]
    starting["status"]["conditions"][0]["status"] = "True"
    cluster.put(starting)
    cluster.sync(process.stores)
    changed = cluster.objects["nodes", "", token]
    changed["spec"]["taints"] = [{"key": STARTUP_TAINT, "effect": "NoSchedule"}]
    cluster.put(changed)  # the watch is late
    with pytest.raises(ApiFault):
        await process.machines.reconcile(("", "h200-0"))
    await process.machines.reconcile(("", "h200-0"))
    assert cluster.objects["nodes", "", token]["spec"]["taints"] == []
