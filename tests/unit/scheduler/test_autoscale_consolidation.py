"""Consolidation: only when it pays, gangs whole, budgets and windows kept, nothing while somebody waits."""

from __future__ import annotations

from dataclasses import replace

from scheduler import Fleet
from scheduler.autoscale.consolidation import Policy, Window, consolidation
from tests.unit.scheduler.fleets import fleet, job, pool

NOW = 100_000.0
ACT = Policy(mode="Act", nodes=1)


def running(made: Fleet, name: str, *nodes: str, devices: int = 2, saved: float = NOW - 60, **over: object) -> None:
    gang = job(name, count=len(nodes), devices=devices)
    held = tuple((gang.pod_sets[0].name, node, 1) for node in nodes)
    gang = replace(gang, admitted=True, accelerator="H200", placements=held, admitted_at=NOW - 50_000)
    made.upsert_workload(replace(gang, checkpointed_at=saved, **over))  # type: ignore[arg-type]


def two_half_empty() -> tuple[Fleet, list[str]]:
    made = fleet(pools=[pool()], nodes=2)
    names = sorted(made.nodes)
    running(made, "a", names[0])
    running(made, "b", names[1])
    return made, names


def test_one_of_two_half_empty_nodes_goes() -> None:
    made, names = two_half_empty()
    (one,) = consolidation(made, {"h200": ACT}, NOW)
    assert one.node in names
    assert one.act
    assert one.saves_micro == 40_000_000  # four hours of a node
    assert one.gain_micro > 0
    assert len(one.moves) == 1


def test_it_does_not_pay_when_much_work_would_be_lost() -> None:
    made = fleet(pools=[pool()], nodes=2)
    for name, node in zip("ab", sorted(made.nodes), strict=True):
        running(made, name, node, saved=0.0)
    assert consolidation(made, {"h200": ACT}, NOW) == ()


def test_a_gang_moves_whole_or_not_at_all() -> None:
    made = fleet(pools=[pool()], nodes=3)
    names = sorted(made.nodes)
    running(made, "wide", names[0], names[1], devices=6)
    running(made, "full", names[2], devices=8)
    # One half of `wide` would have to stand on a node beside its other half: 12 devices do not fit on 8.
    assert consolidation(made, {"h200": ACT}, NOW) == ()


def test_dry_run_windows_budgets_and_protection() -> None:
    made, names = two_half_empty()
    (one,) = consolidation(made, {"h200": Policy()}, NOW)
    assert not one.act
    assert "dry run" in one.why_not
    never = replace(ACT, windows=(Window(frozenset(range(7)), 0, 1),))
    (one,) = consolidation(made, {"h200": never}, NOW)
    assert "windows" in one.why_not
    (one,) = consolidation(made, {"h200": ACT}, NOW, going=1)
    assert "on their way" in one.why_not
    assert consolidation(made, {"h200": ACT}, NOW, protected={"train/a", names[1]}) == ()
    assert consolidation(made, {"h200": replace(ACT, mode="Off")}, NOW) == ()
    made.upsert_workload(job("waits", count=9))
    assert consolidation(made, {"h200": ACT}, NOW) == ()


def test_what_was_moved_is_not_moved_twice_and_the_minimum_stays() -> None:
    made = fleet(pools=[pool()], nodes=4)
    for name, node in zip("abcd", sorted(made.nodes), strict=True):
        running(made, name, node)
    found = consolidation(made, {"h200": replace(ACT, nodes=9)}, NOW)
    assert len(found) == 3  # four times two devices fit on one node
    assert len({key for one in found for key in one.moves}) == 3
    made.upsert_pool(pool(minimum=3))
    assert len(consolidation(made, {"h200": replace(ACT, nodes=9)}, NOW)) == 1


def test_windows_may_pass_midnight() -> None:
    late = Window(frozenset({4}), 23 * 60, 120)  # Friday 23:00 to Saturday 01:00
    friday = 1_700_262_000.0 - 1_700_262_000.0 % 86_400  # 2023-11-17
    assert late.holds(friday + 23.5 * 3600)
    assert late.holds(friday + 24.5 * 3600)
    assert not late.holds(friday + 0.5 * 3600)
    assert not late.holds(friday + 25.5 * 3600)
