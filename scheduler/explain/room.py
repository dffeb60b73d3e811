"""Why a gang found no room in a pool, in numbers, and what would make room."""

from __future__ import annotations

import numpy as np

from scheduler.explain import reasons
from scheduler.explain.reasons import Reason
from scheduler.placement.ask import Ask
from scheduler.placement.pool_supply import PoolSupply


def no_room(supply: PoolSupply, ask: Ask, per_node: list[int]) -> Reason:
    """`per_node`: how many pods of each set a fresh node takes."""
    pool, level = supply.pool, ask.shape.required_topology
    rooms, missing = [], 0
    for pod, fits in zip(ask.pods, per_node, strict=True):
        if level:
            by_domain = supply.room_by_domain(pod, level, len(supply), pod.count)
            room = int(by_domain.max(initial=0))
        else:
            room = int(np.minimum(supply.room(pod), pod.count).sum())
        rooms.append((pod.pod_set.name, room, pod.count))
        missing = max(missing, -(-(pod.count - room) // max(fits, 1)))
    name, room, count = min(rooms, key=lambda one: (one[1] - one[2], one[0]))
    span = _nodes_in_domain(supply, level)
    if (
        level
        and span
        and any(-(-pod.count // max(fits, 1)) > span for pod, fits in zip(ask.pods, per_node, strict=True))
    ):
        return reasons.topology_too_narrow(pool.name, level, name, count, span)
    return reasons.at_maximum(pool.name, len(supply), name, room, count, max(missing, 1), pool.maximum, level)


def _nodes_in_domain(supply: PoolSupply, level: str) -> int:
    """How many nodes a domain of this level can ever have; 0 when that is not bounded."""
    pool = supply.pool
    return {
        "nvlinkDomain": pool.nodes_per_nvlink_domain,
        "rack": pool.nodes_per_rack,
        "block": pool.nodes_per_rack * pool.racks_per_block,
    }.get(level, 0)
