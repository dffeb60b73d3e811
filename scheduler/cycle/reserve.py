"""Reservations for those that have waited longest, so that no small arrival keeps a large gang waiting for ever.

The oldest of the highest priority go first here, whatever their tenant's share: each
workload is the oldest one day.
"""

from __future__ import annotations

from scheduler.cycle.admit import Admitting
from scheduler.cycle.scratch import Scratch
from scheduler.fleet import WorkloadState
from scheduler.fleet.rights import Rights
from scheduler.fleet.shape import Shape
from scheduler.reserving import Blocked, Book

DEPTH = 8  # workloads that hold a reservation at one time
_LOOKS = 20_000  # entries passed over in one plan, at most


class Reserving:
    """The reservations of one plan."""

    def __init__(self, scratch: Scratch, admitting: Admitting, book: Book) -> None:
        self._scratch, self._admitting, self._book = scratch, admitting, book
        self._refused: set[tuple[str, Shape]] = set()  # by tenant: its quota forbids
        self._never: set[tuple[Rights, Shape]] = set()  # would not fit with all gone

    def run(self) -> None:
        """Give reservations until there are `DEPTH`."""
        backlog, looks = self._scratch.fleet.backlog, 0
        for priority in sorted(backlog.ages, reverse=True):
            for created_at, key in backlog.ages[priority]:
                looks += 1
                if looks > _LOOKS or not self._book.has_place((-priority, created_at, key)):
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
            pool.name
            for pool in pools
            if scratch.entitlements.refuse(tenant.name, pool.accelerator, ask.devices) is None
        ]
        if not allowed:
            self._refused.add((tenant.name, shape))
            return
        blocked = Blocked(workload.key, workload.uid, priority, ask, workload.max_runtime, workload.created_at)
        if self._book.reserve(blocked, allowed) is None:
            self._never.add((rights, shape))
