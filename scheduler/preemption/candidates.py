"""The running workloads in the order in which they would go, shared by all searches of a plan."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from scheduler.fleet import WorkloadState
from scheduler.placement.bestfit import Ints, Mask
from scheduler.preemption.decision import Budget, Claim, Cost, Preemption, Shrink, Victim
from scheduler.preemption.eligible import NOT, RECLAIM, WORDS, Codes, eligible
from scheduler.preemption.entitlements import Entitlements
from scheduler.preemption.search import Found, Quota, search
from scheduler.preemption.standing import Standing
from scheduler.preemption.worth import Worth
from scheduler.running import Columns
from scheduler.running.columns import BASE, EXTRA
from scheduler.running.elasticity import extra_pods, shrunk
from scheduler.running.question import Question
from scheduler.running.room import PoolRoom, adjust, by_row, summed

_RETRIES = 8  # searches without what a budget or a quota forbids


class Candidates:
    """Made once a plan, when the first search is due; the order is worked out once and kept."""

    def __init__(
        self,
        running: Columns,
        rooms: Mapping[str, PoolRoom],
        rights: Entitlements,
        now: float,
        budget: Budget | None = None,
    ) -> None:
        """`rooms`: by pool. `now`: seconds since the epoch. `rights` are asked as the plan goes on."""
        self._running, self._rooms, self._rights = running, rooms, rights
        self._budget = budget or Budget()
        self._standing = Standing(running, rights)
        self._worth = Worth(running, rights, now)
        # Room that comes free with the victims chosen so far.
        self._coming = {name: np.zeros_like(room.supply.free[: room.supply.ready]) for name, room in rooms.items()}
        self._taken: Mask = np.zeros(2 * running.live.size, dtype=np.bool_)
        self._disrupted: Counter[str] = Counter()

    @property
    def disruptions(self) -> int:
        """How many victims and shrinks have been committed."""
        return self._disrupted.total()

    def find(self, claim: Claim, pools: Sequence[str]) -> Preemption | None:
        """The cheapest set of running work in one of the pools without which the workload fits.

        None when there is none within the budget, or when it asks for shares of devices. The
        set may be empty: then it fits into what earlier victims leave over. Nothing is
        changed until `commit`. Of equal sets the first pool's is taken.
        """
        best: Preemption | None = None
        for name in pools:
            found = self._find_in(claim, name)
            if found is not None and (best is None or found.cost < best.cost):
                best = found
        return best

    def order_for(self, claim: Claim, pool: str) -> list[WorkloadState]:
        """All that may go for a claim in a pool, the cheapest first."""
        right = eligible(claim, self._rooms[pool].supply.pool.accelerator, self._running, self._standing, self._rights)
        items = [item for item in self._worth.by_cost.tolist() if right[item] and not self._taken[item]]
        known = (self._running.workloads[slot] for slot in _workloads(items))
        return [workload for workload in known if workload is not None]

    def commit(self, claim: Claim, found: Preemption) -> None:
        """Choose these victims: they are nobody else's, and the claimant's room is taken from the supply.

        The room that they hold beyond it serves later searches of this plan.
        """
        items = np.array(found.items, dtype=np.int64)
        room = self._rooms[found.pool]
        self._taken[items] = True
        for name, other in self._rooms.items():
            going = np.flatnonzero(np.isin(other.item, items))
            self._coming[name] += summed(other.row[going], other.amounts[going], self._coming[name].shape[0])
        rows, amounts = by_row(claim.ask, found.assignment)
        now = np.minimum(amounts, np.maximum(room.supply.free[rows], 0))
        adjust(room.supply, rows, -now)
        self._coming[found.pool][rows] -= amounts - now
        self._standing.evict(items)
        self._standing.start(claim.tenant, room.supply.pool.accelerator, claim.priority, claim.ask.devices)
        self._disrupted.update(victim.tenant for victim in found.victims)
        self._disrupted.update(shrink.tenant for shrink in found.shrinks)

    def _find_in(self, claim: Claim, name: str) -> Preemption | None:
        room = self._rooms[name]
        question = Question.of(claim.ask, room.supply, room.device)
        if not question.answerable:
            return None
        accelerator = room.supply.pool.accelerator
        right = eligible(claim, accelerator, self._running, self._standing, self._rights)
        right[self._taken] = 0
        spent = {tenant for tenant, left in self._budget.per_tenant.items() if self._disrupted[tenant] >= left}
        right[np.repeat(np.isin(self._running.tenant, [self._code(one) for one in sorted(spent)]), 2)] = 0
        free = room.supply.free[: room.supply.ready] + self._coming[name]
        quota = self._quota(claim, accelerator)
        for order in (self._worth.by_cost, self._worth.by_size):
            found = self._within_budget(claim, room, question, free[:, question.columns], order, right.copy(), quota)
            if found is not None:
                return self._answer(claim, name, found, right)
        return None

    def _within_budget(
        self, claim: Claim, room: PoolRoom, question: Question, free: Ints, order: Ints, right: Codes, quota: Quota
    ) -> Found | None:
        for _ in range(_RETRIES):
            found = search(room, question, free, order[right[order] > 0], quota, self._cost)
            if found is None:
                return None
            too_much = self._beyond_reclaim(claim, room.supply.pool.accelerator, found.items, right)
            if too_much is not None:
                right[[2 * too_much + BASE, 2 * too_much + EXTRA]] = NOT
                continue
            by_tenant: dict[str, list[int]] = {}
            for item in found.items.tolist():
                by_tenant.setdefault(self._running.tenants[int(self._running.tenant[item // 2])], []).append(item)
            left = {tenant: self._left(tenant) for tenant in by_tenant}
            over = [tenant for tenant, items in by_tenant.items() if len(_workloads(items)) > left[tenant]]
            if not over:
                many = len(_workloads(found.items.tolist()))
                return found if many + self.disruptions <= self._budget.per_cycle else None
            for tenant in over:
                # Of this tenant only as many as it may lose: the cheapest of those that were chosen.
                spared = np.repeat(self._running.tenant == self._code(tenant), 2)
                allowed = _workloads(by_tenant[tenant])[: left[tenant]]
                spared[[2 * slot + part for slot in allowed for part in (BASE, EXTRA)]] = False
                right[spared] = 0
        return None

    def _beyond_reclaim(self, claim: Claim, accelerator: str, items: Ints, right: Codes) -> int | None:
        """The first slot that may not be reclaimed once those before it are gone: its side is back at its quota."""
        running, devices = self._running, self._running.devices.reshape(-1)
        slots = _workloads(items[right[items] == RECLAIM].tolist())
        of_slot: Counter[int] = Counter()
        for item in items.tolist():
            of_slot[item // 2] += int(devices[item])
        losses = [(running.tenants[int(running.tenant[slot])], of_slot[slot]) for slot in slots]
        many = self._rights.reclaimable(claim.tenant, accelerator, claim.ask.devices, losses)
        return slots[many] if many < len(slots) else None

    def _left(self, tenant: str) -> int:
        least: int = self._budget.per_cycle
        return self._budget.per_tenant.get(tenant, least) - self._disrupted[tenant]

    def _quota(self, claim: Claim, accelerator: str) -> Quota:
        running, credits, over = self._running, [], []
        for short in claim.short:
            if short.accelerator != accelerator or short.devices <= 0:
                continue
            counted = np.isin(running.tenant, [self._code(one) for one in sorted(short.tenants)])
            counted &= running.accelerator == (
                running.accelerators.index(accelerator) if accelerator in running.accelerators else -1
            )
            # What has been chosen before in this plan has come off already.
            left = np.where(counted[:, None], running.devices, 0).reshape(-1)
            credits.append(np.where(self._taken, 0, left))
            over.append(short.devices)
        none = np.zeros((2 * running.live.size, 0), dtype=np.int64)
        return Quota(np.stack(credits, axis=1) if credits else none, np.array(over, dtype=np.int64))

    def _code(self, tenant: str) -> int:
        return self._running.tenants.index(tenant) if tenant in self._running.tenants else -1

    def _cost(self, items: Ints) -> Cost:
        return self._worth.of(items)

    def _answer(self, claim: Claim, pool: str, found: Found, right: Codes) -> Preemption:
        running, victims, shrinks = self._running, [], []
        whole = {item // 2 for item in found.items.tolist() if item % 2 == BASE}
        for slot in _workloads(found.items.tolist()):
            workload = running.workloads[slot]
            if workload is None:
                raise AssertionError(f"slot {slot} is a hole")
            if slot in whole:
                # Its extra pods may have been given up for somebody before.
                mine = found.items[found.items // 2 == slot]
                devices = int(running.devices.reshape(-1)[mine].sum())
                lost = float(self._worth.lost[mine].sum())
                why = WORDS[int(right[2 * slot + BASE])]
                victims.append(Victim(workload.key, workload.tenant, why, devices, lost))
            else:
                dropped = tuple(sorted((name, node, count) for (name, node), count in extra_pods(workload).items()))
                why, devices = WORDS[int(right[2 * slot + EXTRA])], int(running.devices[slot, EXTRA])
                shrinks.append(Shrink(workload.key, workload.tenant, why, devices, shrunk(workload), dropped))
        return Preemption(
            claim.workload,
            pool,
            tuple(victims),
            tuple(shrinks),
            found.assignment,
            found.cost,
            tuple(found.items.tolist()),
        )


def _workloads(items: Sequence[int]) -> list[int]:
    """Slots of items, each once, in the order of the items."""
    return list(dict.fromkeys(item // 2 for item in items))
