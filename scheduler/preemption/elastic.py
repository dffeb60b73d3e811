"""Gangs that may run with fewer pods: how many start, and how a shrunk one grows again.

Between its `min_count`s and its counts a gang is taken at one scale for all pod sets, so
that their proportions hold: scale s of `span` gives each set its least number and s/span of
the rest, rounded down.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from scheduler.fleet import WorkloadState
from scheduler.fleet.attributes import NONE
from scheduler.fleet.shape import Shape
from scheduler.placement.ask import Ask
from scheduler.placement.bestfit import Assignment, Ints
from scheduler.placement.pool_supply import PoolSupply
from scheduler.placement.supply import Supply
from scheduler.running.question import Question, indices_of, part_of

Placed = TypeVar("Placed")


@dataclass(frozen=True, slots=True)
class Extension:
    """Pods that a running gang gets in addition: (pod set, node, count). `assignment` is of `ask`, in rows."""

    workload: str
    added: tuple[tuple[str, str, int], ...]
    devices: int
    ask: Ask
    assignment: Assignment


def ask_of(supply: Supply, workload: WorkloadState) -> Ask | None:
    """What a workload that runs asks for, whole; None when a resource is offered nowhere any more."""
    return supply.ask(
        Shape(workload.pod_sets, workload.required_topology, workload.preferred_topology, workload.jurisdictions)
    )


def largest(
    ask: Ask,
    place: Callable[[Ask], Placed | None],
    give_back: Callable[[Ask, Placed], None],
    device: int,
    most: int | None = None,
) -> tuple[Ask, Placed] | None:
    """The largest part of an elastic ask that is placed, with its room taken; None when not even the least is.

    `device`: the devices' column of the pool. `most`: devices that its quota allows. Each trial is
    undone but the one in the answer. For a rigid ask it is `place` itself.
    """
    full = [pod.count for pod in ask.pods]
    least = [min(pod.pod_set.min_count or pod.count, pod.count) for pod in ask.pods]
    span = max((much - few for much, few in zip(full, least, strict=True)), default=0)

    def part(scale: int) -> Ask:
        if scale == span:
            return ask
        return part_of(ask, _scaled(least, full, scale, span), device)

    def trial(scale: int) -> tuple[Ask, Placed] | None:
        asked = part(scale)
        if most is not None and asked.devices > most:
            return None
        placed = place(asked)
        return (asked, placed) if placed is not None else None

    whole = trial(span)
    if whole is not None or span == 0:
        return whole
    best = trial(0)
    if best is None:
        return None
    good, bad = 0, span
    give_back(*best)
    while bad - good > 1:
        middle = (good + bad) // 2
        found = trial(middle)
        if found is None:
            bad = middle
        else:
            give_back(*found)
            good = middle
    return trial(good)


def extend(
    workload: WorkloadState, ask: Ask, supply: PoolSupply, device: int, most: int | None = None
) -> Extension | None:
    """As many pods as there is room for, up to its count, for a gang that runs with fewer.

    A gang with a required topology level grows in the domain in which it runs. `most`:
    devices that its quota allows. The supply is left as it is: `take` takes the room.
    """
    missing = []
    for pod in ask.pods:
        name = pod.pod_set.name
        held = sum(count for pod_set, _, count in workload.placements if pod_set == name)
        missing.append(max(pod.count - held, 0) if pod.pod_set.min_count else 0)
    rows = rows_beside(workload, ask, supply)
    span = max(missing, default=0)
    if not span or not rows.size:
        return None
    none = [0] * len(missing)
    best: tuple[Ask, list[int], Assignment] | None = None
    good, bad = 0, span + 1
    while bad - good > 1:
        middle = (good + bad) // 2
        counts = _scaled(none, missing, middle, span)
        asked = part_of(ask, counts, device, anywhere=True)
        question = Question.of(asked, supply, device)
        placed = None
        if question.answerable and (most is None or asked.devices <= most):
            placed = question.place(supply.free[rows][:, question.columns], rows)
        if placed is None:
            bad = middle
        else:
            good, best = middle, (asked, counts, placed)
    if best is None:
        return None
    asked, counts, placed = best
    names = [ask.pods[index].pod_set.name for index in indices_of(counts)]
    added = tuple(sorted((names[index], supply.names[row], count) for index, row, count in placed))
    return Extension(workload.key, added, asked.devices, asked, placed)


def rows_beside(workload: WorkloadState, ask: Ask, supply: PoolSupply, without: str = "") -> Ints:
    """Ready rows where pods may join those that run: all, or those of its domain when one is required.

    `without`: a node that does not count. Empty when nothing of it runs elsewhere in the pool.
    """
    at = {name: row for row, name in enumerate(supply.names[: supply.ready])}
    mine = sorted({at[node] for _, node, _ in workload.placements if node in at and node != without})
    rows = np.arange(supply.ready)
    if not mine:
        return rows[:0]
    if ask.shape.required_topology:
        codes = supply.level(ask.shape.required_topology)[0][: supply.ready]
        domains = np.unique(codes[mine])
        if domains.size != 1 or domains[0] == NONE:
            return rows[:0]
        rows = np.flatnonzero(codes == domains[0])
    return rows[rows != at[without]] if without in at else rows


def _scaled(least: Sequence[int], full: Sequence[int], scale: int, span: int) -> list[int]:
    return [few + (much - few) * scale // span for few, much in zip(least, full, strict=True)]
