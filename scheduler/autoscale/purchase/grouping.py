"""From demands to groups of equal pods, and from offerings to rows: what the covering works on."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from scheduler.autoscale.purchase.demand import Demand, Offering
from scheduler.autoscale.purchase.filling import Floats, Mask, Problem
from scheduler.fleet import PodSet
from scheduler.placement.bestfit import Ints
from scheduler.placement.eligibility import shape_refuses

_MILLI = 1000
_PODS, _SHARES, _APART = "pods", "kekkai:shares", "kekkai:apart:"
_ZONE, _HOST = "zone", "hostname"


@dataclass(frozen=True, slots=True)
class Suits:
    """What decides which offerings take a group."""

    pod_sets: tuple[PodSet, ...]
    flavors: tuple[tuple[str, float], ...]
    capacity_types: frozenset[str]
    pools: frozenset[str]
    zone: str = ""
    pool: str = ""


@dataclass(slots=True)
class Groups:
    """Equal pods. `members`: by group, (demand's index, pods), in the order of ranks."""

    requests: list[Mapping[str, int]] = field(default_factory=list)
    suits: list[Suits] = field(default_factory=list)
    pod_sets: list[PodSet] = field(default_factory=list)
    members: list[list[tuple[int, int]]] = field(default_factory=list)

    def wanted(self, without: frozenset[int] = frozenset()) -> Ints:
        """Pods by group. `without`: demands that are left out."""
        return np.array(
            [sum(count for index, count in line if index not in without) for line in self.members], dtype=np.int64
        )


class Grouping:
    """Groups for a list of demands on given offerings."""

    def __init__(self, offerings: Sequence[Offering]) -> None:
        self.offerings = offerings
        self.zones = sorted({one.zone for one in offerings if one.zone})
        self._devices = {one.resource for one in offerings if one.resource}
        self.groups = Groups()
        self._of: dict[Hashable, int] = {}
        self._turns: dict[Hashable, int] = defaultdict(int)
        self._raw: dict[Hashable, int] = {}  # the same, by what is cheaper to make

    def add(self, index: int, demand: Demand, counts: Sequence[int], zone: str = "", pool: str = "") -> None:
        """Take in a demand with so many pods of each set, bound to a zone or pool where one is given."""
        if demand.topology == _HOST:
            total: Counter[str] = Counter()
            for pod_set, count in zip(demand.pods, counts, strict=True):
                for name, amount in self._request(demand, pod_set).items():
                    total[name] += amount * count
            self._put(index, demand, demand.pods, dict(total), 1, zone, pool)
            return
        for pod_set, count in zip(demand.pods, counts, strict=True):
            if pod_set.spread == _ZONE and not zone and self.zones:
                turn = (demand.counted_as or demand.key, pod_set.name if not demand.counted_as else "")
                start, many = self._turns[turn], len(self.zones)
                self._turns[turn] = start + count
                for at in range(min(many, count)):
                    part = count // many + (1 if at < count % many else 0)
                    self._put(index, demand, (pod_set,), None, part, self.zones[(start + at) % many], pool)
            else:
                self._put(index, demand, (pod_set,), None, count, zone, pool)

    def _request(self, demand: Demand, pod_set: PodSet) -> dict[str, int]:
        out = {name: amount for name, amount in pod_set.requests.items() if amount}
        if pod_set.milli < _MILLI:
            for name in self._devices & out.keys():
                # Rounded up so that whole parts of a device are counted.
                out[_SHARES] = out.get(_SHARES, 0) + out.pop(name) * (_MILLI // (_MILLI // pod_set.milli))
        out[_PODS] = out.get(_PODS, 0) + 1
        if demand.apart and demand.counted_as:
            out[_APART + demand.counted_as] = 1
        return out

    def _put(
        self,
        index: int,
        demand: Demand,
        pod_sets: tuple[PodSet, ...],
        request: Mapping[str, int] | None,
        count: int,
        zone: str,
        pool: str,
    ) -> None:
        """`request`: None for that of one pod of the only pod set."""
        if not count:
            return
        sets = pod_sets if request is None else ()
        raw = tuple((tuple(one.requests.items()), one.milli) for one in sets)
        rules = tuple(
            (tuple(sorted(one.node_selector.items())) if one.node_selector else (), one.tolerations, one.confidential)
            for one in pod_sets
        )
        apart = demand.counted_as if demand.apart else ""
        kind = (rules, demand.flavors, demand.capacity_types, demand.pools, zone, pool, apart)
        group = self._raw.get((raw, kind)) if raw else None
        if group is None:
            asked = self._request(demand, pod_sets[0]) if request is None else request
            key = (tuple(sorted(asked.items())), kind)
            group = self._of.get(key)
            if group is None:
                group = self._of[key] = len(self.groups.requests)
                self.groups.requests.append(asked)
                self.groups.suits.append(
                    Suits(pod_sets, demand.flavors, demand.capacity_types, demand.pools, zone, pool)
                )
                self.groups.pod_sets.append(pod_sets[0])
                self.groups.members.append([])
            if raw:
                self._raw[raw, kind] = group
        self.groups.members[group].append((index, count))

    def columns(self) -> list[str]:
        """The resources that some group asks for."""
        return sorted({name for request in self.groups.requests for name in request} | {_PODS})

    def request_matrix(self, columns: Sequence[str]) -> Ints:
        """(groups, columns)"""
        at = {name: column for column, name in enumerate(columns)}
        out = np.zeros((len(self.groups.requests), len(columns)), dtype=np.int64)
        for group, request in enumerate(self.groups.requests):
            for name, amount in request.items():
                out[group, at[name]] = amount
        return out

    def problem(self, rows: Sequence[Row]) -> Problem:
        """The groups on these rows. Rows that are shared-only take no whole devices, and the other way round."""
        columns = self.columns()
        capacity = np.array([_offered(rows, name) for name in columns], dtype=np.int64).T
        eligible, speed = self._eligible([row.offering for row in rows])
        price = np.array([float(max(row.offering.price_micro, 1)) for row in rows])
        number = {name: at for at, name in enumerate(dict.fromkeys(row.offering.name for row in rows))}
        owner = np.array([number[row.offering.name] for row in rows], dtype=np.int64)
        request = self.request_matrix(columns)
        return Problem(request, np.ascontiguousarray(capacity), price, eligible, speed, owner)

    def _eligible(self, offerings: Sequence[Offering]) -> tuple[Mask, Floats]:
        groups, width = self.groups, len(offerings)
        eligible = np.zeros((len(groups.suits), width), dtype=np.bool_)
        speed = np.ones((len(groups.suits), width))
        zones = np.array([one.zone for one in offerings])
        pools = np.array([one.pool for one in offerings])
        types = np.array([one.capacity_type for one in offerings])
        models = np.array([one.accelerator for one in offerings])
        known: dict[Hashable, Mask] = {}
        for group, suits in enumerate(groups.suits):
            good = np.ones(width, dtype=np.bool_)
            for pod_set in suits.pod_sets:
                good &= self._labels_suit(pod_set, offerings, known)
            if suits.zone:
                good &= zones == suits.zone
            if suits.pool:
                good &= pools == suits.pool
            if suits.pools:
                good &= np.isin(pools, sorted(suits.pools))
            if suits.capacity_types:
                good &= np.isin(types, sorted(suits.capacity_types))
            if suits.flavors:
                fastest = max(rate for _, rate in suits.flavors)
                mine = np.zeros(width)
                for model, rate in suits.flavors:
                    mine[models == model] = rate / fastest
                good &= mine > 0
                speed[group] = np.where(mine > 0, mine, 1.0)
            eligible[group] = good
        return eligible, speed

    def _labels_suit(self, pod_set: PodSet, offerings: Sequence[Offering], known: dict[Hashable, Mask]) -> Mask:
        key = (tuple(sorted(pod_set.node_selector.items())), pod_set.tolerations, pod_set.confidential)
        found = known.get(key)
        if found is None:
            found = known[key] = np.array(
                [not shape_refuses(pod_set, one.labels, one.taints, one.confidential) for one in offerings],
                dtype=np.bool_,
            )
        return found


@dataclass(frozen=True, slots=True)
class Row:
    """One kind of node as the covering sees it: an offering, whole-only or shared-only."""

    offering: Offering
    amounts: Mapping[str, int]
    shared: bool
    limit: int


def _offered(rows: Sequence[Row], column: str) -> list[int]:
    """Room of an empty node of each row."""
    if column.startswith(_APART):
        return [1] * len(rows)
    if column == _SHARES:
        return [row.amounts.get(row.offering.resource, 0) * _MILLI if row.shared else 0 for row in rows]
    return [0 if row.shared and column == row.offering.resource else row.amounts.get(column, 0) for row in rows]
