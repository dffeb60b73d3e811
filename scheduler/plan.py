"""The pipeline: order → may it? → fit → place → else grow → explain; then shrink what is idle."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from scheduler.autoscale.growth import Growth, fresh_capacity, grow, rows_of
from scheduler.autoscale.shrink import shrink, unused_ready
from scheduler.autoscale.slots import FreeSlots
from scheduler.decision import Admission, Eviction, MachineRequest, Memory, Placed, Plan, Waiting
from scheduler.explain import reasons
from scheduler.explain.reasons import Reason
from scheduler.explain.room import no_room
from scheduler.fleet import Fleet, PoolState, TenantState, WorkloadState
from scheduler.fleet.shape import Shape
from scheduler.placement.ask import Ask
from scheduler.placement.bestfit import Assignment
from scheduler.placement.eligibility import Rights, pool_refuses, rights_of
from scheduler.placement.pool_supply import PoolSupply
from scheduler.placement.supply import Supply
from scheduler.queueing.order import Order, by_priority_then_share
from scheduler.queueing.quota import refuse


def plan(fleet: Fleet, memory: Memory, now: float, order: Order = by_priority_then_share) -> tuple[Plan, Memory]:
    """One cycle. The fleet is not changed; equal inputs give equal plans.

    `now`: seconds since the epoch. A workload is decided whole: admitted with a node for
    every pod, or waiting with reasons.
    """
    cycle = _Cycle(fleet)
    for workload in order(fleet, cycle.usage):
        cycle.decide(workload)
    cycle.keep_floor()
    gone = shrink(fleet, cycle.supply, memory.idle_since, now)
    decided = Plan(
        admissions=tuple(cycle.admissions),
        evictions=tuple(_lost(fleet)),
        machine_requests=tuple(sorted(cycle.machine_requests, key=lambda request: (request.pool, request.name))),
        machine_removals=gone.removals,
        waiting=tuple(cycle.waiting),
        idle=gone.idle_nodes,
        next_wake=gone.next_wake,
    )
    return decided, Memory(idle_since=gone.idle_since)


class _Cycle:
    """The scratch state of one plan."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.supply = Supply(fleet)
        self.usage = dict(fleet.usage)
        self.admissions: list[Admission] = []
        self.machine_requests: list[MachineRequest] = []
        self.waiting: list[Waiting] = []
        self._slots: dict[str, FreeSlots] = {}
        # Room and quota only shrink within a cycle: what was hopeless once stays so.
        self._hopeless: dict[tuple[str, Shape], tuple[Reason, ...]] = {}  # by tenant and shape
        self._full: dict[tuple[str, Shape], Reason] = {}  # by pool and shape: no room, and none to be bought
        self._candidates: dict[tuple[Rights, Shape], tuple[list[PoolState], dict[str, str]]] = {}
        self._rights: dict[str, Rights] = {}  # by tenant
        self._by_price = sorted(fleet.pools.values(), key=lambda pool: (pool.price_micro, pool.name))

    def decide(self, workload: WorkloadState) -> None:
        """Admit, wait for machines, or say why not."""
        tenant = self.fleet.tenants.get(workload.tenant)
        why: tuple[Reason, ...] | None
        if tenant is None:
            why = (reasons.tenant_unknown(workload.tenant),)
        elif tenant.hold:
            why = (reasons.on_hold(tenant.name),)
        else:
            shape = self.fleet.shapes[workload.key]
            why = self._hopeless.get((tenant.name, shape)) or self._decide(workload, tenant, shape)
        if why is not None:
            self.waiting.append(Waiting(workload.key, why))

    def _decide(self, workload: WorkloadState, tenant: TenantState, shape: Shape) -> tuple[Reason, ...] | None:
        key = (tenant.name, shape)
        pools, tried = self._pools_for(tenant, shape)
        ask = self.supply.ask(shape)
        if ask is None or not pools:
            self._hopeless[key] = (reasons.no_pool_fits(tried),)
            return self._hopeless[key]
        why: dict[Reason, None] = {}  # ordered, each once
        allowed = []
        for pool in pools:
            refused = refuse(tenant, pool.accelerator, ask.devices, self.usage) or self._full.get((pool.name, shape))
            if refused is None:
                allowed.append(pool)
            else:
                why[refused] = None
        for pool in allowed:
            have = self.supply.pools[pool.name]
            placed = have.place(ask, have.ready)
            if placed is not None:
                self._admit(workload, ask, have, placed)
                return None
        for pool in allowed:
            have = self.supply.pools[pool.name]
            placed = have.place(ask, len(have)) if len(have) > have.ready else None
            if placed is not None:
                return self._await(workload, ask, have, placed)
        best = self._cheapest_growth(allowed, shape, ask)
        if best is not None:
            have = self._ask(best.pool, best.slots, f"for {workload.key}", workload.key)
            placed = have.place(ask, len(have))
            if placed is None:
                raise AssertionError(f"{workload.key} does not fit where it fitted a moment ago")
            return self._await(workload, ask, have, placed)
        why.update((self._full[pool.name, shape], None) for pool in allowed)
        self._hopeless[key] = tuple(why)
        return self._hopeless[key]

    def _pools_for(self, tenant: TenantState, shape: Shape) -> tuple[list[PoolState], dict[str, str]]:
        """(pools that may take it, cheapest first; why not, for the others). Worked out once for all equal tenants."""
        rights = self._rights.get(tenant.name)
        if rights is None:
            rights = self._rights[tenant.name] = rights_of(tenant)
        found = self._candidates.get((rights, shape))
        if found is None:
            refused = {pool.name: pool_refuses(pool, rights, shape) for pool in self._by_price}
            pools = [pool for pool in self._by_price if not refused[pool.name]]
            found = self._candidates[rights, shape] = (pools, {name: why for name, why in refused.items() if why})
        return found

    def _admit(self, workload: WorkloadState, ask: Ask, have: PoolSupply, placed: Assignment) -> None:
        self._charge(workload, ask, have.pool)
        placements = sorted(
            Placed(workload.pod_sets[index].name, have.names[row], count) for index, row, count in placed
        )
        accelerator = have.pool.accelerator if ask.devices else ""
        self.admissions.append(Admission(workload.key, accelerator, have.pool.name, tuple(placements)))

    def _await(self, workload: WorkloadState, ask: Ask, have: PoolSupply, placed: Assignment) -> tuple[Reason, ...]:
        # Room and quota are held from here on, though it starts only when the machines have come.
        self._charge(workload, ask, have.pool)
        coming = {row for _, row, _ in placed if row >= have.ready}
        return (reasons.machines_coming(have.pool.name, len(coming)),)

    def _charge(self, workload: WorkloadState, ask: Ask, pool: PoolState) -> None:
        if ask.devices:
            share = (workload.tenant, pool.accelerator)
            self.usage[share] = self.usage.get(share, 0) + ask.devices

    def _cheapest_growth(self, pools: list[PoolState], shape: Shape, ask: Ask) -> Growth | None:
        options: list[Growth] = []
        for pool in pools:
            have, vector = self.supply.pools[pool.name], self.supply.node_vector(pool)
            option = grow(have, self._slots_of(pool), vector, ask)
            if option is not None:
                options.append(option)
            else:
                self._full[pool.name, shape] = no_room(have, ask, fresh_capacity(vector, ask))
        return min(options, key=lambda one: (one.cost_micro, len(one.slots), one.pool.name), default=None)

    def _slots_of(self, pool: PoolState) -> FreeSlots:
        if pool.name not in self._slots:
            self._slots[pool.name] = FreeSlots(self.fleet, pool)
        return self._slots[pool.name]

    def _ask(self, pool: PoolState, slots: Sequence[int], why: str, workload: str = "") -> PoolSupply:
        have = self.supply.pools[pool.name]
        rows = rows_of(pool, slots)
        have.add(rows, np.tile(self.supply.node_vector(pool), (len(rows), 1)))
        self._slots_of(pool).take(slots)
        for row in rows:
            where = row.domains
            self.machine_requests.append(
                MachineRequest(pool.name, row.name, where["block"], where["rack"], where["nvlinkDomain"], why, workload)
            )
        return have

    def keep_floor(self) -> None:
        """Ask for what is missing to each pool's minimum and headroom."""
        for pool in self._by_price:
            if not pool.accepting or pool.minimum == pool.headroom == 0:
                continue
            have = self.supply.pools[pool.name]
            asked = sum(1 for request in self.machine_requests if request.pool == pool.name)
            unused = len(unused_ready(self.fleet, have)) + int((have.takers[have.ready : len(have)] == 0).sum())
            short = pool.minimum - self.fleet.standing(pool.name) - asked
            slots = self._slots_of(pool).lowest(max(short, pool.headroom - unused, 0))
            if slots:
                self._ask(pool, slots, "to keep the minimum" if short > 0 else "to keep headroom")


def _lost(fleet: Fleet) -> list[Eviction]:
    """Workloads whose node is gone: they must wait again, whole."""
    lost: dict[str, str] = {}
    for node in sorted(fleet.homeless):
        for holder in fleet.workload_holders(node):
            lost.setdefault(holder, node)
    return [Eviction(key, reasons.node_lost(node)) for key, node in sorted(lost.items())]
