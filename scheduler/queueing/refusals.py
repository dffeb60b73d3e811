"""Why a tenant may not have more of a class, and what is wrong with how tenants stand under each other."""

from __future__ import annotations

from scheduler.explain.reasons import QUOTA_EXCEEDED, Reason

COHORT_QUOTA_EXCEEDED = "CohortQuotaExceeded"
NOTHING_TO_BORROW = "NothingToBorrow"
PARENT_MISSING = "ParentMissing"
PARENT_CYCLE = "ParentCycle"


def quota_lowered(tenant: str, accelerator: str, used: int, limit: int) -> Reason:
    """The quota is below what the tenant uses: nothing is taken from it, and nothing given."""
    return Reason(
        QUOTA_EXCEEDED,
        f"tenant {tenant} uses {used} {accelerator} and may now use {limit}; what runs goes on, no more is admitted",
        f"wait until its use is below {limit}, or raise its quota",
    )


def cohort_exceeded(
    tenant: str, cohort: str, accelerator: str, used: int, wanted: int, quota: int, limit: int
) -> Reason:
    """`used`, `quota`, `limit`: of the cohort's subtree; `wanted`: what of the request counts there."""
    missing = used + wanted - limit
    message = (
        f"tenant {tenant} asks for {wanted} {accelerator} more, and tenants under {cohort} use {used} of {limit} "
        f"(quota {quota}, borrow {limit - quota})"
    )
    raised = f"raise spec.quota[].nominal or borrow of {accelerator} of {cohort} by {missing}"
    return Reason(COHORT_QUOTA_EXCEEDED, message, f"wait until {missing} of them are free, or {raised}")


def nothing_to_borrow(tenant: str, accelerator: str, used: int, wanted: int, quota: int, kept: int) -> Reason:
    """`quota`: what is there for all to borrow; `kept`: what tenants do not lend."""
    missing = used + wanted - quota
    return Reason(
        NOTHING_TO_BORROW,
        f"tenant {tenant} asks for {wanted} {accelerator} beyond what it keeps for itself; {used} of the {quota} for "
        f"all tenants are in use, and {kept} more are kept by tenants for themselves",
        f"wait until {missing} borrowed {accelerator} are given back, or raise spec.quota[].lend of a tenant that "
        f"does not use its own by {missing}",
    )


def parent_missing(tenant: str, parent: str) -> Reason:
    return Reason(
        PARENT_MISSING,
        f"spec.parent of tenant {tenant} names {parent}, which does not exist; it stands by itself until then",
        f"make the Tenant {parent}, or change spec.parent",
    )


def parent_cycle(cut: str, members: tuple[str, ...]) -> Reason:
    """`members`: each under the next, the last under the first."""
    way = " under ".join((*members, members[0]))
    return Reason(
        PARENT_CYCLE,
        f"spec.parent goes in a circle: {way}; {cut} is taken to have no parent",
        "take spec.parent out of one of them",
    )
