"""Machines to go: those idle for longer than their pool's delay, never below its floor and headroom."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from scheduler.decision import MachineRemoval
from scheduler.fleet import Fleet
from scheduler.placement.supply import Supply


@dataclass(frozen=True, slots=True)
class Shrinking:
    """What goes now, what is idle since when, and when to look again."""

    removals: tuple[MachineRemoval, ...]
    idle_since: Mapping[str, float]
    idle_nodes: tuple[str, ...]
    next_wake: float | None


def shrink(fleet: Fleet, supply: Supply, idle_since: Mapping[str, float], now: float) -> Shrinking:
    """Look at each pool's ready nodes that nobody holds and no decision of this plan took."""
    removals: list[MachineRemoval] = []
    since: dict[str, float] = {}
    idle_nodes: list[str] = []
    wakes: list[float] = []
    for name, have in sorted(supply.pools.items()):
        pool = have.pool
        idle = []
        for slot in have.slots[: have.ready]:
            node = fleet.nodes[slot.name]
            if slot.taken or not node.machine or _held(fleet, node.name):
                continue
            first = min(idle_since.get(node.machine, now), now)  # a clock that went back does not prolong
            since[node.machine] = first
            idle.append((first, node.machine, node.name))
        idle.sort()
        idle_nodes.extend(node for _, _, node in idle)
        standing = sum(1 for m in fleet.machines_of_pool.get(name, ()) if not fleet.machines[m].going)
        spare = min(standing - pool.minimum, len(idle) - pool.headroom)
        for first, machine, _ in idle[: max(spare, 0)]:
            if now - first >= pool.scale_down_delay:
                removals.append(MachineRemoval(machine, f"idle for {int(now - first)} s"))
                del since[machine]
            else:
                wakes.append(first + pool.scale_down_delay)
    return Shrinking(tuple(removals), since, tuple(sorted(idle_nodes)), min(wakes, default=None))


def _held(fleet: Fleet, node: str) -> bool:
    # Pods that others placed (DaemonSets) do not keep a node: they come and go with it.
    return any(not holder.startswith("pod:") for holder in fleet.holders.get(node, ()))
