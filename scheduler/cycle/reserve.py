"""Reservations for those that have waited longest, so that no small arrival keeps a large gang waiting for ever.

The oldest of the highest priority go first here, whatever their tenant's share: each
workload is the oldest one day.
"""

from __future__ import annotations

from math import inf

from scheduler.cycle.admit import PATIENCE_BORROWED, Admitting
from scheduler.cycle.scratch import Scratch
from scheduler.fleet import WorkloadState
from scheduler.fleet.rights import Rights
from scheduler.fleet.shape import Shape
from scheduler.reserving import Book

DEPTH = 8  # workloads that hold a reservation at one time
_LOOKS = 4000  # entries passed over in one plan, at most
_SEARCHES = 16  # for a place, in one plan, at most
# Rows are drained, and stand empty meanwhile, only for who has waited this long (seconds): within
# its tenant's nominal quota; beyond it, `PATIENCE_BORROWED`.
_PATIENCE_OWED = 600.0


class Reserving:
    """The reservations of one plan."""

    def __init__(self, scratch: Scratch, admitting: Admitting, book: Book) -> None:
        self._scratch, self._admitting, self._book = scratch, admitting, book
        self._refused: set[tuple[str, Shape]] = set()  # by tenant: its quota forbids
        self._searches = 0
        self.next_wake = inf  # when somebody will have waited long enough, seconds since the epoch
        self._never: set[tuple[Rights, Shape]] = set()  # would not fit with all gone

    def run(self) -> None:
        """Give reservations until there are `DEPTH`."""
        scratch, backlog, looks = self._scratch, self._scratch.fleet.backlog, 0
        tells = any(self._book.may_tell(pool) for pool in scratch.supply.pools)
        for priority in sorted(backlog.ages, reverse=True):
            for created_at, key in backlog.ages[priority]:
                looks += 1
                if looks > _LOOKS or self._searches == _SEARCHES:
                    return
                if not tells and scratch.now < created_at + _PATIENCE_OWED:
                    self.next_wake = min(self.next_wake, created_at + _PATIENCE_OWED)
                    break  # those that follow have waited less, and no start is known without draining
                if not self._book.has_place((-priority, created_at, key)):
                    return
                if not self._admitting.is_decided(key) and self._book.of(key) is None:
                    self._reserve(self._scratch.fleet.workloads[key], priority)

    def _reserve(self, workload: WorkloadState, priority: int) -> None:
        scratch = self._scratch
        tenant = scratch.fleet.tenants.get(workload.tenant)
        if tenant is None or tenant.hold or not self._admitting.turn(workload):
            return
        shape = scratch.fleet.shapes[workload.key]
        rights = scratch.rights(tenant)
        if (rights, shape) in self._never or (tenant.name, shape) in self._refused:
            return
        ask = scratch.supply.ask(shape)
        pools = scratch.pools_for(rights, shape)[0] if ask is not None else []
        if ask is None or not pools:
            self._never.add((rights, shape))
            return
        allowed = [
            pool for pool in pools if scratch.entitlements.refuse(tenant.name, pool.accelerator, ask.devices) is None
        ]
        if not allowed:
            self._refused.add((tenant.name, shape))
            return
        blocked = self._admitting.blocked_of(workload, ask, allowed[0])
        due = workload.created_at + (PATIENCE_BORROWED if blocked.borrows else _PATIENCE_OWED)
        if scratch.now < due:
            self.next_wake = min(self.next_wake, due)
            if not any(self._book.may_tell(pool.name) for pool in allowed):
                self._refused.add((tenant.name, shape))
                return
        self._searches += 1
        if self._book.reserve(blocked, [pool.name for pool in allowed], scratch.now >= due) is None:
            # Of this shape the tenant's younger ones have waited less, and fit no better.
            self._refused.add((tenant.name, shape))
