"""Machines to come: the fewest of the cheapest pool with which a waiting gang fits whole.

It asks the placement code itself, with machines added that do not exist yet, so that
what is bought is what will be used.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from scheduler.autoscale.slots import FreeSlots, domains_of, machine_name
from scheduler.fleet import PoolState
from scheduler.placement.ask import Ask
from scheduler.placement.bestfit import Ints, capacity
from scheduler.placement.eligibility import shape_refuses
from scheduler.placement.pool_supply import NewRow, PoolSupply
from scheduler.placement.supply import new_row


@dataclass(frozen=True, slots=True)
class Growth:
    """New slots of a pool with which the workload fits."""

    pool: PoolState
    slots: tuple[int, ...]

    @property
    def cost_micro(self) -> int:
        """Price an hour of the machines added, millionths."""
        return self.pool.price_micro * len(self.slots)


@dataclass(frozen=True, slots=True)
class _Group:
    """Slots that may be asked for together, and the room that is there already."""

    least: int  # machines that are missing at least
    slots: Sequence[int]


def grow(supply: PoolSupply, slots: FreeSlots, vector: Ints, ask: Ask) -> Growth | None:
    """The fewest new machines of this pool that let the gang fit; None when its maximum forbids.

    `vector`: what a fresh node offers. The supply is left as it was.
    """
    per_node = fresh_capacity(vector, ask)
    groups = _groups(supply, slots, per_node, ask)
    best: list[int] | None = None
    for group in sorted(groups, key=lambda group: group.least):
        most = len(group.slots) if best is None else len(best) - 1
        if group.least > most:
            break  # those that follow need no fewer
        found = _fewest(supply, group, most, vector, ask)
        if found is not None:
            best = found
    return Growth(supply.pool, tuple(best)) if best is not None else None


def fresh_capacity(vector: Ints, ask: Ask) -> list[int]:
    """How many pods of each set fit on a fresh node."""
    return [int(capacity(vector.reshape(1, -1), pod.request)[0]) for pod in ask.pods]


def rows_of(pool: PoolState, slots: Iterable[int]) -> list[NewRow]:
    """The rows that machines in these slots would be."""
    return [new_row(pool, machine_name(pool, slot), domains_of(pool, slot)) for slot in slots]


def _groups(supply: PoolSupply, slots: FreeSlots, per_node: Sequence[int], ask: Ask) -> list[_Group]:
    level = ask.shape.required_topology
    if not level:
        there = [int(np.minimum(supply.room(pod), pod.count).sum()) for pod in ask.pods]
        least = _least(ask, per_node, there)
        # Bounded from above too: a fresh node for every pod is always enough.
        most = min(len(slots), sum(pod.count for pod in ask.pods))
        return [_Group(least, _suited(supply.pool, slots, most, ask))] if least <= most else []
    rooms = [supply.room_by_domain(pod, level, len(supply), pod.count) for pod in ask.pods]
    codes = {name: code for code, name in enumerate(supply.level(level)[1])}
    found = []
    for domain, free in slots.of_domains(level).items():
        code = codes.get(domain)
        there = [int(room[code]) if code is not None else 0 for room in rooms]
        least = _least(ask, per_node, there)
        if least <= len(free):
            found.append(_Group(least, [slot for slot in free if _suits(supply.pool, slot, ask)]))
    return found


def _least(ask: Ask, per_node: Sequence[int], there: Sequence[int]) -> int:
    """A lower bound of the machines that are missing, by each pod set taken alone."""
    least = 1
    for pod, fits, room in zip(ask.pods, per_node, there, strict=True):
        missing = pod.count - room
        if missing > 0:
            least = max(least, -(-missing // fits) if fits else 1 << 30)
    return least


def _suited(pool: PoolState, slots: FreeSlots, most: int, ask: Ask) -> Sequence[int]:
    if all(set(pod.pod_set.node_selector.items()) <= pool.labels.items() for pod in ask.pods):
        return slots.lowest(most)
    return [slot for slot in slots.lowest(len(slots)) if _suits(pool, slot, ask)][:most]


def _suits(pool: PoolState, slot: int, ask: Ask) -> bool:
    # Selectors may name a rack, or a host that does not exist.
    (row,) = rows_of(pool, (slot,))
    return any(not shape_refuses(pod.pod_set, row.labels, (), pool.confidential) for pod in ask.pods)


def _fewest(supply: PoolSupply, group: _Group, most: int, vector: Ints, ask: Ask) -> list[int] | None:
    """The first slots of the group that suffice, at most `most`: doubling from the bound, then halving back."""
    most = min(most, len(group.slots))
    short, many = group.least - 1, group.least
    while many <= most and not _fits_with(supply, group.slots[:many], vector, ask):
        short, many = many, many + max(1, many - group.least + 1)
        if many > most > short:
            many = most
    if many > most:
        return None
    while many - short > 1:
        middle = (many + short) // 2
        if _fits_with(supply, group.slots[:middle], vector, ask):
            many = middle
        else:
            short = middle
    return list(group.slots[:many])


def _fits_with(supply: PoolSupply, slots: Sequence[int], vector: Ints, ask: Ask) -> bool:
    supply.add(rows_of(supply.pool, slots), np.tile(vector, (len(slots), 1)))
    placed = supply.place(ask, len(supply))
    if placed is not None:
        supply.give_back(ask, placed)
    supply.drop_last(len(slots))
    return placed is not None
