"""Repairs applied: cordon, drain by the Eviction API, replace; the breaker; a person's cordon; expiry."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from crds.labels import DO_NOT_DISRUPT, DRAINING_SINCE, MACHINE, POOL, REPAIR, XIDS
from operators.pools.repair import RepairBoard, RepairController, policy_of, read_xids
from operators.runtime import RESOURCES
from scheduler.autoscale.repair import XidSeen
from tests.unit.pools.memory_cluster import MemoryCluster
from tests.unit.pools.pool_objects import machine, node, pool

START = datetime(2026, 1, 1, tzinfo=UTC).timestamp()


class Fleet:
    """A pool of ready machines, and the controller before it."""

    def __init__(self, count: int, **repair: Any) -> None:
        self.cluster = MemoryCluster()
        self.cluster.put(pool(repair=repair))
        self.now = START + 60
        for number in range(count):
            name, token = f"h200-{number}", f"h200-{number}-abc"
            one = machine("Launched", "Registered", "Initialized", providerID=f"kwok://tokyo/{token}", nodeName=token)
            one["metadata"] |= {"name": name, "uid": f"machine-{number}"}
            self.cluster.put(one)
            its = node()
            its["metadata"] = {"name": token, "labels": {POOL: "h200", MACHINE: name}}
            its["spec"]["providerID"] = f"kwok://tokyo/{token}"
            self.cluster.put(its)
        self.stores = self.cluster.stores("Machine", "AcceleratorPool", "Node", "Pod")
        self.board = RepairBoard()
        self.controller = RepairController(self.cluster, self.stores, self.board, lambda: self.now)  # type: ignore[arg-type]

    def node(self, number: int) -> dict[str, Any]:
        return self.cluster.objects["nodes", "", f"h200-{number}-abc"]

    def mark(self, number: int, **annotations: str) -> None:
        self.node(number)["metadata"].setdefault("annotations", {}).update(annotations)
        self.cluster.put(self.node(number))

    def sicken(self, *numbers: int) -> None:
        for number in numbers:
            self.node(number)["status"]["conditions"] = [
                {"type": "Ready", "status": "Unknown", "lastTransitionTime": "2026-01-01T00:00:00Z"}
            ]
            self.cluster.put(self.node(number))

    def run(self, name: str, number: int, **annotations: str) -> None:
        meta = {"name": name, "namespace": "a", "annotations": annotations}
        spec = {"nodeName": f"h200-{number}-abc", "containers": []}
        self.cluster.put({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec, "status": {}})

    async def turn(self, seconds: float = 10.0, times: int = 1) -> None:
        for _ in range(times):
            self.now += seconds
            self.cluster.sync(self.stores)
            await self.controller.reconcile(("", "h200"))
        self.cluster.sync(self.stores)

    def going(self) -> set[str]:
        return {
            one["metadata"]["name"] for one in self.cluster.all("Machine") if one["metadata"].get("deletionTimestamp")
        }


async def test_a_broken_device_is_cordoned_drained_and_replaced() -> None:
    fleet = Fleet(5)
    fleet.run("work", 2)
    fleet.mark(2, **{XIDS: "79/0@2026-01-01T00:00:30Z"})
    await fleet.turn()
    assert fleet.node(2)["spec"]["unschedulable"] is True
    assert "Xid 79" in fleet.node(2)["metadata"]["annotations"][REPAIR]
    fleet.cluster.blocked = {"work"}
    await fleet.turn(times=3)
    assert DRAINING_SINCE in fleet.node(2)["metadata"]["annotations"]
    assert fleet.going() == set()  # a disruption budget holds it
    fleet.cluster.blocked = set()
    await fleet.turn(times=3)
    assert fleet.going() == {"h200-2"}
    assert fleet.cluster.all("Pod") == []


async def test_one_that_recovers_before_its_drain_is_released() -> None:
    fleet = Fleet(5)
    fleet.run("work", 0, **{DO_NOT_DISRUPT: "true"})
    fleet.mark(0, **{XIDS: "79@2026-01-01T00:00:30Z"})
    await fleet.turn(times=3)
    assert fleet.node(0)["spec"]["unschedulable"] is True
    assert DRAINING_SINCE not in fleet.node(0)["metadata"]["annotations"]
    fleet.mark(0, **{XIDS: ""})
    await fleet.turn()
    assert "unschedulable" not in fleet.node(0)["spec"]
    assert REPAIR not in fleet.node(0)["metadata"]["annotations"]


async def test_the_breaker_stops_all_repairs_and_says_so() -> None:
    fleet = Fleet(5)
    fleet.sicken(0, 1)
    told: list[str] = []
    fleet.board.changed = told.append
    await fleet.turn(seconds=700, times=3)
    assert fleet.going() == set()
    assert not any("unschedulable" in fleet.node(number)["spec"] for number in range(5))
    assert "2 of 5" in fleet.board.held["h200"]
    assert told
    again = Fleet(10)
    again.sicken(0, 1)
    await again.turn(seconds=700, times=4)
    assert again.going() == {"h200-0", "h200-1"}
    assert again.board.held == {}


async def test_what_a_person_keeps_cordoned_is_left_alone() -> None:
    fleet = Fleet(5)
    fleet.sicken(3)
    fleet.node(3)["spec"]["unschedulable"] = True
    fleet.cluster.put(fleet.node(3))
    await fleet.turn(seconds=700, times=4)
    assert fleet.going() == set()
    assert REPAIR not in (fleet.node(3)["metadata"].get("annotations") or {})


async def test_missing_devices_are_given_time() -> None:
    fleet = Fleet(5, devicesMissingSeconds=100)
    fleet.node(1)["status"]["allocatable"]["nvidia.com/gpu"] = "7"
    fleet.cluster.put(fleet.node(1))
    await fleet.turn(seconds=50, times=2)
    assert "unschedulable" not in fleet.node(1)["spec"]
    await fleet.turn(seconds=60, times=4)
    assert fleet.going() == {"h200-1"}


async def test_the_expired_go_one_at_a_time_and_idle_ones_need_no_eviction() -> None:
    fleet = Fleet(3, expireAfterSeconds=3600)
    await fleet.turn(seconds=1800)
    assert fleet.going() == set()
    await fleet.turn(seconds=1800, times=3)
    assert len(fleet.going()) == 1
    await fleet.turn(seconds=10, times=3)
    assert len(fleet.going()) == 1


async def test_repairs_may_be_turned_off() -> None:
    fleet = Fleet(5, enabled=False)
    fleet.sicken(0)
    await fleet.turn(seconds=10_000, times=3)
    assert fleet.going() == set()
    await fleet.cluster.delete(RESOURCES["AcceleratorPool"], "h200")
    await fleet.turn()
    assert fleet.board.ill == {}


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("", ()),
        ("79@1970-01-01T00:00:10Z", (XidSeen(79, 10.0),)),
        ("79/3@1970-01-01T00:00:10Z, 31@1970-01-01T00:00:11Z", (XidSeen(79, 10.0, "3"), XidSeen(31, 11.0))),
        ("x@y,79,48@never,,48@1970-01-01T00:00:01Z", (XidSeen(79, 0.0), XidSeen(48, 1.0))),
    ],
)
def test_xids_are_read_and_nonsense_is_skipped(text: str, seen: tuple[XidSeen, ...]) -> None:
    assert read_xids(text) == seen


def test_a_pools_patience_is_what_its_spec_says() -> None:
    conditions = [{"type": "NvLinkDown", "patienceSeconds": 5}]
    policy = policy_of(pool(repair={"breakerPercent": 35, "conditions": conditions, "drainTimeoutSeconds": 7}))
    assert (policy.breaker, policy.conditions, policy.drain_timeout) == (0.35, {"NvLinkDown": 5.0}, 7.0)
