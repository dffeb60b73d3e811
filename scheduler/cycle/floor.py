"""What is missing to each pool's minimum and headroom, and to what its forecast says."""

from __future__ import annotations

from collections.abc import Mapping

from scheduler.autoscale.forecast import machines_short
from scheduler.autoscale.shrink import free_devices, unused_ready
from scheduler.cycle.scratch import Scratch


def keep_floor(scratch: Scratch, needs: Mapping[str, int]) -> None:
    """Ask for the machines that are missing once everybody has been decided.

    `needs`: pool → devices that should be free for what may come.
    """
    for pool in scratch.by_price:
        need = needs.get(pool.name, 0)
        if not pool.accepting or pool.minimum == pool.headroom == need == 0:
            continue
        have = scratch.supply.pools[pool.name]
        asked = sum(1 for request in scratch.machine_requests if request.pool == pool.name)
        unused = len(unused_ready(scratch.fleet, have)) + int((have.takers[have.ready : len(have)] == 0).sum())
        short = pool.minimum - scratch.fleet.standing(pool.name) - asked
        expected = machines_short(need, free_devices(have), pool.per_node)
        many = max(short, pool.headroom - unused, expected, 0)
        slots = scratch.slots_of(pool).lowest(many)
        if slots:
            why = "to keep headroom" if pool.headroom - unused == many else "for what the forecast expects"
            scratch.buy(pool, slots, "to keep the minimum" if short > 0 else why)
