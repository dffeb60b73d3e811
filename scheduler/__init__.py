"""Pure decisions: what is admitted and where, which machines come and go, and why the rest waits.

`plan(fleet, memory, now) -> (Plan, Memory)` is a function: it reads a `Fleet`, changes
nothing, and its clock is an argument. Rooms: `fleet` (what is), `queueing` (who is next,
who may), `placement` (where it fits), `running`, `preemption` and `reserving` (what would
fit if what runs were gone, or had ended), `autoscale` (machines to come and go), `explain`
(reasons), `cycle` (the steps of one plan). Around them: `simulate` (the same plan under a
virtual clock) and `objects` (Kubernetes objects, as plain dicts, read as states). Nothing
here talks to a cluster, or knows keys or HTTP.
"""

from scheduler.decision import (
    Admission,
    Eviction,
    MachineRemoval,
    MachineRequest,
    Memory,
    Move,
    Placed,
    Plan,
    Waiting,
)
from scheduler.explain.reasons import Reason
from scheduler.fleet import (
    BoundPod,
    ClassQuota,
    Fleet,
    MachineState,
    NodeState,
    PodSet,
    PoolState,
    Taint,
    TenantState,
    Toleration,
    WorkloadState,
)
from scheduler.plan import plan

__all__ = [
    "Admission",
    "BoundPod",
    "ClassQuota",
    "Eviction",
    "Fleet",
    "MachineRemoval",
    "MachineRequest",
    "MachineState",
    "Memory",
    "Move",
    "NodeState",
    "Placed",
    "Plan",
    "PodSet",
    "PoolState",
    "Reason",
    "Taint",
    "TenantState",
    "Toleration",
    "Waiting",
    "WorkloadState",
    "plan",
]
