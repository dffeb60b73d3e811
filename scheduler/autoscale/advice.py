"""In which pools to grow, seen over all that waits rather than one workload at a time.

One workload alone takes the pool that is cheapest for it: eight that need one device each
would get eight small machines where one large one costs less. The purchase looks at all of
them together; here it is asked which shapes should grow where, and by how many machines.
Placement stays with the placement code: an advice that does not come true is passed over.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from crds.labels import ZONE
from scheduler.autoscale.purchase import Demand, Offering, Purchase, Room, purchase
from scheduler.autoscale.slots import FreeSlots
from scheduler.fleet import PoolState
from scheduler.fleet.shape import Shape
from scheduler.placement.supply import Supply

_SHAPES = 300  # with rights, that are looked at
_GANGS = 64  # of one shape, that are looked at
_WORK = 30


@dataclass(frozen=True, slots=True)
class Waiting:
    """`count` workloads of a shape that may use these pools."""

    shape: Shape
    pools: frozenset[str]
    count: int


@dataclass(slots=True)
class Advice:
    """`machines`: by pool, how many are still advised. `pools`: shape → pools, the one for most of its pods first."""

    machines: Counter[str] = field(default_factory=Counter)
    pools: Mapping[Shape, tuple[str, ...]] = field(default_factory=dict)

    def order(self, shape: Shape, pools: Sequence[PoolState]) -> list[PoolState]:
        """Those of these pools that the shape should grow in, the first choice first."""
        named = {pool.name: pool for pool in pools}
        return [named[name] for name in self.pools.get(shape, ()) if name in named and self.machines[name] > 0]

    def bought(self, pool: str, count: int) -> None:
        """So many machines have been asked for."""
        self.machines[pool] = max(self.machines[pool] - count, 0)


def advise(
    waiting: Sequence[Waiting], pools: Sequence[PoolState], supply: Supply, slots: Callable[[PoolState], FreeSlots]
) -> Advice:
    """Buy for all that waits beyond the room there is, pools with free slots being the offerings."""
    offerings = [_offering(pool, len(slots(pool))) for pool in pools if len(slots(pool))]
    # Among nodes of one size the cheapest is best for each by itself too.
    if len({tuple(sorted(one.allocatable.items())) for one in offerings}) < 2:
        return Advice()
    some = sorted(waiting, key=lambda one: (-one.count, repr(one.shape.pod_sets), sorted(one.pools)))
    demands: list[Demand] = []
    shapes: dict[str, Shape] = {}
    for number, one in enumerate(one for one in some if not one.shape.required_topology):
        if number == _SHAPES:
            break
        made = _demands(one, number)
        demands.extend(made)
        shapes.update((demand.key, one.shape) for demand in made)
    if sum(one.count for one in waiting) < 2 or not demands or len(offerings) < 2:
        return Advice()
    return _read(purchase(demands, offerings, _rooms(pools, supply), work=_WORK), shapes)


def _demands(one: Waiting, number: int) -> list[Demand]:
    # Spread and the least counts are placement's to see to.
    sets = tuple(pod_set for pod_set in one.shape.pod_sets if pod_set.count)
    if len(sets) == 1 and sets[0].count == 1:
        from_one = type(sets[0])(
            sets[0].name,
            one.count,
            sets[0].requests,
            sets[0].node_selector,
            sets[0].tolerations,
            sets[0].confidential,
            min_count=1,
            milli=sets[0].milli,
        )
        return [Demand(f"{number}", (from_one,), flavors=one.shape.flavors, pools=one.pools, rank=number)]
    return [
        Demand(f"{number}-{at}", sets, single_pool=True, flavors=one.shape.flavors, pools=one.pools, rank=number)
        for at in range(min(one.count, _GANGS))
    ]


def _offering(pool: PoolState, limit: int) -> Offering:
    return Offering(
        pool.name,
        pool.name,
        pool.allocatable,
        pool.price_micro,
        zone=pool.labels.get(ZONE, ""),
        accelerator=pool.accelerator,
        resource=pool.resource,
        labels=pool.labels,
        taints=pool.taints,
        confidential=pool.confidential,
        limit=limit,
    )


def _rooms(pools: Sequence[PoolState], supply: Supply) -> list[Room]:
    out = []
    for pool in pools:
        have = supply.pools[pool.name]
        free, counts = np.unique(np.maximum(have.free[: len(have)], 0), axis=0, return_counts=True)
        offering = _offering(pool, 0)
        for at, (row, count) in enumerate(zip(free, counts.tolist(), strict=True)):
            amounts = {name: int(row[column]) for name, column in supply.columns.items() if row[column]}
            out.append(Room(f"{pool.name}-{at}", offering, amounts, count))
    return out


def _read(found: Purchase, shapes: Mapping[str, Shape]) -> Advice:
    machines: Counter[str] = Counter()
    pods: dict[Shape, Counter[str]] = {}
    for node in found.nodes:
        machines[node.offering.pool] += node.times
        for group, count in node.pods:
            for key, _ in found.members[group]:
                pods.setdefault(shapes[key], Counter())[node.offering.pool] += count * node.times
    order = {
        shape: tuple(name for name, _ in sorted(by_pool.items(), key=lambda item: (-item[1], item[0])))
        for shape, by_pool in pods.items()
    }
    return Advice(machines, order)
