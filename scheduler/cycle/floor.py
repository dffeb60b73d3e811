"""What is missing to each pool's minimum and headroom."""

from __future__ import annotations

from scheduler.autoscale.shrink import unused_ready
from scheduler.cycle.scratch import Scratch


def keep_floor(scratch: Scratch) -> None:
    """Ask for the machines that are missing once everybody has been decided."""
    for pool in scratch.by_price:
        if not pool.accepting or pool.minimum == pool.headroom == 0:
            continue
        have = scratch.supply.pools[pool.name]
        asked = sum(1 for request in scratch.machine_requests if request.pool == pool.name)
        unused = len(unused_ready(scratch.fleet, have)) + int((have.takers[have.ready : len(have)] == 0).sum())
        short = pool.minimum - scratch.fleet.standing(pool.name) - asked
        slots = scratch.slots_of(pool).lowest(max(short, pool.headroom - unused, 0))
        if slots:
            scratch.buy(pool, slots, "to keep the minimum" if short > 0 else "to keep headroom")
