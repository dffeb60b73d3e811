"""A node of a running gang is gone: its pods go elsewhere in the plan, the others stay."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from scheduler import Memory, plan
from tests.unit.scheduler.fleets import add_node, apply, fleet, job, node_of, pool

POOL = pool(minimum=6, maximum=6, nodes_per_rack=3, scale_down_delay=1e9)


def running(pods: int, devices: int, level: str = "", nodes: int = 6, movable: bool = True):
    made = fleet(pools=[POOL])
    for slot in range(nodes):
        add_node(made, POOL, slot)
        machine = replace(made.machines[f"h200-{slot}"], rack=f"rack-{slot // 3}")
        made.upsert_machine(machine)
        made.upsert_node(node_of(POOL, machine))
    made.upsert_workload(job("gang", pods, devices, required_topology=level, movable=movable))
    decided, memory = plan(made, Memory(), 1.0)
    apply(made, decided)
    assert made.workloads["train/gang"].admitted
    return made, memory


def nodes_of(made) -> list[str]:
    return sorted({node for _, node, _ in made.workloads["train/gang"].placements})


def test_only_the_pods_of_the_lost_node_move() -> None:
    made, memory = running(3, 8)
    before = nodes_of(made)
    made.remove_node(before[0])
    decided, _ = plan(made, memory, 2.0)
    assert decided.evictions == ()
    (move,) = decided.moves
    assert move.lost == (before[0],)
    assert move.reason.code == "NodeReplaced"
    kept = {one.node for one in move.placements} & set(before)
    assert kept == set(before[1:])
    assert sum(one.count for one in move.placements) == 3


def test_it_stays_within_its_rack_or_goes_whole() -> None:
    made, memory = running(2, 8, level="rack")
    before = nodes_of(made)
    rack = made.nodes[before[0]].rack
    made.remove_node(before[0])
    decided, _ = plan(made, memory, 2.0)
    assert {made.nodes[one.node].rack for one in decided.moves[0].placements} == {rack}
    for node in [name for name, one in made.nodes.items() if one.rack == rack and name not in before]:
        made.remove_node(node)
    decided, _ = plan(made, memory, 2.0)
    assert decided.moves == ()
    assert [one.reason.code for one in decided.evictions] == ["NodeLost"]


def test_without_room_or_when_it_cannot_move_it_goes_whole() -> None:
    full, memory = running(6, 8)
    full.remove_node("h200-2")
    decided, _ = plan(full, memory, 2.0)
    assert (decided.moves, [one.reason.code for one in decided.evictions]) == ((), ["NodeLost"])
    fixed, memory = running(3, 8, movable=False)
    fixed.remove_node(nodes_of(fixed)[0])
    decided, _ = plan(fixed, memory, 2.0)
    assert (decided.moves, [one.reason.code for one in decided.evictions]) == ((), ["NodeLost"])


def test_the_waiting_do_not_get_the_room_that_it_moves_to() -> None:
    made, memory = running(5, 8)
    made.upsert_workload(job("waiting", 1, 8, created_at=0.5))
    made.remove_node(nodes_of(made)[0])
    decided, _ = plan(made, memory, 2.0)
    assert len(decided.moves) == 1
    assert decided.admissions == ()


@given(st.integers(2, 12), st.sampled_from([1, 2, 4, 8]), st.sets(st.integers(0, 5), min_size=1, max_size=3))
def test_a_move_keeps_the_pods_and_exceeds_nothing(pods: int, devices: int, lost: set[int]) -> None:
    if pods * devices > 48:
        pods = 48 // devices
    made, memory = running(pods, devices)
    before = Counter({node: count for _, node, count in made.workloads["train/gang"].placements})
    gone = {f"h200-{slot}" for slot in lost}
    for node in sorted(gone):
        made.remove_node(node)
    decided, _ = plan(made, memory, 2.0)
    hit = bool(gone & set(before))
    assert len(decided.moves) + len([one for one in decided.evictions if one.reason.code == "NodeLost"]) == hit
    for move in decided.moves:
        after = Counter({one.node: one.count for one in move.placements})
        assert after.total() == before.total()
        assert not gone & set(after)
        assert all(after[node] >= count for node, count in before.items() if node not in gone)
        assert max(after.values()) * devices <= 8
