"""Slots of a pool's interconnect: which machine stands in which domain.

Slot n of a pool is machine `<pool>-<n>`; consecutive slots share an nvlink domain, a
rack and a block, as many as the pool's interconnect says.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Mapping, Sequence, Set
from functools import cached_property
from itertools import islice

from crds.labels import ZONE
from scheduler.fleet import Fleet, PoolState


class FreeSlots:
    """The slots of one pool where a plan may still ask for machines: those without one, lowest first.

    As many as the pool's maximum leaves room for. A machine that is going keeps its slot
    until it is gone.
    """

    def __init__(self, fleet: Fleet, pool: PoolState) -> None:
        self.pool = pool
        taken = fleet.machines_of_pool.get(pool.name, set())
        self._room = max(pool.maximum - len(taken), 0)
        self._taken: Set[str] = taken
        self._asked = 0
        self._gone: set[int] = set()  # taken out of the middle of the queue
        self._by_domain: dict[str, dict[str, list[int]]] = {}

    @cached_property
    def _queue(self) -> deque[int]:
        # Most plans ask for no machine, so that the names are looked at only when one does.
        taken = self._taken
        numbers = range(self.pool.maximum + len(taken)) if self._room else range(0)
        return deque(islice((slot for slot in numbers if machine_name(self.pool, slot) not in taken), self._room))

    def __len__(self) -> int:
        return self._room - self._asked

    def lowest(self, count: int) -> list[int]:
        """The first `count` slots, or all when there are fewer."""
        while self._queue and self._queue[0] in self._gone:
            self._gone.discard(self._queue.popleft())
        return list(islice((slot for slot in self._queue if slot not in self._gone), count))

    def of_domains(self, level: str) -> Mapping[str, Sequence[int]]:
        """The slots of each domain of a topology level, lowest first."""
        groups = self._by_domain.get(level)
        if groups is None:
            groups = defaultdict(list)
            for slot in self._queue:
                if slot not in self._gone and (domain := domains_of(self.pool, slot)[level]):
                    groups[domain].append(slot)
            self._by_domain[level] = groups
        return groups

    def take(self, slots: Sequence[int]) -> None:
        """These are asked for now."""
        self._asked += len(slots)
        for slot in slots:
            self._gone.add(slot)
            domains = domains_of(self.pool, slot)
            for level, groups in self._by_domain.items():
                if domains[level]:
                    groups[domains[level]].remove(slot)


def machine_name(pool: PoolState, slot: int) -> str:
    """The name of the machine in a slot: the same need always asks for the same machine."""
    return f"{pool.name}-{slot}"


def domains_of(pool: PoolState, slot: int) -> Mapping[str, str]:
    """The domains of a slot by level; "" where the level does not exist."""
    rack = slot // pool.nodes_per_rack if pool.nodes_per_rack else None
    block = rack // pool.racks_per_block if rack is not None and pool.racks_per_block else None
    nvlink = slot // pool.nodes_per_nvlink_domain if pool.nodes_per_nvlink_domain else None
    return {
        "nvlinkDomain": "" if nvlink is None else f"{pool.name}-nvl-{nvlink}",
        "rack": "" if rack is None else f"{pool.name}-rack-{rack}",
        "block": "" if block is None else f"{pool.name}-block-{block}",
        "zone": pool.labels.get(ZONE, ""),
        "site": pool.site,
    }
