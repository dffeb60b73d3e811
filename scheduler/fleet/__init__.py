"""What is: nodes, machines, pools, tenants and workloads, as struct-of-arrays with O(changed) updates.

It must not decide anything.
"""

from scheduler.fleet.fleet import Fleet
from scheduler.fleet.state import (
    BoundPod,
    ClassQuota,
    MachineState,
    NodeState,
    PodSet,
    PoolState,
    Taint,
    TenantState,
    Toleration,
    WorkloadState,
)

__all__ = [
    "BoundPod",
    "ClassQuota",
    "Fleet",
    "MachineState",
    "NodeState",
    "PodSet",
    "PoolState",
    "Taint",
    "TenantState",
    "Toleration",
    "WorkloadState",
]
