"""LeaderWorkerSet (leaderworkerset.x-k8s.io/v1): leaders and workers of all replicas as two pod sets.

It has no suspend: its pods are gated at admission and stay so until it is admitted, and
it is stopped by deleting its pods, which its controller makes anew, gated.
Source: kubernetes-sigs/lws api/leaderworkerset/v1/leaderworkerset_types.go.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from operators.planning.pod_state import up_or_done
from operators.planning.queued_kind import Counts, End
from operators.runtime.resources import RESOURCES, ResourceType
from operators.workloads.integrations.suspended import label
from scheduler.objects.job_shape import shaped
from scheduler.objects.pod_shape import pod_set_of
from scheduler.objects.queue_settings import keys_of, priority_of, settings_of
from scheduler.objects.shape import NOTHING_TO_RUN, Object, Refused, Shape

WORKER_INDEX = "leaderworkerset.sigs.k8s.io/worker-index"
LEADER, WORKER = "leader", "worker"


class LeaderWorkerSet:
    """Groups of a leader and its workers, mostly for inference across nodes."""

    resource: ResourceType = RESOURCES["LeaderWorkerSet"]
    mark = "lws"
    between: tuple[str, ...] = ("StatefulSet", "Pod")
    suspendable = False

    def applies(self, obj: Object) -> bool:
        return True

    def shape(
        self,
        obj: Object,
        parts: Sequence[Object],
        limit_ranges: Iterable[Object],
        runtime_classes: Mapping[str, Object],
    ) -> Shape:
        def make() -> Shape:
            ranges = list(limit_ranges)
            templates = obj["spec"]["leaderWorkerTemplate"]
            worker = templates["workerTemplate"]
            of_set = {LEADER: templates.get("leaderTemplate") or worker, WORKER: worker}
            sets = [
                pod_set_of(of_set[name], count, ranges, runtime_classes, name=name)
                for name, count in _counts(obj).items()
                if count > 0
            ]
            if not sets:
                raise Refused(NOTHING_TO_RUN, "spec.replicas is 0", "raise spec.replicas")
            return Shape(sets, priority_of(obj), keys_of(obj), settings=settings_of(obj))

        return shaped(make)

    def is_suspended(self, obj: Object) -> bool:
        return False

    def suspension(self, obj: Object, suspend: bool, admitted: Counts) -> dict[str, Any] | None:
        return None

    def end(self, obj: Object, pods: Sequence[Object]) -> End | None:
        return None

    def needed(self, obj: Object, pods: Sequence[Object], admitted: Counts) -> Counts:
        now = _counts(obj)
        return {name: min(count, now.get(name, 0)) for name, count in admitted.items()}

    def ready(self, obj: Object, pods: Sequence[Object], admitted: Counts) -> bool:
        return up_or_done(pods) >= sum(self.needed(obj, pods, admitted).values()) > 0

    def pod_set_of(self, pod: Object) -> str:
        index = label(pod, WORKER_INDEX)
        return "" if not index else LEADER if index == "0" else WORKER


def _counts(obj: Object) -> dict[str, int]:
    replicas, size = obj["spec"].get("replicas"), obj["spec"]["leaderWorkerTemplate"].get("size")
    groups, each = 1 if replicas is None else int(replicas), 1 if size is None else int(size)
    return {LEADER: groups, WORKER: groups * (each - 1)}
