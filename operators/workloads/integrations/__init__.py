"""Kinds of others that the queue takes: one module a kind, each a pure `QueuedKind`.

A kind is queued where the API server serves it; plain pods always are. Nothing here
reads or writes the cluster: `operators.planning.family` finds the objects, the
workloads controllers act on them.
"""

from __future__ import annotations

from operators.planning.queued_kind import QueuedKind
from operators.workloads.integrations.jobset import JobSet
from operators.workloads.integrations.leaderworkerset import LeaderWorkerSet
from operators.workloads.integrations.pods import LabelledPods, PlainPod, SchedulingPodGroup
from operators.workloads.integrations.ray import RayCluster, RayJob
from operators.workloads.integrations.trainjob import TrainJob

ALWAYS: tuple[QueuedKind, ...] = (PlainPod(), LabelledPods())
"""Kinds of every cluster, beside batch/v1 Job."""

WHERE_SERVED: tuple[QueuedKind, ...] = (
    JobSet(),
    RayCluster(),
    RayJob(),
    TrainJob(),
    LeaderWorkerSet(),
    SchedulingPodGroup(),
)
"""Kinds that are queued where the API server serves them. An owner comes after what it makes."""

__all__ = ["ALWAYS", "WHERE_SERVED"]
