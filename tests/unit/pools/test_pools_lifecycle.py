"""A Machine's steps: launch, registration, initialization, drain, removal."""

from __future__ import annotations

from datetime import UTC, datetime

from crds.conditions import find
from crds.labels import DRAIN_TAINT, STARTUP_TAINT
from operators.pools.drain import DEADLINE, to_leave
from operators.pools.lifecycle import BOOT_DEADLINE, advance
from operators.pools.providers import Instance, OutOfCapacity, ProviderError
from operators.pools.scope import Scope
from tests.unit.pools.pool_objects import MemoryProvider, Writes, machine, node, pool, scope

CREATED = datetime(2026, 1, 1, tzinfo=UTC)


def condition(one: Scope, kind: str) -> tuple[str, str]:
    found = find(one.conditions, kind)
    assert found is not None, kind
    return found["status"], found["reason"]


def later(seconds: float) -> datetime:
    return datetime.fromtimestamp(CREATED.timestamp() + seconds, UTC)


def plain_pod(name: str, **meta: object) -> dict:
    return {
        "metadata": {"name": name, "namespace": "a", "uid": name, **meta},
        "spec": {},
        "status": {"phase": "Running"},
    }


async def test_first_visit_launches_and_writes_all_conditions() -> None:
    one = scope(machine(), now=CREATED)
    await advance(one)
    assert one.provider_id == "kwok://tokyo/h200-0-abc"
    assert condition(one, "Launched") == ("True", "Launched")
    assert condition(one, "Registered") == ("False", "NodeNotSeen")
    assert {c["type"] for c in one.conditions} == {"Ready", "Launched", "Registered", "Initialized", "Drained"}


async def test_a_lost_reply_makes_no_second_instance() -> None:
    provider = MemoryProvider()
    await advance(scope(machine(), provider, now=CREATED))
    await advance(scope(machine(), provider, now=CREATED))  # the status was never written
    assert list(provider.instances) == ["h200-0-abc"]


async def test_no_capacity_is_said_and_tried_again() -> None:
    provider = MemoryProvider()
    provider.failure = OutOfCapacity("no H200 today")
    one = scope(machine(), provider, now=CREATED)
    assert await advance(one) == 30.0
    assert condition(one, "Launched") == ("False", "OutOfCapacity")
    assert condition(one, "Ready") == ("False", "OutOfCapacity")


async def test_not_more_start_at_once_than_the_pool_allows() -> None:
    provider = MemoryProvider()
    one = scope(machine(), provider, starting=2, now=CREATED)
    assert await advance(one) == 2.0
    assert condition(one, "Launched") == ("False", "Throttled")
    assert provider.calls == []


async def test_a_node_that_is_not_ready_or_lacks_devices_keeps_its_taint() -> None:
    for its_node, reason in ((node(ready=False), "NodeNotReady"), (node(devices=7), "DevicesMissing")):
        one = scope(machine("Launched", providerID="kwok://tokyo/h200-0-abc"), node=its_node, now=CREATED)
        await advance(one)
        assert condition(one, "Initialized") == ("False", reason)
        assert not any(kind == "json" for kind, _, _ in one.cluster.done)  # type: ignore[attr-defined]


async def test_the_startup_taint_comes_off_once_all_is_there() -> None:
    its_node = node(taints=(STARTUP_TAINT, "other"))
    one = scope(machine("Launched", providerID="kwok://tokyo/h200-0-abc"), node=its_node, now=CREATED)
    await advance(one)
    patches = [what for kind, _, what in one.cluster.done if kind == "json"]  # type: ignore[attr-defined]
    assert [op["op"] for op in patches[0]] == ["test", "replace"]
    assert patches[0][1]["value"] == [{"key": "other", "effect": "NoSchedule"}]
    assert condition(one, "Ready") == ("True", "Ready")
    assert one.node_name == "h200-0-abc"


async def test_a_vanished_node_dooms_the_machine_only_if_the_provider_agrees() -> None:
    up = machine("Launched", "Registered", "Initialized", providerID="kwok://tokyo/h200-0-abc", nodeName="h200-0-abc")
    gone = scope(up, now=CREATED)
    await advance(gone)
    assert "gone" in gone.doomed
    provider = MemoryProvider()
    await advance(scope(machine(), provider, now=CREATED))
    alive = scope(up, provider, now=CREATED)
    await advance(alive)
    assert alive.doomed == ""
    assert condition(alive, "Ready") == ("False", "NodeGone")


async def test_a_machine_that_never_starts_is_given_up() -> None:
    provider = MemoryProvider()
    await advance(scope(machine(), provider, now=CREATED))
    launched = machine("Launched", providerID="kwok://tokyo/h200-0-abc")
    one = scope(launched, provider, now=later(BOOT_DEADLINE + 60))
    await advance(one)
    assert "did not start" in one.doomed
    early = scope(launched, provider, now=later(10))
    assert await advance(early) is not None
    assert early.doomed == ""


async def test_patience_counts_from_the_launch_and_not_while_it_waits_for_its_turn() -> None:
    throttled = scope(machine(), MemoryProvider(), starting=2, now=later(BOOT_DEADLINE * 9))
    await advance(throttled)
    assert throttled.doomed == ""
    provider = MemoryProvider()
    provider.failure = OutOfCapacity("no H200 today")
    never = scope(machine(), provider, now=later(BOOT_DEADLINE + 60))
    await advance(never)
    assert "did not start" in never.doomed


async def test_one_that_the_provider_lost_before_it_joined_is_given_up() -> None:
    one = scope(machine("Launched", providerID="kwok://tokyo/h200-0-abc"), MemoryProvider(), now=later(10))
    await advance(one)
    assert "no more" in one.doomed


async def test_one_that_failed_at_the_provider_is_given_up_with_its_words() -> None:
    provider = MemoryProvider()
    failed = Instance("kwok://tokyo/h200-0-abc", "h200-0-abc", "h200-0", state="failed", fault="fan 3 stands still")
    provider.instances["h200-0-abc"] = failed
    one = scope(machine(), provider, now=CREATED)
    await advance(one)
    assert one.doomed == "fan 3 stands still"


async def test_a_provider_that_does_not_answer_dooms_nothing() -> None:
    up = machine("Launched", "Registered", "Initialized", providerID="kwok://tokyo/h200-0-abc", nodeName="h200-0-abc")

    class Silent(MemoryProvider):
        async def get(self, pool: str, client_token: str) -> Instance | None:
            raise ProviderError("503")

    lost = scope(up, Silent(), now=later(10))
    assert await advance(lost) is not None
    assert lost.doomed == ""
    assert condition(lost, "Registered") == ("False", "NodeGone")


async def test_a_server_known_only_by_its_uuid_is_adopted_unless_it_is_from_an_earlier_life() -> None:
    for born, adopted in (("2026-01-01T00:00:30Z", True), ("2025-12-31T23:00:00Z", False)):
        bare = node(providerID="")
        bare["metadata"]["creationTimestamp"] = born
        bare["status"]["nodeInfo"] = {"systemUUID": "ABCD"}
        provider = MemoryProvider()
        known = Instance("redfish://h200/a/h200-0-abc", "h200-0-abc", "h200-0", system_uuid="abcd")
        provider.instances["h200-0-abc"] = known
        one = scope(machine("Launched"), provider, node=bare, now=later(60))
        await advance(one)
        patches = [what for kind, _, what in one.cluster.done if kind == "merge"]  # type: ignore[attr-defined]
        assert ({"spec": {"providerID": "redfish://h200/a/h200-0-abc"}} in patches) is adopted


async def test_drain_closes_the_node_and_evicts() -> None:
    one = scope(machine("Launched", going=True), node=node(), pods=[plain_pod("a")], now=later(1))
    assert await advance(one) is not None
    assert condition(one, "Drained") == ("False", "Draining")
    assert one.provider.calls == []  # type: ignore[union-attr]
    kinds = [(kind, name) for kind, name, _ in one.cluster.done]  # type: ignore[attr-defined]
    assert kinds == [("merge", "h200-0-abc"), ("evict", "a")]
    taints = one.cluster.done[0][2]["spec"]["taints"]  # type: ignore[attr-defined]
    assert {"key": DRAIN_TAINT, "effect": "NoSchedule"} in taints


async def test_disruption_budgets_hold_until_the_deadline() -> None:
    blocked = Writes(blocked=True)
    one = scope(machine("Launched", going=True), node=node(), pods=[plain_pod("a")], cluster=blocked, now=later(1))
    await advance(one)
    assert condition(one, "Drained") == ("False", "EvictionBlocked")
    assert not any(kind == "delete" for kind, _, _ in blocked.done)
    overdue = scope(
        machine("Launched", going=True), node=node(), pods=[plain_pod("a")], cluster=blocked, now=later(DEADLINE + 1)
    )
    await advance(overdue)
    assert ("delete", "a", None) in blocked.done


async def test_an_empty_machine_goes_whole() -> None:
    provider = MemoryProvider()
    await advance(scope(machine(), provider, now=CREATED))
    one = scope(machine("Launched", going=True), provider, node=node(), now=later(1))
    assert await advance(one) is None
    assert one.gone
    assert provider.instances == {}


async def test_a_machine_deleted_before_its_launch_was_recorded_leaks_nothing() -> None:
    provider = MemoryProvider()
    await advance(scope(machine(), provider, now=CREATED))
    one = scope(machine(going=True), provider, now=later(1))
    await advance(one)
    assert one.gone
    assert provider.instances == {}


def test_who_has_to_leave() -> None:
    daemon = plain_pod("d", ownerReferences=[{"kind": "DaemonSet", "controller": True}])
    mirror = plain_pod("m", annotations={"kubernetes.io/config.mirror": "x"})
    ended = {**plain_pod("e"), "status": {"phase": "Succeeded"}}
    assert [p["metadata"]["name"] for p in to_leave([daemon, mirror, ended, plain_pod("a")])] == ["a"]


async def test_missing_labels_are_completed() -> None:
    one = scope(machine("Launched", providerID="kwok://tokyo/h200-0-abc"), node=node(), now=CREATED)
    await advance(one)
    merges = [what for kind, _, what in one.cluster.done if kind == "merge"]  # type: ignore[attr-defined]
    assert merges[0]["metadata"]["labels"]["kekkai.dev/rack"] == "h200-rack-0"
    assert merges[0]["metadata"]["labels"]["disk"] == "fast"
    assert pool()["spec"]["site"] == merges[0]["metadata"]["labels"]["kekkai.dev/site"]
