"""`Entitlements` over a fair-share ledger and the tenants' quotas."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from scheduler.fleet import TenantState


class Ledger(Protocol):
    """What is asked of `scheduler.queueing`; it counts what this plan has decided so far."""

    def entitled(self, tenant: str, accelerator: str, wanted: int) -> bool:
        """Whether the tenant, or something that it stands under, is within its quota with so many more."""

    def excess(self, tenant: str, accelerator: str) -> float:
        """Own devices beyond own nominal."""

    def may_reclaim_from(self, tenant: str, other: str, accelerator: str, wanted: int) -> bool:
        """Whether the other's side borrows what the tenant's side lent."""

    def charge(self, tenant: str, accelerator: str, devices: int) -> None:
        """So many more are used, or fewer."""

    def mark(self) -> int:
        """A point that `rollback` goes back to."""

    def rollback(self, mark: int) -> None:
        """Undo what was charged since."""


class Rights:
    """The ledger's answers, own nominal quotas, and priorities compared within one parent where it is allowed."""

    def __init__(
        self, ledger: Ledger, tenants: Mapping[str, TenantState], by_priority: frozenset[str] = frozenset()
    ) -> None:
        """`by_priority`: parents whose children give way to each other's higher priority, in what they borrow."""
        self._ledger, self._tenants, self._by_priority = ledger, tenants, by_priority

    def within_nominal(self, tenant: str, accelerator: str, wanted: int) -> bool:
        return self._ledger.entitled(tenant, accelerator, wanted)

    def nominal(self, tenant: str, accelerator: str) -> int:
        known = self._tenants.get(tenant)
        quota = known.quota.get(accelerator) if known is not None else None
        return quota.nominal if quota is not None else 0

    def excess(self, tenant: str, accelerator: str) -> float:
        return self._ledger.excess(tenant, accelerator)

    def may_reclaim_from(self, tenant: str, other: str, accelerator: str, wanted: int) -> bool:
        return self._ledger.may_reclaim_from(tenant, other, accelerator, wanted)

    def reclaimable(self, tenant: str, accelerator: str, wanted: int, losses: Sequence[tuple[str, int]]) -> int:
        mark, many = self._ledger.mark(), 0
        for other, devices in losses:
            if not self._ledger.may_reclaim_from(tenant, other, accelerator, wanted):
                break
            self._ledger.charge(other, accelerator, -devices)
            many += 1
        self._ledger.rollback(mark)
        return many

    def same_cohort(self, tenant: str, other: str) -> bool:
        mine, theirs = self._tenants.get(tenant), self._tenants.get(other)
        return (
            mine is not None
            and theirs is not None
            and mine.parent == theirs.parent
            and mine.parent in self._by_priority
        )
