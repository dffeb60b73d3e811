"""Hot replacement: one node of a running gang has failed, and its pods go elsewhere without the rest."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from scheduler.fleet import WorkloadState
from scheduler.placement.ask import Ask
from scheduler.placement.bestfit import Assignment, Ints
from scheduler.placement.pool_supply import PoolSupply
from scheduler.preemption.elastic import rows_beside
from scheduler.running.question import Question, indices_of, part_of


@dataclass(frozen=True, slots=True)
class Replacement:
    """Where the pods of a failed node go: (pod set, node, count). `placements`: all that the gang holds then.

    `assignment` is of `ask`, in rows of the supply.
    """

    workload: str
    failed: str
    moved: tuple[tuple[str, str, int], ...]
    placements: tuple[tuple[str, str, int], ...]
    ask: Ask
    assignment: Assignment


def substitute(workload: WorkloadState, failed: str, ask: Ask, supply: PoolSupply, device: int) -> Replacement | None:
    """A node for exactly the pods that ran on the failed one, in the domain of the others if one is required.

    One node for all of them, the one with the least left over, so that whole nodes stay whole;
    if there is none, several. None when there is no room, when nothing of the gang runs on
    other nodes of the pool, or for shares of devices: then the whole gang must go. The supply is
    left as it is: `take` takes the room.
    """
    lost: dict[str, int] = defaultdict(int)
    for name, node, count in workload.placements:
        if node == failed:
            lost[name] += count
    counts = [lost[pod.pod_set.name] for pod in ask.pods]
    rows = rows_beside(workload, ask, supply, without=failed)
    if not any(counts) or not rows.size:
        return None
    part = part_of(ask, counts, device, anywhere=True)
    question = Question.of(part, supply, device)
    if not question.answerable:
        return None
    free = supply.free[rows][:, question.columns]
    placed = _on_one(question, free, rows) or question.place(free, rows)
    if placed is None:
        return None
    names = [ask.pods[index].pod_set.name for index in indices_of(counts)]
    moved = tuple(sorted((names[index], supply.names[row], count) for index, row, count in placed))
    held: dict[tuple[str, str], int] = defaultdict(int)
    for name, node, count in (*(one for one in workload.placements if one[1] != failed), *moved):
        held[name, node] += count
    placements = tuple(sorted((name, node, count) for (name, node), count in held.items()))
    return Replacement(workload.key, failed, moved, placements, part, placed)


def _on_one(question: Question, free: Ints, rows: Ints) -> Assignment | None:
    counts = np.array([pod.count for pod in question.ask.pods])
    left = free - counts @ question.requests
    good = (left >= 0).all(axis=1)
    for mask in question.masks:
        good &= mask[rows]
    if not good.any():
        return None
    spare = left[:, question.device] if question.device >= 0 else left.sum(axis=1)
    at = int(np.flatnonzero(good)[np.argmin(spare[good])])
    return [(index, int(rows[at]), int(count)) for index, count in enumerate(counts)]
