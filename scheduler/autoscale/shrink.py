"""Machines to go: those idle for longer than their pool's delay, never below its floor, headroom and forecast."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass
from math import inf

import numpy as np

from scheduler.decision import MachineRemoval
from scheduler.fleet import Fleet
from scheduler.placement.pool_supply import PoolSupply
from scheduler.placement.supply import Supply


@dataclass(frozen=True, slots=True)
class Shrinking:
    """What goes now, what is idle since when, and when to look again."""

    removals: tuple[MachineRemoval, ...]
    idle_since: Mapping[str, float]
    idle_nodes: tuple[str, ...]
    next_wake: float | None


def shrink(
    fleet: Fleet,
    supply: Supply,
    idle_since: Mapping[str, float],
    now: float,
    reserved: Set[str] = frozenset(),
    needs: Mapping[str, int] | None = None,
    grown_at: Mapping[str, float] | None = None,
) -> Shrinking:
    """Look at each pool's ready nodes that nobody holds and no decision of this plan took.

    `reserved`: nodes whose room is kept for somebody who waits. `needs`: pool → devices that
    stay free, for what may come. `grown_at`: pool → when it was last grown: until its
    cooldown has passed, nothing of it goes.
    """
    needs, grown_at = needs or {}, grown_at or {}
    removals: list[MachineRemoval] = []
    since: dict[str, float] = {}
    idle_nodes: list[str] = []
    wakes: list[float] = []
    for name, have in supply.pools.items():
        pool = have.pool
        idle = []
        for row in unused_ready(fleet, have):
            node = fleet.nodes[have.names[row]]
            if node.name in reserved:
                continue
            idle_nodes.append(node.name)
            if node.machine not in fleet.machines or fleet.machines[node.machine].going:
                continue
            first = min(idle_since.get(node.machine, now), now)  # a clock that went back does not prolong
            since[node.machine] = first
            idle.append((first, node.machine))
        idle.sort()
        spare = min(fleet.standing(name) - pool.minimum, len(idle) - pool.headroom)
        if needs.get(name):
            spare = min(spare, (free_devices(have) - needs[name]) // pool.per_node)
        rested = grown_at.get(name, -inf) + pool.cooldown
        for first, machine in idle[: max(spare, 0)]:
            if now < rested:
                wakes.append(rested)
            elif now >= first + pool.scale_down_delay:
                removals.append(MachineRemoval(machine, f"idle for {int(now - first)} s"))
                del since[machine]
            else:
                wakes.append(first + pool.scale_down_delay)
    return Shrinking(tuple(removals), since, tuple(sorted(idle_nodes)), min(wakes, default=None))


def unused_ready(fleet: Fleet, supply: PoolSupply) -> list[int]:
    """Rows of ready nodes that nobody holds and no decision took. Pods of DaemonSets do not hold a node."""
    _, rows = fleet.ready_nodes(supply.pool.name)
    unused = (fleet.table.holds[rows] == 0) & (supply.takers[: supply.ready] == 0)
    return np.flatnonzero(unused).tolist()


def free_devices(supply: PoolSupply) -> int:
    """Whole devices that are free, or will be with machines on their way, after the decisions of this plan."""
    return int(np.maximum(supply.free[: len(supply), supply.device], 0).sum())
