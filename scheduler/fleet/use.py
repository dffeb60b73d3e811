"""What running workloads count for in their tenants' use of each accelerator class."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from scheduler.fleet.state import TenantState
from scheduler.queueing.entitlements import Entitlements
from scheduler.queueing.fair_share import Floors


class Use:
    """Charges by workload, and what follows from them: usage, entitlements, who is above its nominal."""

    def __init__(self, half_life: float) -> None:
        """`half_life`: seconds after which past use counts half; 0: only what is held now counts."""
        self.now = 0.0  # seconds since the epoch, when changes take effect
        self.entitlements = Entitlements(half_life=half_life)
        self.floors = Floors(self.entitlements)
        self.devices: dict[tuple[str, str], int] = defaultdict(int)  # (tenant, accelerator) → devices
        self.over: set[tuple[str, str]] = set()  # (tenant, accelerator) with more in use than nominal
        self._charged: dict[str, tuple[str, str, int]] = {}  # workload → its share

    def of(self, workload: str) -> int:
        """The devices that a workload counts for."""
        return self._charged[workload][2] if workload in self._charged else 0

    def charge(self, workload: str, tenant: str, accelerator: str, devices: int) -> None:
        """The workload counts for this from now on, in place of what it counted for."""
        self.uncharge(workload)
        self._charged[workload] = (tenant, accelerator, devices)
        self._enter(tenant, accelerator, devices)

    def uncharge(self, workload: str) -> None:
        """The workload counts for nothing any more."""
        share = self._charged.pop(workload, None)
        if share is not None:
            self._enter(share[0], share[1], -share[2])

    def upsert_tenant(self, tenant: TenantState, before: TenantState | None) -> None:
        """A tenant is new or has changed."""
        self.entitlements.upsert_tenant(tenant)
        self._noted(tenant.name, tenant.quota.keys() | (before.quota.keys() if before is not None else set()))

    def remove_tenant(self, tenant: TenantState) -> None:
        """A tenant is gone; what it still uses stays counted."""
        self.entitlements.remove_tenant(tenant.name)
        self._noted(tenant.name, tenant.quota)

    def set_capacity(self, accelerator: str, devices: int | None) -> None:
        """How many devices the pools of a class may have; None: there are no pools of it."""
        self.entitlements.set_capacity(accelerator, devices)
        self.floors.clear()

    def _enter(self, tenant: str, accelerator: str, devices: int) -> None:
        at = (tenant, accelerator)
        self.devices[at] += devices
        if not self.devices[at]:
            del self.devices[at]
        self.entitlements.charge(tenant, accelerator, devices, self.now)
        self.floors.charged(tenant)
        self._note_excess(tenant, accelerator)

    def _noted(self, tenant: str, accelerators: Iterable[str]) -> None:
        self.floors.clear()
        for accelerator in accelerators:
            self._note_excess(tenant, accelerator)

    def _note_excess(self, tenant: str, accelerator: str) -> None:
        if self.entitlements.excess(tenant, accelerator) > 0:
            self.over.add((tenant, accelerator))
        else:
            self.over.discard((tenant, accelerator))
