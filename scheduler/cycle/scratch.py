"""What one plan knows and has given away so far."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from crds.labels import ACCELERATOR
from scheduler.autoscale.advice import Advice, advise
from scheduler.autoscale.growth import Growth, fresh_capacity, grow, rows_of
from scheduler.autoscale.slots import FreeSlots
from scheduler.cycle.pending import waiting_for_machines
from scheduler.decision import MachineRequest
from scheduler.explain.reasons import Reason
from scheduler.explain.room import no_room
from scheduler.fleet import Fleet, PoolState, TenantState, WorkloadState
from scheduler.fleet.rights import Rights
from scheduler.fleet.shape import Shape
from scheduler.placement.ask import Ask
from scheduler.placement.eligibility import pool_refuses
from scheduler.placement.pool_supply import PoolSupply
from scheduler.placement.supply import Supply


class Scratch:
    """Supply and usage as they are after the decisions made so far. Room and quota only shrink within a plan."""

    def __init__(self, fleet: Fleet, now: float) -> None:
        self.fleet, self.now = fleet, now
        self.supply = Supply(fleet)
        self.entitlements = fleet.use.entitlements.as_scratch(fleet.use.floors.at(now))
        self.charged: set[str] = set()  # roots of the tenants that were charged
        self.machine_requests: list[MachineRequest] = []
        self.by_price = sorted(fleet.pools.values(), key=lambda pool: (pool.price_micro, pool.name))
        self.taken: Counter[Shape] = Counter()  # workloads that room was given to, or promised
        self._advice: Advice | None = None  # made when something has to grow and there is a choice
        self._slots: dict[str, FreeSlots] = {}
        self._candidates: dict[tuple[Rights, Shape], tuple[list[PoolState], dict[str, str]]] = {}
        self._wants: dict[Shape, tuple[int, str]] = {}
        self._full: dict[tuple[str, Shape], Reason] = {}  # by pool and shape: no room, and none to be bought

    def rights(self, tenant: TenantState) -> Rights:
        """The tenant's rights; many tenants have the same."""
        return self.fleet.rights.of[tenant.name]

    def pools_for(self, rights: Rights, shape: Shape) -> tuple[list[PoolState], dict[str, str]]:
        """(pools that may take it, the best value first; why not, for the others).

        The best value is the lowest price of the work done: price ÷ throughput, where the
        workload says how fast each class is for it. Worked out once for all equal tenants.
        """
        found = self._candidates.get((rights, shape))
        if found is None:
            refused = {pool.name: pool_refuses(pool, rights, shape) for pool in self.by_price}
            pools = [pool for pool in self.by_price if not refused[pool.name]]
            speed = dict(shape.flavors)
            if speed:
                for pool in pools:
                    if pool.accelerator not in speed:
                        refused[pool.name] = f"has {pool.accelerator}, which is none of the workload's accelerators"
                pools = [pool for pool in pools if pool.accelerator in speed]
                pools.sort(key=lambda pool: (pool.price_micro / speed[pool.accelerator], pool.name))
            found = self._candidates[rights, shape] = (pools, {name: why for name, why in refused.items() if why})
        return found

    def turn(self, workload: WorkloadState) -> bool:
        """Whether neither a time nor a check stands in its way."""
        return workload.checks_passed and workload.not_before <= self.now

    def charge(self, tenant: str, ask: Ask, pool: PoolState) -> None:
        """Count the devices of an ask as used."""
        self.entitlements.charge(tenant, pool.accelerator, ask.devices)
        self.taken[ask.shape] += 1
        self.charged.add(self.fleet.use.floors.root(tenant))

    def wants(self, shape: Shape) -> tuple[int, str]:
        """(devices of all its pods, the class that it selects; empty when any will do)."""
        found = self._wants.get(shape)
        if found is None:
            ask = self.supply.ask(shape)
            selected = [one.node_selector[ACCELERATOR] for one in shape.pod_sets if ACCELERATOR in one.node_selector]
            classes = [*selected, *(accelerator for accelerator, _ in shape.flavors)]
            found = self._wants[shape] = (ask.devices if ask else 0, classes[0] if classes else "")
        return found

    # Room, now and to be bought

    def may_have_room(self, pool: PoolState, shape: Shape, ask: Ask) -> bool:
        """False when the shape surely finds no room in the pool any more in this plan; cheap, and remembered."""
        if (pool.name, shape) in self._full:
            return False
        have = self.supply.pools[pool.name]
        if len(self.slots_of(pool)):
            return True
        return all(
            int(np.minimum(have.room(pod), pod.count).sum()) >= (pod.pod_set.min_count or pod.count) for pod in ask.pods
        )

    def full(self, pool: PoolState, shape: Shape, ask: Ask) -> Reason:
        """Why the shape finds no room in the pool. Only for a pool where it does not."""
        known = self._full.get((pool.name, shape))
        if known is None:
            vector = self.supply.node_vector(pool)
            known = no_room(self.supply.pools[pool.name], ask, fresh_capacity(vector, ask))
            self._full[pool.name, shape] = known
        return known

    def is_full(self, pool: PoolState, shape: Shape) -> bool:
        """Whether it was found full for this shape."""
        return (pool.name, shape) in self._full

    def cheapest_growth(self, pools: Sequence[PoolState], shape: Shape, ask: Ask) -> Growth | None:
        """The growth that costs least, by the advice for all that waits where one is given.

        None, with the pools noted as full, when none will do.
        """
        for pool in self._advised(pools, shape):
            advised = grow(self.supply.pools[pool.name], self.slots_of(pool), self.supply.node_vector(pool), ask)
            if advised is not None:
                return advised
        options: list[Growth] = []
        for pool in pools:
            option = grow(self.supply.pools[pool.name], self.slots_of(pool), self.supply.node_vector(pool), ask)
            if option is not None:
                options.append(option)
            else:
                self.full(pool, shape, ask)
        return min(options, key=lambda one: (one.cost_micro, len(one.slots), one.pool.name), default=None)

    def _advised(self, pools: Sequence[PoolState], shape: Shape) -> list[PoolState]:
        if sum(1 for pool in pools if len(self.slots_of(pool))) < 2:
            return []
        if self._advice is None:
            waiting = waiting_for_machines(self.fleet, self.entitlements, self.taken, self.pools_for)
            growing = [pool for pool in self.by_price if pool.accepting]
            self._advice = advise(waiting, growing, self.supply, self.slots_of)
        return self._advice.order(shape, pools)

    def slots_of(self, pool: PoolState) -> FreeSlots:
        """The slots where machines may still be asked for."""
        if pool.name not in self._slots:
            self._slots[pool.name] = FreeSlots(self.fleet, pool)
        return self._slots[pool.name]

    def buy(self, pool: PoolState, slots: Sequence[int], why: str, workload: str = "") -> PoolSupply:
        """Ask for machines, whose room is there from now on."""
        have = self.supply.pools[pool.name]
        rows = rows_of(pool, slots)
        have.add(rows, np.tile(self.supply.node_vector(pool), (len(rows), 1)))
        self.slots_of(pool).take(slots)
        if self._advice is not None:
            self._advice.bought(pool.name, len(slots))
        for row in rows:
            where = row.domains
            self.machine_requests.append(
                MachineRequest(pool.name, row.name, where["block"], where["rack"], where["nvlinkDomain"], why, workload)
            )
        return have
