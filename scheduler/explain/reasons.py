"""The reason codes and how each is worded."""

from __future__ import annotations

from dataclasses import dataclass

INACTIVE = "Inactive"
TENANT_UNKNOWN = "TenantUnknown"
TENANT_ON_HOLD = "TenantOnHold"
CLASS_NOT_IN_QUOTA = "ClassNotInQuota"
QUOTA_EXCEEDED = "QuotaExceeded"
NO_POOL_FITS = "NoPoolFits"
POD_TOO_LARGE = "PodTooLarge"
POOL_AT_MAXIMUM = "PoolAtMaximum"
MACHINES_COMING = "MachinesComing"
NO_ROOM = "NoRoom"
NODE_LOST = "NodeLost"


@dataclass(frozen=True, slots=True)
class Reason:
    """`code` for programs; `message` says what was tried; `nearest` what would admit it."""

    code: str
    message: str
    nearest: str = ""


def tenant_unknown(tenant: str) -> Reason:
    return Reason(TENANT_UNKNOWN, f"tenant {tenant!r} does not exist", "make the Tenant, or label the namespace")


def on_hold(tenant: str) -> Reason:
    return Reason(TENANT_ON_HOLD, f"tenant {tenant} is on hold", "set spec.hold of the Tenant to false")


def class_not_in_quota(tenant: str, accelerator: str) -> Reason:
    return Reason(
        CLASS_NOT_IN_QUOTA,
        f"tenant {tenant} has no quota of {accelerator}",
        f"add {accelerator} to spec.quota of the Tenant, or select another accelerator",
    )


def quota_exceeded(tenant: str, accelerator: str, used: int, wanted: int, limit: int) -> Reason:
    missing = used + wanted - limit
    nearest = (
        f"wait until {missing} {accelerator} of the tenant are free, or raise its quota by {missing}"
        if wanted <= limit
        else f"raise the quota by {missing}: it asks for more than the tenant may ever use"
    )
    message = f"tenant {tenant} uses {used} of {limit} {accelerator} and asks for {wanted} more"
    return Reason(QUOTA_EXCEEDED, message, nearest)


def no_pool_fits(tried: dict[str, str]) -> Reason:
    detail = "; ".join(f"{pool}: {why}" for pool, why in sorted(tried.items())) or "there are no pools"
    return Reason(NO_POOL_FITS, detail, "add a pool, or change what the pods select, tolerate or require")


def pod_too_large(pool: str, resource: str, wanted: int, offered: int) -> Reason:
    return Reason(
        POD_TOO_LARGE,
        f"a pod asks for {wanted} {resource}, a node of {pool} offers {offered}",
        f"ask for at most {offered} {resource} a pod",
    )


def at_maximum(pool: str, missing: int, maximum: int) -> Reason:
    return Reason(
        POOL_AT_MAXIMUM,
        f"pool {pool} would need {missing} more machine{'s' * (missing != 1)} and may have {maximum}",
        f"raise spec.scaling.max of {pool} by {missing}, or wait until running work ends",
    )


def machines_coming(pool: str, coming: int) -> Reason:
    return Reason(MACHINES_COMING, f"{coming} machine{'s' * (coming != 1)} of {pool} are on their way", "")
