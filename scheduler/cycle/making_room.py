"""What reservations and evictions go by: what runs in each pool, as one plan sees it."""

from __future__ import annotations

from scheduler.cycle.scratch import Scratch
from scheduler.placement.ask import Ask
from scheduler.preemption import Budget, Candidates, Rights
from scheduler.reserving import Book, Reservations, Timeline
from scheduler.running.room import PoolRoom

_VICTIMS = 64  # evictions in one plan, at most


class MakingRoom:
    """Made before anything is placed, from the supplies as they are then."""

    def __init__(self, scratch: Scratch, kept: Reservations) -> None:
        self._scratch = scratch
        fleet = scratch.fleet
        self._columns = fleet.running.columns().whole()  # no gang is shrunk in place
        self._rooms = {
            name: PoolRoom.of(supply, fleet.table.columns, self._columns)
            for name, supply in scratch.supply.pools.items()
        }
        timelines = {name: Timeline(room, self._columns, scratch.now) for name, room in self._rooms.items()}
        self.book = Book(kept, timelines, scratch.now, self._asks)

    def candidates(self) -> Candidates:
        """For searches of victims; the book's holds are off the supplies."""
        scratch = self._scratch
        rights = Rights(scratch.entitlements, scratch.fleet.tenants)
        return Candidates(self._columns, self._rooms, rights, scratch.now, Budget(per_cycle=_VICTIMS))

    def _asks(self, key: str, uid: str) -> Ask | None:
        fleet = self._scratch.fleet
        workload = fleet.pending.get(key)
        if workload is None or workload.uid != uid:
            return None
        tenant = fleet.tenants.get(workload.tenant)
        if tenant is None or tenant.hold or not self._scratch.turn(workload):
            return None
        return self._scratch.supply.ask(fleet.shapes[key])
