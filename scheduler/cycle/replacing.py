"""Running gangs of which some nodes are gone: the pods that were there get others, and the rest goes on.

First of all in a plan, since what runs goes before what waits; room that is reserved for
others is minded. Whoever finds none, or may not be moved in part, is evicted whole by the plan.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

from scheduler.cycle.scratch import Scratch
from scheduler.decision import Move, Placed
from scheduler.explain import reasons
from scheduler.fleet import Fleet, WorkloadState
from scheduler.placement.ask import Ask
from scheduler.placement.bestfit import Assignment
from scheduler.preemption import ask_of, substitute
from scheduler.running.room import take


def replace_lost(scratch: Scratch) -> tuple[Move, ...]:
    """The moves, with their room taken off the supply; their quota is in use already."""
    moves = []
    for key, lost in sorted(_losses(scratch.fleet).items()):
        workload = scratch.fleet.workloads[key]
        # Which devices the other shares have is not to be told from counts alone.
        if workload.movable and workload.admitted and not workload.finished and not workload.devices:
            move = _replace(scratch, workload, lost)
            if move is not None:
                moves.append(move)
    return tuple(moves)


def _losses(fleet: Fleet) -> dict[str, list[str]]:
    lost: dict[str, list[str]] = defaultdict(list)
    for node in sorted(fleet.claims.homeless):
        for holder in fleet.workload_holders(node):
            lost[holder].append(node)
    return lost


def _replace(scratch: Scratch, workload: WorkloadState, lost: list[str]) -> Move | None:
    supply, pools = scratch.supply, {scratch.fleet.nodes[n].pool for n in _alive(scratch.fleet, workload)}
    ask = ask_of(supply, workload)
    if ask is None or len(pools) != 1:
        return None
    have = supply.pools.get(pools.pop())
    if have is None:
        return None
    taken: list[tuple[Ask, Assignment]] = []
    now = workload
    for node in lost:
        found = substitute(now, node, ask, have, have.device)
        if found is None:
            for part, placed in taken:
                take(have, part, [(index, row, -count) for index, row, count in placed])
            return None
        take(have, found.ask, found.assignment)
        taken.append((found.ask, found.assignment))
        now = replace(now, placements=found.placements)
    placements = tuple(Placed(name, node, count) for name, node, count in now.placements)
    return Move(workload.key, tuple(lost), placements, reasons.node_replaced(lost))


def _alive(fleet: Fleet, workload: WorkloadState) -> set[str]:
    return {node for _, node, _ in workload.placements if node in fleet.nodes}
