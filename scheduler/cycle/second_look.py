"""Whether another choice among the head of the queue would fill the room better than one by one.

Only where it can matter and costs little: a small fleet where somebody found no room. Who
has waited longer than `PATIENCE` is not overtaken, so that nobody is for long.
"""

from __future__ import annotations

from scheduler.cycle.head import best_head, window
from scheduler.cycle.walk import Pick, Walk
from scheduler.fleet import WorkloadState

PATIENCE = 1800.0  # seconds
_ROWS = 512  # nodes that are ready, at most
_WINDOW = 24  # workloads
_TRIES, _MOST_TRIES = 1024, 4096  # placements; more than the first where nodes are few and each costs little
_NODE_TRIES = 65536
_EACH = 256  # placements for each workload to choose from, at most


def is_worth_another_look(done: Walk) -> bool:
    """Whether somebody waits though nothing was bought, in a fleet that is small enough."""
    fleet, pools = done.scratch.fleet, done.scratch.supply.pools.values()
    rows = sum(have.ready for have in pools)
    decided = len(done.admitting.admissions) + len(done.admitting.coming)
    waits = decided < len(fleet.pending)
    return 0 < rows <= _ROWS and (waits or _borrows_for_nothing(done)) and not done.scratch.machine_requests


def _borrows_for_nothing(done: Walk) -> bool:
    """Whether a tenant that was let in borrows devices of one class and has some of its own left of another."""
    books, fleet = done.scratch.entitlements, done.scratch.fleet
    who = {fleet.workloads[one.workload].tenant for one in done.admitting.admissions if one.accelerator}
    for name in sorted(who):
        left = [
            quota.nominal - books.used(name, accelerator) for accelerator, quota in fleet.tenants[name].quota.items()
        ]
        if min(left) < 0 < max(left):
            return True
    return False


def better_start(done: Walk, again: Walk) -> tuple[Pick, ...]:
    """What to admit first in the second walk; nothing when the first did as well. Neither is changed.

    `done`: a walk that has been run; `again`: the same, not run yet.
    """
    fleet = again.scratch.fleet
    admitted = [fleet.workloads[one.workload] for one in done.admitting.admissions if one.accelerator]
    if len(admitted) >= _WINDOW:
        return ()
    pool_of = {one.workload: one.pool for one in done.admitting.admissions}
    settled = {workload.key for workload in admitted if again.scratch.now - workload.created_at > PATIENCE}
    settled |= {one.workload for one in again.book.reservations()}
    choice = [workload for workload in window(again.scratch, _WINDOW) if workload.key not in settled]
    open_ = [workload for workload in admitted if workload.key not in settled]
    fixed: list[Pick] = [
        (workload, fleet.pools[pool_of[workload.key]], "scored") for workload in admitted if workload.key in settled
    ]
    rank = {workload.key: at for at, workload in enumerate(open_)}
    waiting = list({one.key: one for one in [*choice, *open_]}.values())
    preferred = sorted(range(len(waiting)), key=lambda one: (rank.get(waiting[one].key, len(rank)), one))
    rows = sum(have.ready for have in again.scratch.supply.pools.values())
    tries = min(max(_TRIES, min(_MOST_TRIES, _NODE_TRIES // max(rows, 1))), _EACH * len(waiting))
    tried = _with_fixed(again, fixed, waiting, preferred, tries)
    if {(workload.key, pool.name) for workload, pool, _ in tried} == {(one.key, pool_of[one.key]) for one in open_}:
        return ()
    return (*fixed, *tried)


def _with_fixed(
    again: Walk, fixed: list[Pick], waiting: list[WorkloadState], preferred: list[int], tries: int
) -> list[Pick]:
    """The best head once `fixed` have been placed; the walk is left as it was."""
    scratch = again.scratch
    mark, taken = scratch.entitlements.mark(), []
    for workload, pool, _ in fixed:
        ask, have = scratch.supply.ask(scratch.fleet.shapes[workload.key]), scratch.supply.pools[pool.name]
        placed = have.place(ask, have.ready) if ask is not None else None
        if ask is not None and placed is not None:
            scratch.charge(workload.tenant, ask, pool)
            taken.append((have, ask, placed))
    found = best_head(scratch, waiting, tries, preferred)
    for have, ask, placed in reversed(taken):
        have.give_back(ask, placed)
    scratch.entitlements.rollback(mark)
    return found
