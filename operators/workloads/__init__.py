"""Queues Jobs and starts them: shadow Workloads, admission, suspension, pinning, eviction.

A Job of a tenant's namespace arrives suspended and gated; `queueing` gives it a shadow
Workload (`job_maker` gives a Workload its Job), the planner decides, `controller` writes
the admission, unsuspends the Job and pins and ungates its pods. Nothing here chooses
nodes or orders the queue.
"""

from __future__ import annotations

from operators.planning.decisions import Decisions
from operators.planning.feed import Feed
from operators.runtime import Cluster, Controller, Stores
from operators.workloads.controller import WorkloadController
from operators.workloads.events import Events
from operators.workloads.integrations.discovery import Discovery
from operators.workloads.job_maker import JobMaker
from operators.workloads.provisioning_check import ProvisioningCheck
from operators.workloads.queueing import Queueing
from operators.workloads.shadows import Shadows
from operators.workloads.tenant_usage import TenantUsage


def controllers(cluster: Cluster, stores: Stores, feed: Feed, decisions: Decisions) -> list[Controller]:
    """The controllers of this operator, to be run beside the planner over the same feed.

    The kinds that are queued are those of `feed.family`, and those that are found to be served later.
    """
    return [
        Queueing(cluster, stores, feed.family),
        Shadows(cluster, stores, feed.family),
        JobMaker(cluster, stores),
        WorkloadController(cluster, stores, decisions, Events(cluster), feed.family),
        TenantUsage(cluster, stores, feed),
        ProvisioningCheck(cluster, stores, feed),
        Discovery(cluster, feed.family),
    ]
