"""The pipeline: order → may it? → fit → place → else grow → explain; then shrink what is idle."""

from __future__ import annotations

from collections.abc import Sequence

from scheduler.autoscale.growth import Growth, grow
from scheduler.autoscale.shrink import shrink
from scheduler.autoscale.slots import domains_of, free_slots, machine_name
from scheduler.decision import Admission, Eviction, MachineRequest, Memory, Placed, Plan, Waiting
from scheduler.explain import reasons
from scheduler.explain.reasons import Reason
from scheduler.fleet import Fleet, PoolState, TenantState, WorkloadState
from scheduler.fleet.fleet import devices_of
from scheduler.placement.bestfit import Assignment, Ints
from scheduler.placement.eligibility import pool_refuses
from scheduler.placement.supply import Slot, Supply
from scheduler.queueing.order import Order, by_priority_then_age
from scheduler.queueing.quota import refuse


def plan(fleet: Fleet, memory: Memory, now: float, order: Order = by_priority_then_age) -> tuple[Plan, Memory]:
    """One cycle. The fleet is not changed; equal inputs give equal plans.

    `now`: seconds since the epoch. A workload is decided whole: admitted with a node for
    every pod, or waiting with reasons.
    """
    cycle = _Cycle(fleet)
    for workload in order(fleet.pending.values()):
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
        self.asked: dict[str, set[str]] = {name: set() for name in fleet.pools}
        self.admissions: list[Admission] = []
        self.machine_requests: list[MachineRequest] = []
        self.waiting: list[Waiting] = []
        self._hopeless: dict[object, tuple[Reason, ...]] = {}
        self._by_price = sorted(fleet.pools.values(), key=lambda pool: (pool.price_micro, pool.name))

    def decide(self, workload: WorkloadState) -> None:
        """Admit, wait for machines, or say why not."""
        why = self._decide(workload)
        if why is not None:
            self.waiting.append(Waiting(workload.key, why))

    def _decide(self, workload: WorkloadState) -> tuple[Reason, ...] | None:
        tenant = self.fleet.tenants.get(workload.tenant)
        if tenant is None:
            return (reasons.tenant_unknown(workload.tenant),)
        if tenant.hold:
            return (reasons.on_hold(tenant.name),)
        # Room only shrinks within a cycle: what did not fit once, with the same shape and rights, never will.
        shape = (
            workload.tenant,
            workload.pod_sets,
            workload.required_topology,
            workload.jurisdictions,
        )
        key = _frozen(shape)
        known = self._hopeless.get(key)
        if known is not None:
            return known
        requests = self.supply.requests(workload)
        pools, tried = self._candidates(tenant, workload)
        if requests is None or not pools:
            return self._remember(key, (reasons.no_pool_fits(tried),))
        wanted = sum(devices_of(pod_set.requests) * pod_set.count for pod_set in workload.pod_sets)
        refused = {pool.name: refuse(tenant, pool.accelerator, wanted, self.usage) for pool in pools}
        allowed = [pool for pool in pools if refused[pool.name] is None]
        if not allowed:
            return self._remember(key, tuple(dict.fromkeys(why for why in refused.values() if why is not None)))
        for pool in allowed:
            have = self.supply.pools[pool.name]
            assignment = have.fit(workload, requests, have.ready)
            if assignment is not None:
                self._admit(workload, pool, wanted, assignment, requests)
                return None
        for pool in allowed:
            have = self.supply.pools[pool.name]
            if len(have.slots) > have.ready and (assignment := have.fit(workload, requests, len(have.slots))):
                self._reserve(workload, pool, wanted, assignment, requests)
                coming = sum(1 for row in {row for _, row, _ in assignment} if row >= have.ready)
                return (reasons.machines_coming(pool.name, coming),)
        return self._grow(workload, allowed, wanted, requests) or self._remember(
            key, tuple(reasons.at_maximum(pool.name, self._missing(pool, workload), pool.maximum) for pool in allowed)
        )

    def _candidates(self, tenant: TenantState, workload: WorkloadState) -> tuple[list[PoolState], dict[str, str]]:
        tried = {pool.name: pool_refuses(pool, tenant, workload) for pool in self._by_price}
        return [pool for pool in self._by_price if not tried[pool.name]], {k: v for k, v in tried.items() if v}

    def _admit(
        self, workload: WorkloadState, pool: PoolState, wanted: int, assignment: Assignment, requests: Sequence[Ints]
    ) -> None:
        self._reserve(workload, pool, wanted, assignment, requests)
        slots = self.supply.pools[pool.name].slots
        placements = sorted(
            Placed(workload.pod_sets[index].name, slots[row].name, count) for index, row, count in assignment
        )
        accelerator = pool.accelerator if wanted else ""
        self.admissions.append(Admission(workload.key, accelerator, pool.name, tuple(placements)))

    def _reserve(
        self, workload: WorkloadState, pool: PoolState, wanted: int, assignment: Assignment, requests: Sequence[Ints]
    ) -> None:
        # Room and quota are held for this one from here on, whether it starts now or when machines have come.
        self.supply.pools[pool.name].take(assignment, requests)
        if wanted:
            share = (workload.tenant, pool.accelerator)
            self.usage[share] = self.usage.get(share, 0) + wanted

    def _grow(
        self, workload: WorkloadState, pools: Sequence[PoolState], wanted: int, requests: Sequence[Ints]
    ) -> tuple[Reason, ...] | None:
        options: list[Growth] = []
        for pool in pools:
            option = grow(self.fleet, self.supply, pool, workload, requests, self.asked[pool.name])
            if option is not None:
                options.append(option)
        if not options:
            return None
        best = min(options, key=lambda option: (option.cost_micro, len(option.slots), option.pool.name))
        self._ask(best.pool, best.slots, f"for {workload.key}", workload.key)
        self._reserve(workload, best.pool, wanted, best.assignment, requests)
        return (reasons.machines_coming(best.pool.name, len(best.slots)),)

    def _ask(self, pool: PoolState, slots: Sequence[int], why: str, workload: str = "") -> None:
        have = self.supply.pools[pool.name]
        names = [machine_name(pool, slot) for slot in slots]
        domains = [domains_of(pool, slot) for slot in slots]
        vector = self.supply.node_vector(pool)
        have.extend(
            [Slot(name, pool.labels) for name in names], domains, vector.reshape(1, -1).repeat(len(names), axis=0)
        )
        self.asked[pool.name].update(names)
        for name, where in zip(names, domains, strict=True):
            request = MachineRequest(
                pool.name, name, where["block"], where["rack"], where["nvlinkDomain"], why, workload
            )
            self.machine_requests.append(request)

    def keep_floor(self) -> None:
        """Ask for what is missing to each pool's minimum and headroom."""
        for pool in self._by_price:
            if not pool.accepting:
                continue
            have = self.supply.pools[pool.name]
            standing = sum(
                1 for name in self.fleet.machines_of_pool.get(pool.name, ()) if not self.fleet.machines[name].going
            ) + len(self.asked[pool.name])
            unused = sum(1 for slot in have.slots if not slot.taken and not self.fleet.holders.get(slot.name))
            missing = max(pool.minimum - standing, pool.headroom - unused)
            slots = list(free_slots(self.fleet, pool, self.asked[pool.name]))[: max(missing, 0)]
            if slots:
                self._ask(pool, slots, "to keep the minimum" if pool.minimum > standing else "to keep headroom")

    def _missing(self, pool: PoolState, workload: WorkloadState) -> int:
        nodes = sum(-(-pod_set.count // max(_per_node(pool, pod_set.requests), 1)) for pod_set in workload.pod_sets)
        return max(1, min(nodes, nodes + len(self.fleet.machines_of_pool.get(pool.name, ())) - pool.maximum))

    def _remember(self, key: object, why: tuple[Reason, ...]) -> tuple[Reason, ...]:
        self._hopeless[key] = why
        return why


def _per_node(pool: PoolState, requests: object) -> int:
    assert isinstance(requests, dict)
    return min((pool.allocatable.get(name, 0) // amount for name, amount in requests.items() if amount), default=1)


def _frozen(shape: tuple[object, ...]) -> object:
    # Pod sets hold mappings, which do not hash; their text is exact and is built once a workload.
    return repr(shape)


def _lost(fleet: Fleet) -> list[Eviction]:
    """Workloads whose node is gone: they must wait again, whole."""
    lost: dict[str, str] = {}
    for node, holders in fleet.holders.items():
        if node not in fleet.nodes:
            for holder in holders:
                if not holder.startswith("pod:"):
                    lost.setdefault(holder, node)
    return [
        Eviction(key, Reason(reasons.NODE_LOST, f"node {node} is gone", ""))
        for key, node in sorted(lost.items())
        if key in fleet.workloads
    ]
