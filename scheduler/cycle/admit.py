"""Workload by workload in their order: admitted, waiting for machines, or closed for this plan."""

from __future__ import annotations

from collections import Counter
from collections.abc import KeysView, Set
from dataclasses import dataclass

from scheduler.cycle.scratch import Scratch
from scheduler.decision import Admission, Placed
from scheduler.explain import reasons
from scheduler.explain.reasons import Reason
from scheduler.fleet import PoolState, TenantState, WorkloadState
from scheduler.fleet.rights import Rights
from scheduler.fleet.shape import Shape
from scheduler.placement.ask import Ask
from scheduler.placement.pool_supply import Placement, PoolSupply, Way
from scheduler.preemption.elastic import largest
from scheduler.reserving import Blocked, Book

_BACKFILL = 100  # workloads of one shape that are tried in a plan after the first that found no room
# Seconds after which who borrows is no longer passed by all that others are owed, so that it runs one day.
PATIENCE_BORROWED = 24 * 3600.0
_NOTHING: Set[Shape] = frozenset()


@dataclass(frozen=True, slots=True)
class Given:
    """Room that this plan has given away."""

    workload: WorkloadState
    ask: Ask
    have: PoolSupply
    placed: Placement


class Admitting:
    """The admissions of one plan."""

    def __init__(self, scratch: Scratch, book: Book) -> None:
        self.scratch, self._book = scratch, book
        self._admitted: set[str] = set()
        self._promised: dict[str, PoolState] = {}  # counted already, see `count_promised`
        self.given: dict[str, Given] = {}  # of the admissions, in their order
        self._made: dict[str, Admission] = {}
        self.coming: dict[str, Reason] = {}  # workloads that hold room and quota until machines have come
        self._closed_lines: set[tuple[str, Shape]] = set()  # by tenant: its quota is in the way
        self._live: dict[Rights, tuple[set[Shape], set[Shape]]] = {}  # (live, all that were looked at)
        self._alive = self._looked = 0  # pairs of rights and shape
        self._passed: Counter[tuple[Rights, Shape]] = Counter()

    # What is still open; see `scheduler.queueing.order.Openings`

    @property
    def any_left(self) -> bool:
        # Pairs that were not looked at yet may be live.
        return self._alive > 0 or self._looked < len(self.scratch.fleet.backlog.pairs)

    def live(self, name: str, shapes: KeysView[Shape]) -> Set[Shape]:
        tenant = self.scratch.fleet.tenants.get(name)
        if tenant is None or tenant.hold:
            return _NOTHING
        rights = self.scratch.fleet.rights.of[name]
        known = self._live.get(rights)
        if known is None:
            known = self._live[rights] = (set(), set())
        live, seen = known
        if not shapes <= seen:
            for shape in shapes - seen:
                seen.add(shape)
                self._looked += 1
                if self._may_start(rights, shape):
                    live.add(shape)
                    self._alive += 1
        return live

    def closed(self, tenant: str, shape: Shape) -> bool:
        return (tenant, shape) in self._closed_lines

    def turn(self, workload: WorkloadState) -> bool:
        return self.scratch.turn(workload)

    def _may_start(self, rights: Rights, shape: Shape) -> bool:
        pools, _ = self.scratch.pools_for(rights, shape)
        ask = self.scratch.supply.ask(shape)
        return ask is not None and any(self._may_have_room(pool, shape, ask) for pool in pools)

    def _may_have_room(self, pool: PoolState, shape: Shape, ask: Ask) -> bool:
        # Room that is held for others is not free, but is there for who ends in time or comes before them.
        return self._book.holds(pool.name) or self.scratch.may_have_room(pool, shape, ask)

    def _close(self, rights: Rights, shape: Shape) -> None:
        live, _ = self._live[rights]
        if shape in live:
            live.discard(shape)
            self._alive -= 1

    def is_decided(self, key: str) -> bool:
        """Whether it has been admitted, or holds room on machines that are coming."""
        return key in self._admitted or key in self.coming

    # Decisions

    def count_promised(self) -> None:
        """Count against its tenant's quota what others have been evicted for, until it starts there."""
        fleet = self.scratch.fleet
        for reservation in self._book.reservations():
            workload = fleet.pending.get(reservation.workload)
            ask = self.scratch.supply.ask(fleet.shapes[workload.key]) if workload is not None else None
            if workload is not None and ask is not None and reservation.basis.kind == "evicts":
                self._promise(workload, ask, fleet.pools[reservation.pool])

    def start_reserved(self, priority: int | None) -> None:
        """Admit those whose reserved room is there by now.

        `priority`: before the others have had their turn, only who is of this and above and does
        not borrow, and those for whom others have been evicted.
        """
        for reservation in self._book.reservations():
            key = reservation.workload
            workload = self.scratch.fleet.pending.get(key)
            early = (
                priority is None
                or reservation.basis.kind == "evicts"
                or (reservation.priority >= priority and not reservation.borrows)
            )
            if workload is None or self.is_decided(key) or not early:
                continue
            tenant, shape = self.scratch.fleet.tenants[workload.tenant], self.scratch.fleet.shapes[key]
            ask, pool = self.scratch.supply.ask(shape), self.scratch.fleet.pools[reservation.pool]
            if ask is None:
                continue
            promised = self._take_back_promise(workload, ask)
            if (self._refused(tenant, pool, ask) or not self._start(workload, ask, [pool])) and promised is not None:
                self._promise(workload, ask, promised)

    def _promise(self, workload: WorkloadState, ask: Ask, pool: PoolState) -> None:
        self._promised[workload.key] = pool
        self.scratch.charge(workload.tenant, ask, pool)

    def _take_back_promise(self, workload: WorkloadState, ask: Ask) -> PoolState | None:
        pool = self._promised.pop(workload.key, None)
        if pool is not None:
            self.scratch.entitlements.charge(workload.tenant, pool.accelerator, -ask.devices)
        return pool

    def admit_to(self, workload: WorkloadState, pool: PoolState, way: Way = "scored") -> bool:
        """Admit it to this pool if it fits there and may; whether it was."""
        if self.is_decided(workload.key) or workload.key in self._promised:
            return False
        fleet = self.scratch.fleet
        tenant, ask = fleet.tenants[workload.tenant], self.scratch.supply.ask(fleet.shapes[workload.key])
        return ask is not None and not self._refused(tenant, pool, ask) and self._start(workload, ask, [pool], way)

    def decide(self, workload: WorkloadState) -> None:
        """Admit it, let it wait for machines, or close its shape."""
        scratch = self.scratch
        if self.is_decided(workload.key) or workload.key in self._promised:
            return
        tenant, shape = scratch.fleet.tenants[workload.tenant], scratch.fleet.shapes[workload.key]
        rights = scratch.rights(tenant)
        pools, _ = scratch.pools_for(rights, shape)
        ask = scratch.supply.ask(shape)
        if ask is None or not pools:
            self._close(rights, shape)
            return
        allowed = [pool for pool in pools if not self._refused(tenant, pool, ask)]
        if len(allowed) > 1 and ask.devices:
            # What is the tenant's own is used before anything is borrowed.
            within = scratch.entitlements.within_nominal
            allowed.sort(key=lambda pool: not within(tenant.name, pool.accelerator, ask.devices))
        open_ = [pool for pool in allowed if not scratch.is_full(pool, shape) or self._book.holds(pool.name)]
        if self._start(workload, ask, open_) or self._wait_for_coming(workload, ask, open_):
            return
        best = scratch.cheapest_growth([pool for pool in open_ if not scratch.is_full(pool, shape)], shape, ask)
        if best is not None:
            have = scratch.buy(best.pool, best.slots, f"for {workload.key}", workload.key)
            placed = have.place(ask, len(have))
            if placed is None:
                raise AssertionError(f"{workload.key} does not fit where it fitted a moment ago")
            self._hold(workload, ask, have, placed)
        elif self._start_part(workload, ask, pools):
            return
        elif len(allowed) < len(pools):
            self._closed_lines.add((tenant.name, shape))
        elif scratch.fleet.backlog.bounded[shape] > self._passed[rights, shape] < _BACKFILL and any(
            self._book.holds(pool.name) for pool in pools
        ):
            self._passed[rights, shape] += 1  # the next of this shape may end sooner
        else:
            self._close(rights, shape)

    def _refused(self, tenant: TenantState, pool: PoolState, ask: Ask) -> bool:
        return self.scratch.entitlements.refuse(tenant.name, pool.accelerator, ask.devices) is not None

    def _start(self, workload: WorkloadState, ask: Ask, pools: list[PoolState], way: Way = "scored") -> bool:
        for pool in pools:
            have = self.scratch.supply.pools[pool.name]
            placed = self._book.place(self.blocked_of(workload, ask, pool), pool.name, have.ready, way)
            if placed is not None:
                self._admit(workload, ask, have, placed)
                return True
        return False

    def _start_part(self, workload: WorkloadState, ask: Ask, pools: list[PoolState]) -> bool:
        """Start an elastic gang with the most pods that quota and free room allow."""
        if not any(pod.pod_set.min_count for pod in ask.pods):
            return False
        for pool in pools:
            have = self.scratch.supply.pools[pool.name]
            most = self.scratch.entitlements.available(workload.tenant, pool.accelerator) if ask.devices else None
            found = largest(ask, lambda part: have.place(part, have.ready), have.give_back, have.device, most)  # noqa: B023
            if found is not None:
                self._admit(workload, found[0], have, found[1])
                return True
        return False

    def _wait_for_coming(self, workload: WorkloadState, ask: Ask, pools: list[PoolState]) -> bool:
        for pool in pools:
            have = self.scratch.supply.pools[pool.name]
            more = len(have) > have.ready
            placed = self._book.place(self.blocked_of(workload, ask, pool), pool.name, len(have)) if more else None
            if placed is not None:
                self._hold(workload, ask, have, placed)
                return True
        return False

    def blocked_of(self, workload: WorkloadState, ask: Ask, pool: PoolState) -> Blocked:
        """The workload as the book of reservations sees it, if it were to run in this pool."""
        borrows = not self.scratch.entitlements.entitled(workload.tenant, pool.accelerator, ask.devices)
        borrows = borrows and self.scratch.now < workload.created_at + PATIENCE_BORROWED
        return Blocked(
            workload.key,
            workload.uid,
            self.scratch.fleet.priority_of(workload),
            ask,
            workload.max_runtime,
            workload.created_at,
            borrows and ask.devices > 0,
        )

    def _admit(self, workload: WorkloadState, ask: Ask, have: PoolSupply, placed: Placement) -> None:
        self.scratch.charge(workload.tenant, ask, have.pool)
        self._admitted.add(workload.key)
        placements = sorted(
            Placed(workload.pod_sets[index].name, have.names[row], count, placed.devices.get((index, row), ()))
            for index, row, count in placed
        )
        accelerator = have.pool.accelerator if ask.devices else ""
        self._made[workload.key] = Admission(workload.key, accelerator, have.pool.name, tuple(placements))
        self.given[workload.key] = Given(workload, ask, have, placed)

    @property
    def admissions(self) -> list[Admission]:
        """In the order in which they were made."""
        return list(self._made.values())

    def lets_borrow(self) -> bool:
        """Whether anybody who was let in is beyond its tenant's nominal quota now."""
        shares = {(one.workload.tenant, one.have.pool.accelerator) for one in self.given.values() if one.ask.devices}
        return any(self.scratch.entitlements.excess(*share) > 0 for share in shares)

    def forget(self, key: str) -> None:
        """Take an admission back; its room and quota are given back already."""
        self._admitted.discard(key)
        del self._made[key], self.given[key]

    def _hold(self, workload: WorkloadState, ask: Ask, have: PoolSupply, placed: Placement) -> None:
        # Room and quota are held from here on, though it starts only when the machines have come.
        self.scratch.charge(workload.tenant, ask, have.pool)
        coming = {row for _, row, _ in placed if row >= have.ready}
        self.coming[workload.key] = reasons.machines_coming(have.pool.name, len(coming))
