"""Objects become the scheduler's states exactly, and the feed follows events."""

from __future__ import annotations

from typing import Any

from crds.labels import DRAIN_TAINT, READY, STARTUP_TAINT, TENANT
from operators.planning.decisions import Decisions
from operators.planning.feed import Feed
from operators.runtime import Stores
from scheduler import MachineRequest, Taint
from scheduler.objects.fleet_objects import machine_state, node_state, pool_state, tenant_state
from scheduler.objects.node_shape import capacity, machine_labels
from tests.unit.pools.pool_objects import machine, node, pool
from tests.unit.workloads.workload_objects import NAME, job, pod, workload

SITE: dict[str, Any] = {
    "kind": "Site",
    "metadata": {"name": "tokyo", "uid": "s", "resourceVersion": "1"},
    "spec": {"jurisdiction": "JP"},
}
TIB = 2**40


def test_a_node_takes_pods_only_when_ready_untainted_and_staying() -> None:
    assert node_state(node()).ready
    assert node_state(node()).allocatable == {"cpu": 192000, "memory": 2 * TIB, "pods": 110, "nvidia.com/gpu": 8}
    assert not node_state(node(ready=False)).ready
    assert not node_state(node(taints=(STARTUP_TAINT,))).ready
    assert not node_state(node(taints=("node.kubernetes.io/not-ready",))).ready
    assert not node_state(node(taints=(DRAIN_TAINT,))).schedulable
    assert not node_state(node(unschedulable=True)).schedulable
    assert not node_state(node(), machine(going=True)).schedulable
    assert node_state(node(taints=("mine", STARTUP_TAINT))).taints == (Taint("mine", "", "NoSchedule"),)


def test_a_pool_promises_the_nodes_that_it_will_get() -> None:
    state = pool_state(pool(), SITE)
    assert (state.jurisdiction, state.accepting, state.price_micro) == ("JP", True, 42_400_000)
    assert state.allocatable["nvidia.com/gpu"] == 8
    real = machine_labels(pool(), machine())
    assert {label: real[label] for label in state.labels} == state.labels
    assert capacity(pool())["memory"] == "2Ti"
    assert not pool_state(pool(), None).accepting


def test_a_machine_is_its_status_or_its_node() -> None:
    assert machine_state(machine(), "").node == ""
    assert machine_state(machine(), "h200-0-abc").node == "h200-0-abc"
    assert machine_state(machine(nodeName="n"), "").rack == "h200-rack-0"
    assert machine_state(machine(going=True), "").going


def test_a_tenant() -> None:
    state = tenant_state(
        {
            "metadata": {"name": "t"},
            "spec": {
                "weight": 7,
                "quota": [{"accelerator": "H200", "nominal": 8, "borrow": 2}],
                "isolation": {"level": "dedicated", "pools": ["p"]},
                "residency": {"jurisdictions": ["JP"]},
                "parent": "org",
                "queueing": "strict",
                "priorityCeiling": -3,
                "hold": True,
                "drain": True,
            },
        }
    )
    assert (state.parent, state.strict, state.priority_ceiling) == ("org", True, -3)
    assert (state.hold, state.drain) == (True, True)
    assert (state.weight, state.quota["H200"].borrow, state.isolation) == (7, 2, "dedicated")
    assert (state.pools, state.jurisdictions) == (frozenset({"p"}), frozenset({"JP"}))
    plain = tenant_state({"metadata": {"name": "t"}, "spec": {"queueing": "bestEffort"}})
    assert (plain.parent, plain.strict, plain.priority_ceiling, plain.drain) == ("", False, None, False)


def namespace(ready: bool = True) -> dict[str, Any]:
    labels = {TENANT: "t", READY: "true" if ready else "false"}
    version = "1" if ready else "2"
    return {"kind": "Namespace", "metadata": {"name": "a", "uid": "ns", "resourceVersion": version, "labels": labels}}


class World:
    """Stores with a feed on them."""

    def __init__(self, *objects: dict[str, Any]) -> None:
        self.stores = Stores()
        self.decisions = Decisions()
        self.feed = Feed(self.stores, self.decisions)
        self.fleet = self.feed.fleet
        for obj in (SITE, namespace(), *objects):
            self.stores.observe(obj)
        self.feed.refresh()

    def see(self, obj: dict[str, Any], version: int) -> bool:
        obj["metadata"]["resourceVersion"] = str(version)
        self.stores.observe(obj)
        return self.feed.refresh()

    def used(self, resource: str) -> int:
        table = self.fleet.table
        return int(table.used[table.rows["h200-0-abc"], table.column(resource)])


GPU = "nvidia.com/gpu"


def test_a_waiting_workload_is_pending_only_in_a_ready_namespace() -> None:
    world = World(pool(), job(), workload())
    assert list(world.fleet.pending) == [f"a/{NAME}"]
    assert world.feed.counts == {"t": {"pending": 1, "admitted": 0}}
    world.stores.observe(namespace(ready=False))
    assert world.feed.refresh()
    assert list(world.fleet.pending) == []


def test_an_event_that_changes_nothing_asks_for_no_plan() -> None:
    world = World(pool(), node(), job(), workload())
    assert not world.see(node(), 99)
    assert not world.see(job(active=1), 99)


def test_admitted_pods_are_counted_once_and_ended_pods_not() -> None:
    one = workload({"h200-0-abc": 2}, count=2)
    world = World(pool(), machine(), node(), job(2, 2, False), one, pod("a", "h200-0-abc", "Running"))
    assert world.used(GPU) == 4
    assert world.fleet.use.devices == {("t", "H200"): 4}
    world.see(pod("a", "h200-0-abc", "Succeeded"), 3)
    assert world.see(job(2, 2, False, succeeded=1), 9)
    assert world.used(GPU) == 2


def test_pods_that_outlive_their_workload_still_take_room() -> None:
    one = workload({"h200-0-abc": 1})
    world = World(pool(), node(), job(1, 1, False), one, pod("a", "h200-0-abc", "Running"))
    world.stores.forget(job())
    world.stores.forget(one)
    world.feed.refresh()
    assert world.fleet.use.devices == {}
    assert world.used(GPU) == 2
    world.stores.forget(pod("a"))
    world.feed.refresh()
    assert world.used(GPU) == 0


def test_a_pod_that_others_bound_takes_room() -> None:
    stranger = pod("s", "h200-0-abc", "Running")
    stranger["metadata"]["ownerReferences"] = []
    world = World(pool(), node(), stranger)
    assert world.used("cpu") == 1000
    assert list(world.fleet.pods) == ["a/s"]


def test_a_decided_machine_counts_as_coming_until_it_is_written() -> None:
    world = World(pool())
    world.decisions.requests["h200-0"] = MachineRequest("h200", "h200-0", "", "r", "", "why")
    world.feed.mark("Machine", "h200-0")
    assert world.feed.refresh()
    assert not world.fleet.machines["h200-0"].going
    world.stores.observe(machine())
    world.decisions.requests.clear()
    world.feed.refresh()
    assert world.fleet.machines["h200-0"].rack == "h200-rack-0"


def test_a_decided_removal_takes_the_node_out_at_once() -> None:
    world = World(pool(), machine(), node())
    world.decisions.removals["h200-0"] = "idle"
    world.feed.mark("Machine", "h200-0")
    world.feed.mark("Node", "h200-0-abc")
    assert world.feed.refresh()
    assert world.fleet.machines["h200-0"].going
    assert not world.fleet.nodes["h200-0-abc"].schedulable
    world.stores.forget(machine())
    world.feed.refresh()
    assert world.decisions.removals == {}


def test_a_restart_finds_the_same_fleet() -> None:
    objects = [pool(), machine(), node(), job(2, 2, False), workload({"h200-0-abc": 2}, count=2)]
    pods = [pod("a", "h200-0-abc", "Running"), pod("b", "h200-0-abc", bound=False)]
    grown = World(*objects)
    for one in pods:
        grown.stores.observe(one)
        grown.feed.refresh()
    fresh = World(*reversed([*objects, *pods]))
    assert grown.fleet.use.devices == fresh.fleet.use.devices
    assert grown.used(GPU) == fresh.used(GPU) == 4
    assert grown.fleet.workloads == fresh.fleet.workloads


def test_one_unreadable_object_does_not_stop_the_others() -> None:
    broken = node()
    broken["metadata"]["name"] = "broken"
    broken["status"]["allocatable"]["cpu"] = "lots"
    world = World(pool(), broken, node())
    assert list(world.fleet.nodes) == ["h200-0-abc"]
