"""What preemption must know of fair share: a protocol, filled by the ledger of `scheduler.queueing`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Entitlements(Protocol):
    """Tenants' rights to devices of a class, as they stand with all that this plan has decided."""

    def within_nominal(self, tenant: str, accelerator: str, wanted: int) -> bool:
        """Whether the tenant stays within its own nominal quota with `wanted` devices more.

        In a ledger with parents also whether one of these stays within its own: its children
        take back together what was lent of it. Then `may_reclaim_from` sees to it that each
        claim lowers what is borrowed at the level where the two sides join, and raises it at
        none above, so that claims come to an end.
        """

    def nominal(self, tenant: str, accelerator: str) -> int:
        """Devices that are the tenant's own; 0 when it may only borrow."""

    def excess(self, tenant: str, accelerator: str) -> float:
        """How far the tenant is above its share; only compared. Higher: its workloads go first."""

    def may_reclaim_from(self, tenant: str, other: str, accelerator: str, wanted: int) -> bool:
        """Whether `tenant`, for `wanted` devices, may have back what `other` borrows."""

    def reclaimable(self, tenant: str, accelerator: str, wanted: int, losses: Sequence[tuple[str, int]]) -> int:
        """How many of these (whose, devices) may be reclaimed one after the other, up to the first that may not.

        Each lowers what its side borrows, so that the next may no longer be due.
        """

    def same_cohort(self, tenant: str, other: str) -> bool:
        """Whether priorities of the two are compared: they share a parent whose policy says so."""
