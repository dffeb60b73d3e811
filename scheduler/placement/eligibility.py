"""Which pools and nodes a workload may use at all, before room is looked at."""

from __future__ import annotations

from collections.abc import Mapping

from crds.labels import BLOCK, HOSTNAME, MACHINE, NVLINK_DOMAIN, RACK, ZONE
from scheduler.fleet import PodSet, PoolState, Taint
from scheduler.fleet.rights import Rights
from scheduler.fleet.shape import Shape

_PER_NODE = frozenset({HOSTNAME, ZONE, BLOCK, RACK, NVLINK_DOMAIN, MACHINE})  # labels that single nodes add
_KEEPS_AWAY = frozenset({"NoSchedule", "NoExecute"})


def pool_refuses(pool: PoolState, tenant: Rights, shape: Shape) -> str:
    """Why this pool is out of the question for these tenants and this shape; empty when it is not."""
    if not pool.accepting:
        return "takes nothing now"
    if tenant.isolation == "confidential" and pool.confidential == "none":
        return "has no TEE, and the tenant's isolation is confidential"
    if tenant.pools and pool.name not in tenant.pools:
        return "is not among the tenant's pools"
    for where, whose in ((tenant.jurisdictions, "tenant"), (shape.jurisdictions, "workload")):
        if where and pool.jurisdiction not in where:
            return f"stands in {pool.jurisdiction or 'an unknown jurisdiction'}, outside the {whose}'s residency"
    for pod_set in shape.pod_sets:
        if why := shape_refuses(pod_set, pool.labels, pool.taints, pool.confidential, _PER_NODE):
            return why
        for resource, amount in pod_set.requests.items():
            if amount > pool.allocatable.get(resource, 0):
                return f"a pod asks for {amount} {resource}, a node offers {pool.allocatable.get(resource, 0)}"
    return ""


def shape_refuses(
    pod_set: PodSet,
    labels: Mapping[str, str],
    taints: tuple[Taint, ...],
    confidential: str,
    unknown: frozenset[str] = frozenset(),
) -> str:
    """Why pods of this shape may not run on nodes with these labels and taints; empty when they may.

    `unknown`: labels that do not refuse when they are absent, since single nodes may add them.
    """
    if pod_set.confidential and confidential == "none":
        return "has no TEE, and the runtime class needs one"
    for key, value in pod_set.node_selector.items():
        if labels.get(key, value if key in unknown else None) != value:
            return f"does not have the label {key}={value}"
    for taint in taints:
        if taint.effect in _KEEPS_AWAY and not any(t.tolerates(taint) for t in pod_set.tolerations):
            return f"has the taint {taint.key}, which is not tolerated"
    return ""
