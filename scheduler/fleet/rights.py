"""Where tenants may run, as values that many tenants share."""

from __future__ import annotations

from dataclasses import dataclass

from scheduler.fleet.state import TenantState


@dataclass(eq=False, frozen=True, slots=True)
class Rights:
    """What decides where a tenant may run. Interned: equal ones are the same object, which makes them cheap keys."""

    isolation: str
    pools: frozenset[str]
    jurisdictions: frozenset[str]


class RightsOfTenants:
    """`of[tenant]`, for the tenants that exist."""

    def __init__(self) -> None:
        self.of: dict[str, Rights] = {}
        self._interned: dict[tuple[str, frozenset[str], frozenset[str]], Rights] = {}

    def put(self, tenant: TenantState) -> None:
        """A tenant is new or has changed."""
        key = (tenant.isolation, tenant.pools, tenant.jurisdictions)
        known = self._interned.get(key)
        if known is None:
            known = self._interned[key] = Rights(*key)
        self.of[tenant.name] = known

    def drop(self, tenant: str) -> None:
        """A tenant is gone."""
        self.of.pop(tenant, None)
