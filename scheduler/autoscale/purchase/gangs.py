"""Gangs that must stand in one domain: a rack, a block, an NVLink domain, with all their nodes, or nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from scheduler.autoscale.purchase.demand import Demand, Offering
from scheduler.autoscale.purchase.grouping import Grouping, Row
from scheduler.placement.bestfit import Ints, capacity


@dataclass(frozen=True, slots=True)
class Stand:
    """Nodes of one offering in one domain for a gang. `held`: (nodes, groups), pods on each."""

    offering: Offering
    row: Row
    domain: int
    held: Ints
    grouping: Grouping
    counts: tuple[int, ...]  # pods of each set

    @property
    def nodes(self) -> int:
        return int(self.held.shape[0])


def stand(
    demand: Demand, counts: Sequence[int], rows: Sequence[Row], slots: Mapping[tuple[str, str], list[int]]
) -> Stand | None:
    """The cheapest nodes in one domain that take the whole gang, per work done; None when no domain can.

    `slots`: (offering, level) → free slots of each domain, as they are now.
    """
    grouping = Grouping([row.offering for row in rows])
    grouping.add(0, replace(demand, topology="", counted_as="", apart=False), counts)
    problem, wanted = grouping.problem(rows), grouping.groups.wanted()
    best: tuple[float, str, Stand] | None = None
    for at, row in enumerate(rows):
        free = slots.get((row.offering.name, demand.topology), [])
        most = min(max(free, default=0), row.limit)
        if not most or not problem.eligible[:, at].all():
            continue
        held = _pack(problem.request, problem.capacity[at], wanted, most)
        if held is None:
            continue
        need = held.shape[0]
        # The domain where the fewest slots stay unused.
        domain = min((size, index) for index, size in enumerate(free) if size >= need)[1]
        cost = problem.price[at] * need / float(problem.speed[:, at].min())
        if best is None or (cost, row.offering.name) < best[:2]:
            best = cost, row.offering.name, Stand(row.offering, row, domain, held, grouping, tuple(counts))
    return best[2] if best is not None else None


def _pack(request: Ints, room: Ints, wanted: Ints, most: int) -> Ints | None:
    """Pods on the fewest equal nodes by first fit of the largest; None when `most` nodes do not take them."""
    share = (request / np.maximum(room, 1)).max(axis=1)
    free = np.tile(room, (most, 1))
    held = np.zeros((most, request.shape[0]), dtype=np.int64)
    for group in np.argsort(-share, kind="stable").tolist():
        rest = int(wanted[group])
        fits = np.minimum(capacity(free, request[group]), rest)
        filled = np.minimum(np.cumsum(fits), rest)
        if not filled.size or filled[-1] < rest:
            return None
        take = np.diff(filled, prepend=0)
        held[:, group] += take
        free -= take[:, None] * request[group]
    used = np.flatnonzero(held.any(axis=1))
    return held[used]
