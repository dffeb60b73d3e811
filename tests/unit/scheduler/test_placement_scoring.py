"""Scores: the stated rule, written out; and that what is kept in a pool equals what is worked out anew."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler import BoundPod, Fleet, PodSet
from scheduler.fleet.shape import Shape
from scheduler.placement.fragments import (
    MILLI,
    SHARED_ONLY,
    UNDECIDED,
    WHOLE_ONLY,
    PodShape,
    Worth,
    devices_bound,
    typical,
)
from scheduler.placement.pool_rows import NewRow
from scheduler.placement.ranking import Ranking
from scheduler.placement.scoring import NEVER, States, score
from scheduler.placement.seen import pod_shape, seen_in
from scheduler.placement.states import _alike
from scheduler.placement.supply import Supply
from tests.unit.scheduler.fleets import GPU, fleet, job, pool

KINDS = ["H100", "H200"]
MIX = {
    PodShape(2, 4, 1, 1000): 0.4,
    PodShape(1, 1, 1, 300): 0.3,
    PodShape(4, 1, 2, 1000): 0.2,
    PodShape(1, 2, 1, 500, frozenset({"H200"})): 0.1,
}
SEEN = {PodShape(4000, 0, 1, 1000): 5, PodShape(1000, 0, 4, 1000): 3, PodShape(2000, 0, 1, 250): 4}
NODE = st.tuples(
    st.integers(0, 9),
    st.integers(0, 9),
    st.lists(st.sampled_from([0, 250, 300, 700, 1000]), min_size=2, max_size=2),
    st.integers(0, 1),
)


def states_of(nodes) -> States:
    cpu, memory, milli, kind = zip(*nodes, strict=True)
    return States(np.array(cpu), np.array(memory), np.array(milli), np.array(kind))


def worth_of(worth: Worth, cpu: int, memory: int, milli: list[int], kind: int) -> float:
    return float(worth.of(np.array([cpu]), np.array([memory]), np.array([milli]), np.array([kind]))[0])


@settings(deadline=None)
@given(st.lists(NODE, min_size=1, max_size=6), st.sampled_from([*MIX, PodShape(3, 3)]))
def test_the_lowest_score_is_the_node_that_the_stated_rule_names(nodes, shape) -> None:
    worth, options, caps = Worth(MIX, KINDS), [], []
    for row, (cpu, memory, milli, kind) in enumerate(nodes):
        fit = min(cpu // shape.cpu, memory // shape.memory)
        if shape.devices:
            fit = min(fit, sum(one // shape.milli for one in milli) // shape.devices)
        caps.append(fit)
        if not fit:
            continue
        before = worth_of(worth, cpu, memory, milli, kind)
        whole = [at for at, one in enumerate(milli) if one == MILLI][: shape.devices]
        tries = [(at,) for at, one in enumerate(milli) if one >= shape.milli] if shape.share else [tuple(whole)]
        for devices in tries:
            after = [one - shape.milli if at in devices else one for at, one in enumerate(milli)]
            lost = round((before - worth_of(worth, cpu - shape.cpu, memory - shape.memory, after, kind)) * 10_000)
            options.append((lost, sum(milli), fit, row, devices[0] if shape.share else 0))
    scores, device = score(worth, shape, states_of(nodes), np.array(caps))
    assert (scores == NEVER).tolist() == [fit == 0 for fit in caps]
    if options:
        row = int(scores.argmin())
        assert (row, int(device[row])) == min(options)[3:]


@given(st.permutations(sorted(MIX, key=lambda shape: shape.order)))
def test_the_order_of_the_mix_decides_nothing(order) -> None:
    cpu, memory, milli = np.arange(40) % 9, np.arange(40) % 7, np.arange(80).reshape(40, 2) * 12
    kind = np.arange(40) % 2
    plain = Worth(MIX, KINDS).of(cpu, memory, milli, kind)
    assert (Worth({shape: MIX[shape] for shape in order}, KINDS).of(cpu, memory, milli, kind) == plain).all()
    equal = typical(dict.fromkeys(order, 1), 0.5)
    assert list(equal) == sorted(MIX, key=lambda shape: shape.order)[:2]


def test_with_modes_a_node_is_worth_only_what_its_kind_of_pods_can_use() -> None:
    mix = {PodShape(1, 1, 1, 1000): 0.5, PodShape(1, 1, 1, 400): 0.5}
    values = Worth(mix, ["H200"], modes=True).of(
        np.full(4, 99),
        np.full(4, 99),
        np.array([[1000, 1000], [1000, 0], [1000, 600], [399, 0]]),
        np.array([UNDECIDED, WHOLE_ONLY, SHARED_ONLY, SHARED_ONLY]),
    )
    half = Worth({PodShape(1, 1, 1, 1000): 0.5}, ["H200"]).of(*(np.array([99]),) * 2, np.array([[1000]]), np.array([0]))
    assert values[0] == 2000
    assert values[1] == pytest.approx(half[0])
    assert values[2] == pytest.approx(1.6 * half[0])
    assert values[3] == 0


def ask_of(supply: Supply, devices: int, milli: int, cpu: int, count: int = 1, topology: str = ""):
    one = PodSet("main", count, {"cpu": cpu, **({GPU: devices} if devices else {})}, milli=milli)
    return supply.ask(Shape((one,), topology, "", frozenset()))


def used(made: Fleet, amounts) -> Fleet:
    for index, (devices, cpu) in enumerate(amounts):
        made.upsert_pod(BoundPod(f"other/{index}", f"h200-{index}", {GPU: devices, "cpu": cpu}))
    return made


MOVES = st.lists(
    st.tuples(
        st.sampled_from([(1, 1000), (4, 1000), (1, 250), (0, 1000)]),
        st.sampled_from([2000, 9000]),
        st.sampled_from([1, 1, 3]),
        st.sampled_from(["place", "place", "place", "back", "add", "try"]),
    ),
    max_size=25,
)


@settings(max_examples=20, deadline=None)
@given(MOVES, st.lists(st.tuples(st.integers(0, 8), st.sampled_from([0, 1000, 30_000])), min_size=1, max_size=4))
def test_what_a_pool_keeps_equals_what_is_worked_out_anew(moves, amounts) -> None:
    made = used(fleet(pools=[pool()], nodes=len(amounts)), amounts)
    supply = Supply(made, SEEN)
    have = supply.pools["h200"]
    shapes = {}  # asks are interned by the shape, as in a plan
    held: list = []
    for number, ((devices, milli), cpu, count, what) in enumerate(moves):
        if what == "back" and held:
            have.give_back(*held.pop(number % len(held)))
        if what in {"add", "try"}:
            have.add([NewRow(f"new-{number}", {}, {})], supply.node_vector(have.pool).reshape(1, -1))
        if what == "try":
            have.drop_last(1)
        ask = shapes.setdefault((devices, milli, cpu, count), None) or ask_of(supply, devices, milli, cpu, count)
        shapes[devices, milli, cpu, count] = ask
        if count == 1:
            columns = made.table.columns
            fresh = Ranking(have, columns["cpu"], columns["memory"], supply._worth, 0).look(ask.pods[0])
            kept = have._ranking.look(ask.pods[0])
            assert kept.score.tolist() == fresh.score.tolist()
            assert kept.device.tolist() == fresh.device.tolist()
        placed = have.place(ask, len(have))
        if placed is not None:
            held.append((ask, placed))
            if count == 1:
                assert placed[0][1] == int(fresh.score.argmin())
        elif count == 1:
            assert (fresh.score == NEVER).all()
        size = len(have)
        assert (have.free[:size] >= 0).all()
        assert (have.free[:size, have.device] <= have.total[:size]).all()
        for row in range(size):
            if row in have.shared:
                assert have.free[row, have.device] == 0
                free = have.shared.free(np.array([row]))
                assert ((free >= 0) & (free <= MILLI)).all()
    start = Supply(made, SEEN).pools["h200"]
    for ask, placed in held:
        have.give_back(ask, placed)
    assert (have.free[: have.ready] == start.free[: have.ready]).all()
    assert not any(row in have.shared for row in range(len(have)))
    assert (have.takers[: len(have)] == 0).all()


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 12), st.sampled_from([1, 2, 4]), st.lists(st.integers(0, 8), min_size=1, max_size=4))
def test_a_batch_goes_where_the_same_pods_one_by_one_go(count: int, devices: int, amounts) -> None:
    made = used(fleet(pools=[pool()], nodes=len(amounts)), [(one, 0) for one in amounts])
    supply, other = Supply(made, SEEN), Supply(made, SEEN)
    have, singly = supply.pools["h200"], other.pools["h200"]
    placed = have.place(ask_of(supply, devices, 1000, 1000, count), have.ready)
    one, rows = ask_of(other, devices, 1000, 1000), []
    while len(rows) < count and (single := singly.place(one, singly.ready)) is not None:
        rows.append(single[0][1])
    assert (placed is None) == (len(rows) < count)
    if placed is not None:
        assert sorted(row for _, row, many in placed for _ in range(many)) == sorted(rows)


def test_a_gang_with_topology_touches_few_nodes_and_without_goes_by_worth() -> None:
    made = used(fleet(pools=[pool(nodes_per_rack=4)], nodes=4), [(6, 0), (6, 0), (0, 0), (4, 0)])
    for node in list(made.nodes.values()):
        made.upsert_node(replace(node, rack="r"))
    tight = Supply(made, SEEN).pools["h200"]
    together = Supply(made, SEEN)
    inside = together.pools["h200"].place(ask_of(together, 1, 1000, 1000, 4, "rack"), 4)
    alone = tight.place(ask_of(Supply(made, SEEN), 1, 1000, 1000, 4), 4)
    assert [row for _, row, _ in inside] == [3]
    assert [row for _, row, _ in alone] == [0, 1]


def test_equal_lines_are_grouped() -> None:
    first, group = _alike(np.array([[1, 2], [3, 4], [1, 2], [0, 0]]))
    assert sorted(first.tolist()) == [0, 1, 3]
    assert group[0] == group[2] != group[1]


def test_what_is_seen_are_the_pods_of_pending_workloads() -> None:
    made = fleet(pools=[pool()])
    for index in range(3):
        made.upsert_workload(job(f"j{index}", 2, 4))
    made.upsert_workload(job("other", 1, 1, flavors=(("H100", 1.0), ("H200", 2.0))))
    seen = seen_in(made.shapes.counted(), made.devices_of)
    assert seen == {PodShape(1000, 0, 4, 1000): 6, PodShape(1000, 0, 1, 1000, frozenset({"H100", "H200"})): 1}
    assert pod_shape(PodSet("x", 1, {"cpu": 1}, {"kekkai.dev/accelerator": "H100"}), 1).kinds == {"H100"}
    assert pod_shape(PodSet("x", 1, {"cpu": 1}, milli=500), 2) is None
    assert pod_shape(PodSet("x", 1, {"cpu": 1}), 0) == PodShape(1, 0)


def test_reach_counts_only_where_devices_run_out_first() -> None:
    mix = {PodShape(8000, 1024, 1, 1000): 0.5, PodShape(16000, 1024): 0.5}  # 24 cores for each device
    assert devices_bound(mix, cpu=96_000, memory=1 << 20, milli=4000)
    assert not devices_bound(mix, cpu=95_999, memory=1 << 20, milli=4000)
    assert not devices_bound(mix, cpu=96_000, memory=4 * 2048 - 1, milli=4000)
    assert devices_bound({}, cpu=0, memory=0, milli=0)
