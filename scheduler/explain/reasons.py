"""The reason codes and how each is worded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

TENANT_UNKNOWN = "TenantUnknown"
TENANT_ON_HOLD = "TenantOnHold"
CLASS_NOT_IN_QUOTA = "ClassNotInQuota"
QUOTA_EXCEEDED = "QuotaExceeded"
NO_POOL_FITS = "NoPoolFits"
POOL_AT_MAXIMUM = "PoolAtMaximum"
TOPOLOGY_TOO_NARROW = "TopologyTooNarrow"
MACHINES_COMING = "MachinesComing"
NODE_LOST = "NodeLost"
NODE_REPLACED = "NodeReplaced"
CHECK_PENDING = "CheckPending"
PUT_BACK = "PutBack"
NOT_ITS_TURN = "NotItsTurn"
DRAINED = "TenantDrained"
PREEMPTED = "Preempted"
EVICTING = "Evicting"
RESERVED = "Reserved"

# Topology levels as people say them.
_WORDS = {"nvlinkDomain": "nvlink domain", "rack": "rack", "block": "block", "zone": "zone", "site": "site"}


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


def at_maximum(
    pool: str, tried: int, pod_set: str, room: int, count: int, missing: int, maximum: int, level: str
) -> Reason:
    where = f"in one {_WORDS[level]} " if level else ""
    return Reason(
        POOL_AT_MAXIMUM,
        f"pool {pool}: {room} of {count} {pod_set} pods have room {where}on {tried} node{'s' * (tried != 1)}, "
        f"coming ones included, and the pool may have {maximum}",
        f"needs {missing} more free node{'s' * (missing != 1)} {where}of {pool}: wait until running work ends, "
        f"or raise spec.scaling.max of {pool}",
    )


def topology_too_narrow(pool: str, level: str, pod_set: str, count: int, span: int) -> Reason:
    return Reason(
        TOPOLOGY_TOO_NARROW,
        f"pool {pool}: {count} {pod_set} pods never fit in one {_WORDS[level]}, which has {span} nodes",
        "require a wider topology level, only prefer it, or ask for fewer pods",
    )


def machines_coming(pool: str, coming: int) -> Reason:
    return Reason(MACHINES_COMING, f"{coming} machine{'s' * (coming != 1)} of {pool} are on their way", "")


def node_lost(node: str) -> Reason:
    return Reason(NODE_LOST, f"node {node} is gone", "")


def node_replaced(nodes: Sequence[str]) -> Reason:
    which = f"node {nodes[0]} is" if len(nodes) == 1 else f"nodes {', '.join(nodes)} are"
    return Reason(NODE_REPLACED, f"{which} gone; the pods that were there go to others", "")


def check_pending() -> Reason:
    return Reason(CHECK_PENDING, "an admission check has not passed yet", "see status.checks of the Workload")


def put_back(until: str) -> Reason:
    return Reason(PUT_BACK, f"it is put back until {until} after it failed to start", "")


def not_its_turn(tenant: str) -> Reason:
    return Reason(
        NOT_ITS_TURN,
        f"an older workload of tenant {tenant} goes first and cannot start yet",
        "wait for it, or set spec.queueing of the Tenant to bestEffort",
    )


def drained(tenant: str) -> Reason:
    return Reason(DRAINED, f"tenant {tenant} is being drained", "set spec.drain of the Tenant to false")


_BY = {
    "priority": "it has a higher priority",
    "reclaim": "its tenant takes back what it had lent",
    "cohort": "it has a higher priority in the same cohort, and this one borrowed",
}


def preempted(by: str, tenant: str, why: str) -> Reason:
    return Reason(PREEMPTED, f"evicted for {by} of tenant {tenant}: {_BY[why]}", "it is queued again")


def evicting(count: int, first: str) -> Reason:
    who = first if count == 1 else f"{first} and {count - 1} more"
    return Reason(EVICTING, f"{who} {'is' if count == 1 else 'are'} evicted for it", "")


def reserved(pool: str, nodes: int, start: str, basis: str) -> Reason:
    where = f"room on {nodes} node{'s' * (nodes != 1)} of pool {pool} is kept for it"
    return Reason(RESERVED, f"{where}; earliest {start} {basis}" if start else f"{where}; {basis}", "")
