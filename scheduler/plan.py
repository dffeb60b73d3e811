"""The pipeline: order → may it? → fit → place → else grow → make room → reserve → explain; then shrink what is idle."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from math import inf

from scheduler.autoscale.forecast import Outlook, observed
from scheduler.autoscale.shrink import shrink
from scheduler.cycle.claim import Claiming
from scheduler.cycle.floor import keep_floor
from scheduler.cycle.reserve import Reserving
from scheduler.cycle.scratch import Scratch
from scheduler.cycle.second_look import better_start, is_worth_another_look
from scheduler.cycle.waits import Waits
from scheduler.cycle.walk import Ordering, Walk
from scheduler.decision import Admission, Eviction, Memory, Plan
from scheduler.explain import reasons
from scheduler.fleet import Fleet, PoolState
from scheduler.queueing.fair_share import FairShare
from scheduler.queueing.order import Order


def by_share(fleet: Fleet, scratch: Scratch) -> Order:
    """The tenant with the smaller share goes first."""
    return FairShare(scratch.entitlements, fleet.use.floors, scratch.wants, scratch.charged)


def plan(fleet: Fleet, memory: Memory, now: float, ordering: Ordering = by_share) -> tuple[Plan, Memory]:
    """One cycle. The fleet is not changed; equal inputs give equal plans.

    `now`: seconds since the epoch. A workload is decided whole: admitted with a node for
    every pod, or waiting with reasons.
    """
    walk = Walk(fleet, memory, now, ordering)
    walk.run()
    if is_worth_another_look(walk):
        again = Walk(fleet, memory, now, ordering)
        first = better_start(walk, again)
        if first:
            again.run(first)
            walk = again
    scratch, admitting, book = walk.scratch, walk.admitting, walk.book
    moved = {one.workload for one in walk.moves}
    claiming = Claiming(scratch, admitting, book, walk.making_room.candidates)
    claiming.run(walk.order, walk.strict)
    reserving = Reserving(scratch, admitting, book)
    reserving.run()
    outlooks = {name: outlook_of(pool) for name, pool in fleet.pools.items()}
    arrivals = observed(memory.arrivals, outlooks, _started(fleet, admitting.admissions), now)
    needs = {name: known.need(outlooks[name]) for name, known in arrivals.items()}
    keep_floor(scratch, needs)
    reservations = book.reservations()
    kept = {hold.node for one in reservations for hold in one.holds}
    grown_at = {name: at for name, at in memory.grown_at.items() if name in fleet.pools}
    grown_at.update((request.pool, now) for request in scratch.machine_requests)
    gone = shrink(fleet, scratch.supply, memory.idle_since, now, kept, needs, grown_at)
    lapses = [known.lapses(outlooks[name]) for name, known in arrivals.items()]
    decided = Plan(
        admissions=tuple(admitting.admissions),
        evictions=tuple(_each_once([*_lost(fleet, moved), *_drained(fleet), *claiming.evictions])),
        moves=walk.moves,
        machine_requests=tuple(sorted(scratch.machine_requests, key=lambda request: (request.pool, request.name))),
        machine_removals=gone.removals,
        waiting=Waits(scratch, admitting, claiming, reservations),
        idle=gone.idle_nodes,
        next_wake=_earliest((gone.next_wake, claiming.next_wake, reserving.next_wake, *lapses), fleet, now),
    )
    return decided, Memory(gone.idle_since, reservations, arrivals, grown_at)


def outlook_of(pool: PoolState) -> Outlook:
    """What the pool keeps free for what may come."""
    return Outlook(pool.forecast_quantile, max(pool.provisioning, 1.0), max(pool.forecast_half_life, 1.0))


def _started(fleet: Fleet, admissions: Iterable[Admission]) -> dict[str, int]:
    """Devices by pool."""
    out: dict[str, int] = {}
    for one in admissions:
        if one.accelerator:
            each = {
                pod_set.name: fleet.devices_of(pod_set.requests) for pod_set in fleet.workloads[one.workload].pod_sets
            }
            devices = sum(each[placed.pod_set] * placed.count for placed in one.placements)
            out[one.pool] = out.get(one.pool, 0) + devices
    return out


def _earliest(wakes: Iterable[float | None], fleet: Fleet, now: float) -> float | None:
    waiting = (fleet.workloads[key].not_before for key in fleet.backlog.parked)
    return min((at for at in (*wakes, *waiting) if at is not None and now < at < inf), default=None)


def _lost(fleet: Fleet, moved: Collection[str]) -> list[Eviction]:
    """Workloads whose node is gone, and that are not moved in part: they must wait again, whole."""
    lost: dict[str, str] = {}
    for node in sorted(fleet.claims.homeless):
        for holder in fleet.workload_holders(node):
            lost.setdefault(holder, node)
    return [Eviction(key, reasons.node_lost(node)) for key, node in sorted(lost.items()) if key not in moved]


def _drained(fleet: Fleet) -> list[Eviction]:
    """What runs of tenants that are drained."""
    going = sorted(name for name, tenant in fleet.tenants.items() if tenant.hold and tenant.drain)
    return [
        Eviction(key, reasons.drained(name)) for name in going for key in sorted(fleet.standing_work.of.get(name, ()))
    ]


def _each_once(evictions: Iterable[Eviction]) -> list[Eviction]:
    return list({one.workload: one for one in reversed(list(evictions))}.values())[::-1]
