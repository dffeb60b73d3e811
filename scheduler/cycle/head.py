"""The set of waiting workloads at the head of the queue that is worth most, tried on the plan's own supply.

Worth is lexicographic: the devices within the tenants' nominal quotas, priority by priority
from the highest, then all devices, priority by priority. So the choice never lets a borrower
in before one that is owed the room, who could take it back whatever the priority; it only
fills the room better. Who is to be admitted whatever else (because it has waited too long to be
overtaken again) is decided before, not here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from scheduler.cycle.scratch import Scratch
from scheduler.fleet import PoolState, WorkloadState
from scheduler.placement.ask import Ask
from scheduler.placement.pool_supply import Placement, PoolSupply, Way
from scheduler.queueing.knapsack import Taken, choose

_WAYS: tuple[Way, ...] = ("scored", "aligned", "tight")
_Share = tuple[str, str]  # (tenant, accelerator class)


@dataclass(frozen=True, slots=True)
class _Token:
    mark: int  # of the entitlements
    ask: Ask
    have: PoolSupply
    placed: Placement
    share: _Share
    rank: int


def window(scratch: Scratch, size: int) -> list[WorkloadState]:
    """The first `size` of the queue between which room has to be shared out, by priority and age.

    Left out are those that are not a matter of choice: without devices, with a pool that
    may still grow, whose turn has not come, whose tenant's order is strict, that their
    quota refuses, or that surely find no room. Twice the size is looked at, at most.
    """
    fleet, found = scratch.fleet, []
    looked = 0
    for priority in sorted(fleet.backlog.ages, reverse=True):
        for _, key in fleet.backlog.ages[priority]:
            looked += 1
            workload = fleet.pending[key]
            if _is_choice(scratch, workload):
                found.append(workload)
            if len(found) == size or looked == 2 * size:
                return found
    return found


def _is_choice(scratch: Scratch, workload: WorkloadState) -> bool:
    tenant, shape = scratch.fleet.tenants.get(workload.tenant), scratch.fleet.shapes[workload.key]
    if tenant is None or tenant.hold or tenant.strict or not scratch.turn(workload):
        return False
    ask = scratch.supply.ask(shape)
    pools, _ = scratch.pools_for(scratch.rights(tenant), shape)
    if ask is None or not ask.devices or any(len(scratch.slots_of(pool)) for pool in pools):
        return False
    return any(
        scratch.entitlements.refuse(tenant.name, pool.accelerator, ask.devices) is None
        and scratch.may_have_room(pool, shape, ask)
        for pool in pools
    )


def best_head(
    scratch: Scratch, waiting: Sequence[WorkloadState], budget: int, preferred: Sequence[int] = ()
) -> list[tuple[WorkloadState, PoolState, Way]]:
    """(workload, pool to admit it to, how it is placed there), in an order in which all fit on ready nodes.

    The scratch is left as it was.

    `waiting`: in the plan's order; they ask for devices, and their turn has come.
    `budget`: how many placements may be tried. `preferred`: indices of `waiting` in the order
    whose greedy set is returned unless another is worth more; the given order when empty.
    """
    trial = HeadTrial(scratch, waiting)
    given = range(len(waiting))
    hardest = sorted(given, key=trial.hardness)
    in_turn = sorted(hardest, key=lambda one: -waiting[one].priority)
    largest = sorted(given, key=lambda one: (-waiting[one].priority, -trial.asks[one].devices, one))
    found = choose(
        [len(pools) for pools in trial.pools],
        trial,
        (preferred or given, given, in_turn, hardest, largest),
        budget,
        trial.rank,
        len(_WAYS),
    )
    return [(waiting[candidate], *trial.options[candidate][option]) for candidate, option in found.picks]


class HeadTrial:
    """Takes and gives back room and quota of a scratch; see `scheduler.queueing.knapsack.Trial`."""

    def __init__(self, scratch: Scratch, waiting: Sequence[WorkloadState]) -> None:
        self._scratch, self._waiting = scratch, waiting
        self.asks: list[Ask] = []
        self.pools: list[list[PoolState]] = []
        self.options: list[list[tuple[PoolState, Way]]] = []
        for workload in waiting:
            shape = scratch.fleet.shapes[workload.key]
            ask = scratch.supply.ask(shape)
            tenant = scratch.fleet.tenants[workload.tenant]
            if ask is None:
                raise ValueError(f"{workload.key} asks for a resource that no node has")
            self.asks.append(ask)
            # What is the tenant's own first, as when it is decided one by one.
            within = scratch.entitlements.within_nominal
            pools = sorted(
                scratch.pools_for(scratch.rights(tenant), shape)[0],
                key=lambda pool: not within(tenant.name, pool.accelerator, ask.devices),
            )
            self.pools.append(pools)
            self.options.append([(pool, way) for way in _WAYS for pool in pools])
        ranks = {rank: at for at, rank in enumerate(sorted({-one.priority for one in waiting}))}
        self.rank = [ranks[-one.priority] for one in waiting]  # 0: the highest priority
        self._unit = 1 + sum(ask.devices for ask in self.asks)
        # A number of two places for each priority: devices within nominal quotas before devices in all.
        self._scale = [self._unit ** (len(ranks) - 1 - rank) for rank in range(len(ranks))]
        self._owing = self._unit ** len(ranks)
        self._taken: dict[_Share, list[int]] = defaultdict(lambda: [0] * len(ranks))  # devices on trial, by rank
        self._free = {pool.name: self._devices_free(pool) for pools in self.pools for pool in pools}

    def hardness(self, candidate: int) -> tuple[bool, int, int, int]:
        """Sorts those first that find a place least easily: one domain, large pods, many devices."""
        ask = self.asks[candidate]
        most = max(self._scratch.fleet.devices_of(pod.pod_set.requests) for pod in ask.pods)
        return not ask.shape.required_topology, -most, -ask.devices, candidate

    def take(self, candidate: int, option: int) -> Taken[_Token] | None:
        scratch, workload = self._scratch, self._waiting[candidate]
        ask, (pool, way) = self.asks[candidate], self.options[candidate][option]
        accounts, tenant = scratch.entitlements, workload.tenant
        if ask.devices > self._free[pool.name] or accounts.refuse(tenant, pool.accelerator, ask.devices) is not None:
            return None
        have = scratch.supply.pools[pool.name]
        placed = have.place(ask, have.ready, way)
        if placed is None:
            return None
        share, rank = (tenant, pool.accelerator), self.rank[candidate]
        owed = self._owed(share)  # before it is charged
        token = _Token(accounts.mark(), ask, have, placed, share, rank)
        scratch.charge(tenant, ask, pool)
        self._free[pool.name] -= ask.devices
        before = self._worth(share, owed)
        self._taken[share][rank] += ask.devices
        return Taken(self._worth(share, owed) - before, token)

    def give_back(self, candidate: int, token: _Token) -> None:
        token.have.give_back(token.ask, token.placed)
        self._free[token.have.pool.name] += token.ask.devices
        self._taken[token.share][token.rank] -= token.ask.devices
        self._scratch.entitlements.rollback(token.mark)

    def bound(self, candidates: Sequence[int]) -> int:
        wanted: dict[tuple[int, str], list[int]] = defaultdict(list)
        pools: set[str] = set()
        for one in candidates:
            wanted[self.rank[one], self._waiting[one].tenant].append(self.asks[one].devices)
            pools.update(pool.name for pool in self.pools[one])
        free = sum(self._free[pool] for pool in pools)
        within, most = [0] * len(self._scale), [0] * len(self._scale)
        for (rank, name), devices in wanted.items():
            owed, allowed = self._left(name, rank)
            reach = _most_sum(devices, allowed)
            within[rank] += min(reach, owed)
            most[rank] += reach
        return sum(
            scale * (min(owed, free) * self._owing + min(all_, free))
            for scale, owed, all_ in zip(self._scale, within, most, strict=True)
        )

    def _worth(self, share: _Share, owed: int) -> int:
        """Of what the tenant has on trial of the class; `owed`: what was left of its nominal quota before."""
        worth = 0
        for scale, devices in zip(self._scale, self._taken[share], strict=True):
            within = min(devices, owed)
            owed -= within
            worth += scale * (within * self._owing + devices)
        return worth

    def _owed(self, share: _Share) -> int:
        """What is left of the nominal quota, all that is on trial aside."""
        name, accelerator = share
        nominal = self._scratch.fleet.tenants[name].quota[accelerator].nominal
        held = self._scratch.entitlements.used(name, accelerator) - sum(self._taken[share])
        return max(nominal - held, 0)

    def _left(self, name: str, rank: int) -> tuple[int, int]:
        """Devices that the tenant may still use at this priority: (within its nominal quotas, in all)."""
        owed = allowed = 0
        for accelerator in self._scratch.fleet.tenants[name].quota:
            share = (name, accelerator)
            owed += max(self._owed(share) - sum(self._taken[share][: rank + 1]), 0)
            allowed += self._scratch.entitlements.available(name, accelerator)
        return owed, allowed

    def _devices_free(self, pool: PoolState) -> int:
        # As the fleet has it: what this plan has given away before is not taken off, which errs upwards.
        fleet = self._scratch.fleet
        _, rows = fleet.ready_nodes(pool.name)
        return int(fleet.table.free(rows)[:, fleet.table.columns[pool.resource]].sum())


def _most_sum(parts: Sequence[int], limit: int) -> int:
    """The largest sum of some of the parts that is not above the limit."""
    if sum(parts) <= limit:
        return sum(parts)
    sums = 1  # bit n: there are parts whose sum is n
    for part in parts:
        sums |= sums << part
    return (sums & ((1 << (limit + 1)) - 1)).bit_length() - 1
