"""What this plan has just let in gives way before anything that runs does.

Borrowers and lower priorities are let into room that a blocked workload cannot use by itself,
but could together with what it may evict. Left standing, the next plan would evict them
for it: they would have started for nothing. So they are taken back, as if they had not been
looked at yet, and looked at again once the claim has been settled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from scheduler.cycle.admit import Admitting, Given
from scheduler.cycle.scratch import Scratch
from scheduler.fleet import WorkloadState
from scheduler.reserving import Book

_MOST = 256  # admissions that are taken back for one claim, at most: the last ones


@dataclass(frozen=True, slots=True)
class Lifted:
    """Admissions whose room and quota are free on trial, in the order in which they were made."""

    given: tuple[Given, ...]


class Retraction:
    """Takes admissions of one plan back."""

    def __init__(self, scratch: Scratch, admitting: Admitting, book: Book) -> None:
        self._scratch, self._admitting, self._book = scratch, admitting, book

    def lift(self, claimant: WorkloadState, devices: int, pools: Sequence[str]) -> Lifted | None:
        """Free, on trial, what the claimant might evict once it runs; None when this plan has let in no such."""
        found = []
        for one in reversed(self._admitting.given.values()):
            if one.have.pool.name in pools and self._gives_way(one, claimant, devices):
                found.append(one)
                if len(found) == _MOST:
                    break
        if not found:
            return None
        for one in found:
            one.have.give_back(one.ask, one.placed)
            self._charge(one, -one.ask.devices)
        return Lifted(tuple(reversed(found)))

    def _gives_way(self, one: Given, claimant: WorkloadState, devices: int) -> bool:
        fleet, books, other = self._scratch.fleet, self._scratch.entitlements, one.workload
        lower = fleet.priority_of(other) < fleet.priority_of(claimant)
        if not other.preemptible or other.tenant == claimant.tenant:
            return other.preemptible and lower
        accelerator = one.have.pool.accelerator
        if books.excess(other.tenant, accelerator) <= 0:
            return False
        return lower or (devices > 0 and books.entitled(claimant.tenant, accelerator, devices))

    def restore(self, lifted: Lifted) -> None:
        """Nothing was found: all stands as it stood."""
        for one in lifted.given:
            one.have.take_again(one.ask, one.placed)
            self._charge(one, one.ask.devices)

    def settle(self, lifted: Lifted, victims: Sequence[str], first: WorkloadState | None = None) -> None:
        """The claimant has its room: those that were taken back are let in again where they still fit.

        `first` is let in before them: a claimant that needs no victims. Of the others none comes again that a
        victim, which waits again, would evict in its turn: of its tenant and of lower priority.
        """
        fleet, least = self._scratch.fleet, dict[str, int]()
        for key in victims:
            victim = fleet.workloads[key]
            least[victim.tenant] = max(least.get(victim.tenant, fleet.priority_of(victim)), fleet.priority_of(victim))
        for one in lifted.given:
            self._admitting.forget(one.workload.key)
            self._book.forget_started(one.workload.key)
        pools = {one.have.pool.name: one.have.pool for one in lifted.given}
        if first is not None:
            any(self._admitting.admit_to(first, pools[name]) for name in sorted(pools))
        for one in lifted.given:
            priority = fleet.priority_of(one.workload)
            if priority >= least.get(one.workload.tenant, priority):
                self._admitting.admit_to(one.workload, one.have.pool)

    def _charge(self, one: Given, devices: int) -> None:
        self._scratch.entitlements.charge(one.workload.tenant, one.have.pool.accelerator, devices)
