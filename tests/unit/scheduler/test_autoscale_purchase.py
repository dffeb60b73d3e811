"""Buying machines: everybody whole, nothing beyond what nodes hold, near the least cost."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crds.errors import InvalidInput
from scheduler.autoscale.purchase import Bounds, Demand, Offering, Purchase, Room, purchase
from scheduler.fleet import PodSet, Taint, Toleration

GPU = "nvidia.com/gpu"
ZONE = "topology.kubernetes.io/zone"
GIB = 1 << 30


def offering(name: str, cores: int, price: float, gpus: int = 0, **more: object) -> Offering:
    amounts = {"cpu": cores * 1000, "memory": 4 * cores * GIB, "pods": 110}
    if gpus:
        amounts[GPU] = gpus
    made = Offering(name, str(more.pop("pool", name)), amounts, round(price * 1e6), resource=GPU if gpus else "")
    return replace(made, **more)  # type: ignore[arg-type]


def pods(count: int, cores: int = 1, gpus: int = 0, **more: object) -> PodSet:
    request = {"cpu": cores * 1000, "memory": cores * GIB}
    if gpus:
        request[GPU] = gpus
    return replace(PodSet("pod", count, request), **more)  # type: ignore[arg-type]


def counts(found: Purchase) -> dict[str, int]:
    return {order.offering.name: order.count for order in found.orders}


def test_eight_small_ones_share_one_large_node() -> None:
    types = [offering("small", 8, 3.0, gpus=1), offering("large", 64, 20.0, gpus=8)]
    assert counts(purchase([Demand(f"d{i}", (pods(1, gpus=1),)) for i in range(8)], types)) == {"large": 1}
    assert counts(purchase([Demand(f"d{i}", (pods(1, gpus=1),)) for i in range(3)], types)) == {"small": 3}


def test_nothing_waits_nothing_is_bought() -> None:
    found = purchase([], [offering("a", 8, 1.0)])
    assert found.orders == ()
    assert found.cost_micro == 0
    assert found.unmet == {}


def test_room_that_is_there_or_coming_is_used_first() -> None:
    kind = offering("a", 8, 1.0)
    rooms = [Room("coming", kind, {"cpu": 8000, "memory": 32 * GIB, "pods": 110}, count=2)]
    assert purchase([Demand("d", (pods(16),))], [kind], rooms).orders == ()
    assert counts(purchase([Demand("d", (pods(17),))], [kind], rooms)) == {"a": 1}


def test_a_gang_gets_one_rack_or_nothing() -> None:
    gang = Demand("gang", (pods(4, gpus=8),), topology="rack")
    racks = offering("a", 64, 20.0, gpus=8, slots={"rack": (3, 5, 4)})
    found = purchase([gang], [racks])
    assert counts(found) == {"a": 4}
    assert {node.domain for node in found.nodes} == {"rack 2"}  # the rack that it fills
    found = purchase([gang], [replace(racks, slots={"rack": (3, 3, 3)})])
    assert found.orders == ()
    assert "gang" in found.unmet


def test_two_gangs_do_not_get_the_same_slots() -> None:
    racks = offering("a", 64, 20.0, gpus=8, slots={"rack": (4, 4)})
    gangs = [Demand(f"g{i}", (pods(3, gpus=8),), topology="rack", rank=i) for i in range(3)]
    found = purchase(gangs, [racks])
    assert found.count == 6
    assert list(found.unmet) == ["g2"]
    assert {node.gang: node.domain for node in found.nodes} == {"g0": "rack 0", "g1": "rack 1"}


def test_a_gang_that_cannot_be_whole_is_left_out_whole_or_starts_with_its_least() -> None:
    few = offering("a", 8, 1.0, limit=2)
    found = purchase([Demand("gang", (pods(20),))], [few])
    assert found.orders == ()
    assert list(found.unmet) == ["gang"]
    found = purchase([Demand("gang", (pods(20, min_count=10),))], [few])
    assert found.unmet == {}
    assert found.reduced == {"gang": (16,)}
    assert found.count == 2


def test_the_last_rank_goes_without_when_limits_or_bounds_bind() -> None:
    few = offering("a", 8, 1.0, limit=2, watts=500)
    waiting = [Demand(f"d{i}", (pods(8),), rank=i) for i in range(4)]
    assert sorted(purchase(waiting, [few]).unmet) == ["d2", "d3"]
    many = replace(few, limit=None)
    for bounds in (Bounds(nodes=3), Bounds(cost_micro=3_500_000), Bounds(watts=1999)):
        found = purchase(waiting, [many], bounds=bounds)
        assert found.count == 3
        assert list(found.unmet) == ["d3"]


def test_rules_of_placement_decide_who_takes_whom() -> None:
    tainted = offering("cheap", 8, 0.1, taints=(Taint("team", "a"),))
    plain = offering("plain", 8, 1.0, labels={"disk": "fast"})
    assert counts(purchase([Demand("d", (pods(8),))], [tainted, plain])) == {"plain": 1}
    tolerant = pods(8, tolerations=(Toleration("team", "Exists"),))
    assert counts(purchase([Demand("d", (tolerant,))], [tainted, plain])) == {"cheap": 1}
    picky = pods(8, tolerations=(Toleration("team", "Exists"),), node_selector={"disk": "fast"})
    assert counts(purchase([Demand("d", (picky,))], [tainted, plain])) == {"plain": 1}
    assert "d" in purchase([Demand("d", (pods(1, confidential=True),))], [plain]).unmet


def test_spread_over_zones_and_apart_on_hosts() -> None:
    zones = [offering(f"z{i}", 8, 1.0 + i / 10, zone=f"z{i}", labels={ZONE: f"z{i}"}) for i in range(3)]
    found = purchase([Demand(f"d{i}", (pods(1, spread="zone"),), counted_as="web") for i in range(9)], zones)
    per_zone = Counter[str]()
    for node in found.nodes:
        per_zone[node.offering.zone] += sum(count for _, count in node.pods) * node.times
    assert per_zone == {"z0": 3, "z1": 3, "z2": 3}
    found = purchase([Demand(f"d{i}", (pods(1),), counted_as="db", apart=True) for i in range(5)], zones)
    assert found.count == 5


def test_together_in_one_zone_and_on_one_host() -> None:
    zones = [offering(f"z{i}", 8, 1.0 + i / 10, zone=f"z{i}", labels={ZONE: f"z{i}"}) for i in range(2)]
    assert counts(purchase([Demand("d", (pods(20),), topology="zone")], zones)) == {"z0": 3}
    hosts = purchase(
        [Demand("d", (pods(5),), topology="hostname"), Demand("e", (pods(5),), topology="hostname")], zones
    )
    assert counts(hosts) == {"z0": 2}
    assert "d" in purchase([Demand("d", (pods(9),), topology="hostname")], zones).unmet


def test_a_faster_accelerator_is_worth_its_price() -> None:
    slow = offering("slow", 64, 10.0, gpus=8, accelerator="A100")
    fast = offering("fast", 64, 15.0, gpus=8, accelerator="H100")
    job = Demand("d", (pods(8, gpus=1),), flavors=(("H100", 1.0), ("A100", 0.5)))
    assert counts(purchase([job], [slow, fast])) == {"fast": 1}
    assert counts(purchase([replace(job, flavors=(("H100", 1.0), ("A100", 0.9)))], [slow, fast])) == {"slow": 1}


def test_shares_of_devices_and_whole_ones_do_not_share_a_node() -> None:
    kind = offering("a", 64, 20.0, gpus=8)
    shares = Demand("s", (pods(16, gpus=1, milli=500),))
    assert counts(purchase([shares], [kind])) == {"a": 1}
    assert counts(purchase([shares, Demand("w", (pods(1, gpus=1),))], [kind])) == {"a": 2}
    assert purchase([shares, Demand("w", (pods(1, gpus=1),))], [replace(kind, limit=1)]).count == 1


def test_offerings_with_one_name_are_refused() -> None:
    with pytest.raises(InvalidInput, match="occurs twice"):
        purchase([], [offering("a", 8, 1.0), offering("a", 16, 2.0)])


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10_000))
def test_every_purchase_is_feasible_whole_and_repeatable(seed: int) -> None:
    rng = random.Random(seed)
    types = [
        offering(
            f"o{i}",
            rng.choice((4, 8, 16)),
            rng.uniform(0.5, 2),
            gpus=rng.choice((0, 0, 4)),
            limit=rng.choice((None, 1, 3)),
        )
        for i in range(rng.randint(1, 5))
    ]
    waiting = [
        Demand(
            f"d{i}",
            (pods(rng.randint(1, 6), rng.randint(1, 5), rng.choice((0, 0, 1)), min_count=rng.choice((0, 1))),),
            single_pool=rng.random() < 0.3,
            rank=rng.randint(0, 2),
        )
        for i in range(rng.randint(1, 12))
    ]
    found = purchase(waiting, types, work=100)
    assert purchase(waiting, types, work=100) == found
    held = Counter[int]()
    for node in found.nodes:
        for name in ("cpu", "memory", GPU):
            asked = sum(found.groups[group].requests.get(name, 0) * count for group, count in node.pods)
            assert asked <= node.offering.allocatable.get(name, 0)
        held.update({group: count * node.times for group, count in node.pods})
    asked_of = {group: sum(count for _, count in line) for group, line in found.members.items() if line}
    assert {group: held[group] for group in asked_of} == asked_of
    met = {key for line in found.members.values() for key, _ in line}
    assert met.isdisjoint(found.unmet)
    assert met | set(found.unmet) == {one.key for one in waiting}
    for order in found.orders:
        assert order.offering.limit is None or order.count <= order.offering.limit


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10_000))
def test_small_ones_cost_no_more_than_a_twentieth_above_brute_force(seed: int) -> None:
    rng = random.Random(seed)
    types = [offering("a", 4, 1.0), offering("b", 8, rng.uniform(1.5, 2.2)), offering("c", 16, rng.uniform(2.8, 4.4))]
    sizes = [rng.randint(1, 4) for _ in range(rng.randint(1, 9))]
    found = purchase([Demand(f"d{i}", (pods(1, size),)) for i, size in enumerate(sizes)], types)
    best = min(
        sum(count * kind.price_micro for count, kind in zip(many, types, strict=True))
        for many in product(range(10), range(6), range(4))
        if _fits(
            sizes,
            [kind.allocatable["cpu"] // 1000 for count, kind in zip(many, types, strict=True) for _ in range(count)],
        )
    )
    assert found.cost_micro <= 1.05 * best


def _fits(sizes: list[int], rooms: list[int]) -> bool:
    if sum(sizes) > sum(rooms):
        return False

    def go(rest: list[int], free: tuple[int, ...]) -> bool:
        if not rest:
            return True
        return any(
            go(rest[1:], (*free[:at], room - rest[0], *free[at + 1 :]))
            for at, room in enumerate(free)
            if room >= rest[0] and room not in free[:at]
        )

    return go(sorted(sizes, reverse=True), tuple(rooms))
