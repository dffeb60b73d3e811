"""Whether a tenant may use so many devices more of a class."""

from __future__ import annotations

from collections.abc import Mapping

from scheduler.explain import reasons
from scheduler.explain.reasons import Reason
from scheduler.fleet import TenantState


def refuse(tenant: TenantState, accelerator: str, wanted: int, usage: Mapping[tuple[str, str], int]) -> Reason | None:
    """None when nominal + borrow allows it. Work without devices is not counted."""
    if wanted == 0:
        return None
    quota = tenant.quota.get(accelerator)
    if quota is None:
        return reasons.class_not_in_quota(tenant.name, accelerator)
    used, limit = usage.get((tenant.name, accelerator), 0), quota.nominal + quota.borrow
    if used + wanted > limit:
        return reasons.quota_exceeded(tenant.name, accelerator, used, wanted, limit)
    return None
