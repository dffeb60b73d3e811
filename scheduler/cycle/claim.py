"""Room made by eviction: for tenants below their nominal quota while others borrow, and for higher priorities.

Only what may have a right to it is looked at, in the order of turns, and only so many
searches are made in one plan.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, KeysView, Set
from math import inf

from scheduler.cycle.admit import Admitting
from scheduler.cycle.retraction import Retraction
from scheduler.cycle.scratch import Scratch
from scheduler.decision import Eviction
from scheduler.explain import reasons
from scheduler.fleet import TenantState, WorkloadState
from scheduler.fleet.shape import Shape
from scheduler.placement.ask import Ask
from scheduler.preemption import Candidates, Claim, Preemption, Shortfall
from scheduler.queueing.order import Order, Turns
from scheduler.reserving import Blocked, Book

_SEARCHES = 16  # in one plan, at most
GRACE = 5.0  # seconds that a workload waits before others are evicted for it: much that runs ends by itself
_NOTHING: Set[Shape] = frozenset()


class Claiming:
    """The evictions of one plan. See `scheduler.queueing.order.Openings` for what `Turns` asks."""

    def __init__(
        self, scratch: Scratch, admitting: Admitting, book: Book, candidates: Callable[[], Candidates]
    ) -> None:
        """`candidates`: makes what searches go by, asked once and only when somebody has a right."""
        self._scratch, self._admitting, self._book, self._make = scratch, admitting, book, candidates
        self._candidates: Candidates | None = None
        self._retraction = Retraction(scratch, admitting, book)
        self._searches = 0
        self._over = False  # somebody borrows, or will with what this plan lets in
        self._owed = True  # only those within their nominal quotas have their turn now
        self._passed: set[tuple[str, Shape]] = set()  # not to be looked at while that is so
        self._closed: set[tuple[str, Shape]] = set()
        self.next_wake = inf  # when somebody's grace is over, seconds since the epoch
        self.evictions: list[Eviction] = []
        self.evicting: dict[str, tuple[int, str]] = {}  # claimant → (how many go for it, the first of them)

    def run(self, order: Order, strict: Collection[str]) -> None:
        """Search for those who have a right, until enough has been searched for."""
        fleet = self._scratch.fleet
        highest = max(fleet.backlog.lines, default=None)
        if highest is None:
            return
        self._over = bool(fleet.use.over) or self._admitting.lets_borrow()
        # Who is owed something first, whatever its priority: it could take from one of higher priority that borrows
        # what that one has just been given.
        for owed in (True, False):
            self._owed, self._passed = owed, set()
            if self._over if owed else min(fleet.standing_work.priorities, default=highest) < highest:
                for workload in Turns(fleet, order, self, strict):
                    self._decide(workload)

    # Openings

    @property
    def any_left(self) -> bool:
        return self._searches < _SEARCHES

    def live(self, name: str, shapes: KeysView[Shape]) -> Set[Shape]:
        scratch = self._scratch
        tenant = scratch.fleet.tenants.get(name)
        if tenant is None or tenant.hold or not self._has_right(tenant):
            return _NOTHING
        return shapes

    def closed(self, tenant: str, shape: Shape) -> bool:
        return (tenant, shape) in self._closed or (tenant, shape) in self._passed

    def turn(self, workload: WorkloadState) -> bool:
        return self._admitting.turn(workload)

    def _has_right(self, tenant: TenantState) -> bool:
        fleet = self._scratch.fleet
        books = self._scratch.entitlements
        if self._owed:
            return any(books.entitled(tenant.name, accelerator, 1) for accelerator in tenant.quota)
        mine = fleet.standing_work.priorities_of.get(tenant.name)
        return mine is not None and min(mine) < max(fleet.backlog.lines)

    def _decide(self, workload: WorkloadState) -> None:
        scratch, key = self._scratch, workload.key
        if self._admitting.is_decided(key) or key in self.evicting:
            return
        held = self._book.of(key)
        if held is not None and held.basis.kind == "evicts":
            return  # its victims are on their way out
        shape = scratch.fleet.shapes[key]
        due = workload.created_at + GRACE
        if scratch.now < due:
            self.next_wake = min(self.next_wake, due)
            self._closed.add((workload.tenant, shape))  # the others of its line are younger
            return
        ask = scratch.supply.ask(shape)
        tenant = scratch.fleet.tenants[workload.tenant]
        pools = scratch.pools_for(scratch.rights(tenant), shape)[0] if ask is not None else []
        names = [pool.name for pool in pools]
        if self._owed and ask is not None:
            entitled = scratch.entitlements.entitled
            names = [pool.name for pool in pools if entitled(tenant.name, pool.accelerator, ask.devices)]
            if not names:
                self._passed.add((tenant.name, shape))
                return
        lifted = self._retraction.lift(workload, ask.devices, names) if ask is not None else None
        found = self._search(workload, ask, names) if ask is not None else None
        if found is None or ask is None:
            (self._passed if self._owed else self._closed).add((tenant.name, shape))
            if lifted is not None:
                self._retraction.restore(lifted)
            return
        claim, preemption = found
        if lifted is not None and not preemption.victims and not preemption.shrinks:
            self._retraction.settle(lifted, [], first=workload)  # it fits without what was let in, and starts now
            return
        self._commit(workload, ask, claim, preemption)
        if lifted is not None:
            self._retraction.settle(lifted, [one.workload for one in preemption.victims])

    def _search(self, workload: WorkloadState, ask: Ask, pools: list[str]) -> tuple[Claim, Preemption] | None:
        fleet, best = self._scratch.fleet, None
        priority = fleet.priority_of(workload)
        for name in pools:
            accelerator = fleet.pools[name].accelerator
            short = self._short(workload.tenant, accelerator, ask.devices)
            if not self._may(workload.tenant, accelerator, ask.devices, priority):
                continue
            if self._candidates is None:
                self._candidates = self._make()
            self._searches += 1
            claim = Claim(workload.key, workload.tenant, priority, ask, short)
            found = self._candidates.find(claim, [name])
            if found is not None and (best is None or found.cost < best[1].cost):
                best = claim, found
        return best

    def _may(self, tenant: str, accelerator: str, devices: int, priority: int) -> bool:
        books, fleet = self._scratch.entitlements, self._scratch.fleet
        mine = fleet.standing_work.priorities_of.get(tenant)
        if mine is not None and min(mine) < priority:
            return True
        return self._over and books.entitled(tenant, accelerator, devices)

    def _short(self, tenant: str, accelerator: str, devices: int) -> tuple[Shortfall, ...]:
        books = self._scratch.entitlements
        if books.refuse(tenant, accelerator, devices) is None:
            return ()
        missing = devices - books.available(tenant, accelerator)
        # Its own limit is met only by its own work; a cohort's by that of anybody who borrows in it.
        own = not books.entitled(tenant, accelerator, devices)
        whose = {tenant} if own else {name for name, one in self._scratch.fleet.use.over if one == accelerator}
        return (Shortfall(accelerator, missing, frozenset(whose)),)

    def _commit(self, workload: WorkloadState, ask: Ask, claim: Claim, found: Preemption) -> None:
        if self._candidates is None:
            raise AssertionError("found without a search")
        scratch = self._scratch
        self._candidates.commit(claim, found)
        accelerator = scratch.fleet.pools[found.pool].accelerator
        gone = [(one.workload, one.tenant, one.why) for one in found.victims]
        # An elastic gang that would go on smaller is evicted whole, and starts again with what there is.
        gone += [(one.workload, one.tenant, one.why) for one in found.shrinks]
        for key, tenant, why in gone:
            victim = scratch.fleet.workloads[key]
            scratch.entitlements.charge(tenant, victim.accelerator, -scratch.fleet.use.of(key))
            self.evictions.append(Eviction(key, reasons.preempted(workload.key, workload.tenant, why)))
        scratch.entitlements.charge(workload.tenant, accelerator, ask.devices)
        blocked = Blocked(workload.key, workload.uid, claim.priority, ask, workload.max_runtime, workload.created_at)
        self._book.nominate(blocked, found.pool, found.assignment, gone[0][0] if gone else "")
        self.evicting[workload.key] = len(gone), gone[0][0] if gone else ""
