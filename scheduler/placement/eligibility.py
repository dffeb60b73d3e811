"""Which pools and nodes a workload may use at all, before room is looked at."""

from __future__ import annotations

from collections.abc import Mapping

from scheduler.fleet import PodSet, PoolState, Taint, TenantState, WorkloadState


def pool_refuses(pool: PoolState, tenant: TenantState, workload: WorkloadState) -> str:
    """Why this pool is out of the question for this workload; empty when it is not."""
    if not pool.accepting:
        return "takes nothing now"
    if tenant.isolation == "confidential" and pool.confidential == "none":
        return "has no TEE, and the tenant's isolation is confidential"
    if tenant.pools and pool.name not in tenant.pools:
        return "is not among the tenant's pools"
    for where, whose in ((tenant.jurisdictions, "tenant"), (workload.jurisdictions, "workload")):
        if where and pool.jurisdiction not in where:
            return f"stands in {pool.jurisdiction or 'an unknown jurisdiction'}, outside the {whose}'s residency"
    for pod_set in workload.pod_sets:
        if why := shape_refuses(pod_set, pool.labels, pool.taints, pool.confidential):
            return why
        for resource, amount in pod_set.requests.items():
            if amount > pool.allocatable.get(resource, 0):
                return f"a pod asks for {amount} {resource}, a node offers {pool.allocatable.get(resource, 0)}"
    return ""


def shape_refuses(
    pod_set: PodSet, labels: Mapping[str, str], taints: tuple[Taint, ...], confidential: str, partial: bool = True
) -> str:
    """Why pods of this shape may not run on nodes with these labels and taints; empty when they may.

    With `partial`, labels that single nodes add (hostname, topology) are not known yet
    and do not refuse.
    """
    if pod_set.confidential and confidential == "none":
        return "has no TEE, and the runtime class needs one"
    for key, value in pod_set.node_selector.items():
        if labels.get(key, value if partial and key in _PER_NODE else None) != value:
            return f"does not have the label {key}={value}"
    for taint in taints:
        if taint.effect in {"NoSchedule", "NoExecute"} and not any(t.tolerates(taint) for t in pod_set.tolerations):
            return f"has the taint {taint.key}, which is not tolerated"
    return ""


_PER_NODE = {
    "kubernetes.io/hostname",
    "topology.kubernetes.io/zone",
    "kekkai.dev/block",
    "kekkai.dev/rack",
    "kekkai.dev/nvlink-domain",
    "kekkai.dev/machine",
}
