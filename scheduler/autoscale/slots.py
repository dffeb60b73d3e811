"""Slots of a pool's interconnect: which machine stands in which domain.

Slot n of a pool is machine `<pool>-<n>`; consecutive slots share an nvlink domain, a
rack and a block, as many as the pool's interconnect says.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from scheduler.fleet import Fleet, PoolState


def machine_name(pool: PoolState, slot: int) -> str:
    return f"{pool.name}-{slot}"


def free_slots(fleet: Fleet, pool: PoolState, asked: set[str]) -> Iterator[int]:
    """The slots without a machine, lowest first, as many as the pool may still have."""
    taken = {name for name in fleet.machines_of_pool.get(pool.name, ())} | asked
    room = pool.maximum - len(taken)
    slot = 0
    while room > 0:
        if machine_name(pool, slot) not in taken:
            yield slot
            room -= 1
        slot += 1


def domains_of(pool: PoolState, slot: int) -> Mapping[str, str]:
    """The domains of a slot by level; "" where the level does not exist."""
    rack = slot // pool.nodes_per_rack if pool.nodes_per_rack else None
    block = rack // pool.racks_per_block if rack is not None and pool.racks_per_block else None
    nvlink = slot // pool.nodes_per_nvlink_domain if pool.nodes_per_nvlink_domain else None
    return {
        "nvlinkDomain": "" if nvlink is None else f"{pool.name}-nvl-{nvlink}",
        "rack": "" if rack is None else f"{pool.name}-rack-{rack}",
        "block": "" if block is None else f"{pool.name}-block-{block}",
        "zone": "",
        "site": pool.site,
    }
