"""One walk through the queue: everything decided that needs no eviction."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from scheduler.cycle.admit import Admitting
from scheduler.cycle.making_room import MakingRoom
from scheduler.cycle.replacing import replace_lost
from scheduler.cycle.scratch import Scratch
from scheduler.decision import Memory
from scheduler.fleet import Fleet, PoolState, WorkloadState
from scheduler.placement.pool_supply import Way
from scheduler.queueing.order import Order, Turns

Ordering = Callable[[Fleet, Scratch], Order]
Pick = tuple[WorkloadState, PoolState, Way]


class Walk:
    """Made anew for each walk; what it has given away is in its scratch."""

    def __init__(self, fleet: Fleet, memory: Memory, now: float, ordering: Ordering) -> None:
        self.scratch = Scratch(fleet, now)
        self.making_room = MakingRoom(self.scratch, memory.reservations)
        self.book = self.making_room.book
        self.moves = replace_lost(self.scratch)
        self.order = ordering(fleet, self.scratch)
        self.strict = {tenant.name for tenant in fleet.tenants.values() if tenant.strict}
        self.admitting = Admitting(self.scratch, self.book)

    def run(self, first: Sequence[Pick] = ()) -> None:
        """`first`: workloads that go before all others but the reserved, and the pool for each."""
        admitting, fleet = self.admitting, self.scratch.fleet
        admitting.count_promised()
        admitting.start_reserved(max(fleet.backlog.lines, default=None))
        for workload, pool, way in first:
            admitting.admit_to(workload, pool, way)
        for workload in Turns(fleet, self.order, admitting, self.strict):
            admitting.decide(workload)
        admitting.start_reserved(None)
