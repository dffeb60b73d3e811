"""The purchase: gangs that need a domain first, then what room there is, then the cover of all that is left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from crds.errors import InvalidInput
from scheduler.autoscale.purchase.covering import Chosen, cover
from scheduler.autoscale.purchase.demand import BoughtNode, Bounds, Demand, Offering, Purchase, Room
from scheduler.autoscale.purchase.filling import Problem
from scheduler.autoscale.purchase.gangs import Stand, stand
from scheduler.autoscale.purchase.grouping import Grouping, Row
from scheduler.placement.bestfit import Ints

_ANY = 1 << 40  # nodes, where there is no limit
_FREE_LEVELS = frozenset({"", "hostname", "zone", "site"})
_ROUNDS = 6  # times that demands which cannot be met whole are taken out and the rest is covered anew
NO_OFFERING = "no offering takes its pods"
NO_DOMAIN = "no domain of that level has room for all of it"
BOUND = "the bounds of nodes, cost or power leave no room for it"
LIMIT = "the offerings that take its pods have no nodes left"


def purchase(
    demands: Sequence[Demand],
    offerings: Sequence[Offering],
    rooms: Sequence[Room] = (),
    bounds: Bounds | None = None,
    work: int = 1000,
) -> Purchase:
    """What to buy so that every demand is met whole, at the least cost.

    `rooms`: nodes that are there or coming; what fits there is not bought for. Gangs bound
    to a rack, block or NVLink domain look at new nodes only: those that fit in what is
    there are the caller's to leave out. `work`: patterns tried for the cost's sake, after
    the first cover; the time grows with it, not with the pods. Raises InvalidInput where an
    offering's name occurs twice.
    """
    names = [one.name for one in offerings]
    if len(set(names)) != len(names):
        twice = sorted({name for name in names if names.count(name) > 1})[0]
        raise InvalidInput(f"offering {twice!r} occurs twice", where="offerings", fix="give each offering its own name")
    order = sorted(range(len(demands)), key=lambda at: (demands[at].rank, demands[at].key))
    solver = _Solver([demands[at] for at in order], offerings, rooms, work)
    whole = solver.solve(len(order))
    if bounds is None or _within(whole, bounds):
        return whole
    # Bounds bind: as many of the first as they allow. More demands never cost less, but for the last node.
    few, many = 0, len(order)
    best = solver.solve(0)
    while many - few > 1:
        middle = (few + many) // 2
        found = solver.solve(middle, quick=True)
        if _within(found, bounds):
            few, best = middle, found
        else:
            many = middle
    unmet = dict(best.unmet)
    unmet.update((demands[at].key, BOUND) for at in order[few:])
    return Purchase(best.nodes, best.groups, unmet, best.reduced, best.members)


def _within(found: Purchase, bounds: Bounds) -> bool:
    return (
        (bounds.nodes is None or found.count <= bounds.nodes)
        and (bounds.cost_micro is None or found.cost_micro <= bounds.cost_micro)
        and (bounds.watts is None or found.watts <= bounds.watts)
    )


@dataclass(slots=True)
class _Books:
    """What one solution has decided so far."""

    stands: list[tuple[Demand, Stand]] = field(default_factory=list)
    unmet: dict[str, str] = field(default_factory=dict)
    reduced: dict[int, tuple[int, ...]] = field(default_factory=dict)


class _Solver:
    def __init__(self, demands: Sequence[Demand], offerings: Sequence[Offering], rooms: Sequence[Room], work: int):
        self.demands, self.offerings, self.rooms, self.work = demands, offerings, rooms, work
        shares = any(one.milli < 1000 for demand in demands for one in demand.pods)
        self.rows = [
            Row(one, one.allocatable, shared, _ANY if one.limit is None else one.limit)
            for one in offerings
            for shared in ((False, True) if shares and one.resource else (False,))
        ]

    def solve(self, first: int, quick: bool = False) -> Purchase:
        """For the first demands of the order."""
        books = _Books()
        slots = {(one.name, level): list(sizes) for one in self.offerings for level, sizes in sorted(one.slots.items())}
        loose = []
        for index, demand in enumerate(self.demands[:first]):
            if demand.topology in _FREE_LEVELS:
                loose.append(index)
            else:
                self._stand(demand, index, slots, books)
        limit = np.array([_ANY if one.limit is None else one.limit for one in self.offerings], dtype=np.int64)
        number = {one.name: at for at, one in enumerate(self.offerings)}
        for _, one in books.stands:
            limit[number[one.offering.name]] -= one.nodes
        counts = {index: [one.count for one in self.demands[index].pods] for index in loose}
        for turn in range(_ROUNDS):
            grouping = self._group(loose, counts)
            nodes, left = self._cover(grouping, books, limit, 0 if quick else self.work)
            short = np.flatnonzero(left)
            if not short.size:
                break
            loose = self._give_up(grouping, left, loose, counts, books, whole=turn >= _ROUNDS - 2)
        return self._result(grouping, nodes, books)

    # Gangs bound to a domain

    def _stand(self, demand: Demand, index: int, slots: dict[tuple[str, str], list[int]], books: _Books) -> None:
        used: dict[str, int] = {}
        for _, one in books.stands:
            used[one.offering.name] = used.get(one.offering.name, 0) + one.nodes
        rows = [Row(r.offering, r.amounts, r.shared, r.limit - used.get(r.offering.name, 0)) for r in self.rows]
        full = [one.count for one in demand.pods]
        found = stand(demand, full, rows, slots)
        if found is None and any(one.min_count for one in demand.pods):
            least = [one.min_count or one.count for one in demand.pods]
            found = stand(demand, least, rows, slots)
            if found is not None:
                books.reduced[index] = tuple(least)
        if found is None:
            books.unmet[demand.key] = NO_DOMAIN
            return
        for level in sorted(found.offering.slots):
            if level == demand.topology:
                slots[found.offering.name, level][found.domain] -= found.nodes
        books.stands.append((demand, found))

    # The rest

    def _group(self, loose: Sequence[int], counts: Mapping[int, Sequence[int]]) -> Grouping:
        grouping = Grouping(self.offerings)
        chooser = _Chooser(self.rows)
        for index in loose:
            demand = self.demands[index]
            zone, pool = chooser.choose(demand, counts[index])
            grouping.add(index, demand, counts[index], zone, pool)
        return grouping

    def _cover(self, grouping: Grouping, books: _Books, limit: Ints, work: int) -> tuple[list[Chosen], Ints]:
        wanted = grouping.groups.wanted()
        if not wanted.size:
            return [], wanted
        rooms = self._room_rows(books)
        if rooms:
            wanted = _into_rooms(
                grouping.problem(rooms), wanted, np.array([row.limit for row in rooms], dtype=np.int64)
            )
        if not self.rows:
            return [], wanted
        found = cover(grouping.problem(self.rows), wanted, limit, work)
        return found.nodes, found.left

    def _room_rows(self, books: _Books) -> list[Row]:
        out = [Row(one.offering, one.free, False, one.count) for one in self.rooms]
        for demand, one in books.stands:
            del demand
            for held in one.held:
                out.append(Row(one.offering, _rest(one, held), False, 1))
        return out

    def _give_up(
        self,
        grouping: Grouping,
        left: Ints,
        loose: list[int],
        counts: dict[int, list[int]],
        books: _Books,
        whole: bool,
    ) -> list[int]:
        """Take out, from the last rank, those for whose pods nothing is left; or let them start with fewer."""
        going: set[int] = set()
        problem = grouping.problem(self.rows)
        never = (problem.fits().max(axis=1, initial=0) if self.rows else np.zeros(left.size)) == 0
        for group in np.flatnonzero(left).tolist():
            missing = int(left[group])
            for index, count in reversed(grouping.groups.members[group]):
                if missing <= 0:
                    break
                if index in going:
                    missing -= count
                    continue
                spare = 0 if whole else self._spare(index, counts[index])
                if spare and not never[group]:
                    cut = min(spare, missing)
                    self._cut(index, counts[index], cut)
                    books.reduced[index] = tuple(counts[index])
                    missing -= cut
                    continue
                going.add(index)
                books.reduced.pop(index, None)
                books.unmet[self.demands[index].key] = NO_OFFERING if never[group] else LIMIT
                missing -= count
        return [index for index in loose if index not in going]

    def _spare(self, index: int, counts: Sequence[int]) -> int:
        sets = self.demands[index].pods
        return sum(have - one.min_count for one, have in zip(sets, counts, strict=True) if one.min_count)

    def _cut(self, index: int, counts: list[int], cut: int) -> None:
        for at, one in enumerate(self.demands[index].pods):
            if one.min_count:
                less = min(cut, counts[at] - one.min_count)
                counts[at] -= less
                cut -= less

    def _result(self, grouping: Grouping, nodes: Sequence[Chosen], books: _Books) -> Purchase:
        pod_sets = list(grouping.groups.pod_sets)
        members = {
            group: tuple((self.demands[index].key, count) for index, count in line)
            for group, line in enumerate(grouping.groups.members)
        }
        bought: list[BoughtNode] = []
        for demand, one in books.stands:
            base = len(pod_sets)
            pod_sets.extend(one.grouping.groups.pod_sets)
            for group, line in enumerate(one.grouping.groups.members):
                members[base + group] = tuple((demand.key, count) for _, count in line)
            for held in one.held:
                pods = tuple((base + group, int(held[group])) for group in np.flatnonzero(held).tolist())
                bought.append(BoughtNode(one.offering, pods, 1, f"{demand.topology} {one.domain}", demand.key))
        for chosen in nodes:
            pods = tuple(sorted(zip(chosen.groups.tolist(), chosen.counts.tolist(), strict=True)))
            bought.append(BoughtNode(self.rows[chosen.offering].offering, pods, chosen.times))
        bought.sort(key=lambda one: (one.gang, one.offering.name, one.pods, one.times))
        reduced = {self.demands[index].key: counts for index, counts in sorted(books.reduced.items())}
        return Purchase(tuple(bought), tuple(pod_sets), dict(sorted(books.unmet.items())), reduced, members)


def _into_rooms(problem: Problem, wanted: Ints, limit: Ints) -> Ints:
    """What is left when the rooms, which cost nothing more, hold as much as they can."""
    alike = replace(problem, price=np.ones_like(problem.price), owner=np.arange(limit.size))
    return cover(alike, wanted, limit, 0).left


def _rest(one: Stand, held: Ints) -> dict[str, int]:
    amounts = dict(one.row.amounts)
    for group in np.flatnonzero(held).tolist():
        for name, amount in one.grouping.groups.requests[group].items():
            if name in amounts:
                amounts[name] -= amount * int(held[group])
    return amounts


class _Chooser:
    """The zone or pool for demands that must stay in one: where their pods cost least, each by itself."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self._rows = rows
        self._known: dict[object, tuple[str, str]] = {}

    def choose(self, demand: Demand, counts: Sequence[int]) -> tuple[str, str]:
        """(zone, pool); "" where it is not bound."""
        by_zone = demand.topology in {"zone", "site"}
        if not by_zone and not (demand.single_pool and sum(counts) > 1):
            return "", ""
        sets = tuple(
            (tuple(sorted(one.requests.items())), tuple(sorted(one.node_selector.items()))) for one in demand.pods
        )
        key = (sets, tuple(counts), demand.flavors, demand.capacity_types, demand.pools, by_zone, demand.single_pool)
        if key not in self._known:
            self._known[key] = self._cheapest(demand, counts, by_zone)
        return self._known[key]

    def _cheapest(self, demand: Demand, counts: Sequence[int], by_zone: bool) -> tuple[str, str]:
        grouping = Grouping([row.offering for row in self._rows])
        alone = replace(demand, topology="", counted_as="", apart=False)
        grouping.add(0, alone, counts)
        problem, wanted = grouping.problem(self._rows), grouping.groups.wanted()
        fits = problem.fits()
        share = problem.dearest_share()
        cost = np.where(fits > 0, share * problem.price / problem.speed, np.inf)
        places = sorted(
            {
                (row.offering.zone if by_zone else "", row.offering.pool if demand.single_pool else "")
                for row in self._rows
            }
        )
        best, least = places[0] if places else ("", ""), np.inf
        for zone, pool in places:
            mine = [
                at
                for at, row in enumerate(self._rows)
                if (not by_zone or row.offering.zone == zone) and (not pool or row.offering.pool == pool)
            ]
            total = float(cost[:, mine].min(axis=1) @ wanted)
            room = sum(min(row.limit, _ANY) for row in (self._rows[at] for at in mine))
            if room and total < least:
                best, least = (zone, pool), total
        return best
