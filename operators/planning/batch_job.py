"""batch/v1 Job as a queued kind: one pod set, suspended by `spec.suspend`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from crds.labels import FULL_PARALLELISM
from operators.planning.queued_kind import Counts, End, QueuedKind, end_by_condition
from operators.runtime.resources import RESOURCES, ResourceType
from scheduler.objects.fleet_objects import has_ended
from scheduler.objects.job_shape import POD_SET, full_parallelism, pods_at_once, shape_of
from scheduler.objects.shape import Object, Shape


class BatchJob:
    """The built-in Job."""

    resource: ResourceType = RESOURCES["Job"]
    mark = "job"
    between: tuple[str, ...] = ()
    suspendable = True

    def applies(self, obj: Object) -> bool:
        return True

    def shape(
        self,
        obj: Object,
        parts: Sequence[Object],
        limit_ranges: Iterable[Object],
        runtime_classes: Mapping[str, Object],
    ) -> Shape:
        return shape_of(obj, limit_ranges, runtime_classes)

    def is_suspended(self, obj: Object) -> bool:
        return bool(obj["spec"].get("suspend"))

    def suspension(self, obj: Object, suspend: bool, admitted: Counts) -> dict[str, Any] | None:
        """An admission in part lowers the parallelism; a stop gives the Job its own back."""
        if self.is_suspended(obj) == suspend:
            return None
        full, spec = full_parallelism(obj), obj["spec"]
        wanted = full if suspend else min(full, _parallelism(obj, admitted))
        out: dict[str, Any] = {"spec": {"suspend": suspend}}
        if spec.get("parallelism", 1) != wanted:
            out["spec"]["parallelism"] = wanted
        kept = (obj["metadata"].get("annotations") or {}).get(FULL_PARALLELISM)
        if wanted != full:
            out["metadata"] = {"annotations": {FULL_PARALLELISM: str(full)}}
        elif kept is not None:
            out["metadata"] = {"annotations": {FULL_PARALLELISM: None}}
        return out

    def end(self, obj: Object, pods: Sequence[Object]) -> End | None:
        return end_by_condition(obj, "Complete")

    def needed(self, obj: Object, pods: Sequence[Object], admitted: Counts) -> Counts:
        total = sum(admitted.values())
        if obj["spec"].get("completions") is None and (obj.get("status") or {}).get("succeeded"):
            return {POD_SET: sum(1 for pod in pods if not has_ended(pod))}  # a work queue that runs out
        return {POD_SET: min(total, pods_at_once(obj))}

    def ready(self, obj: Object, pods: Sequence[Object], admitted: Counts) -> bool:
        status = obj.get("status") or {}
        total = sum(admitted.values())
        return int(status.get("ready") or 0) + int(status.get("succeeded") or 0) >= total > 0

    def pod_set_of(self, pod: Object) -> str:
        return POD_SET


def _parallelism(job: Object, admitted: Counts) -> int:
    """Of a start. As many as were admitted, but the Job's own where it needs no more than that anyway."""
    total = sum(admitted.values())
    return full_parallelism(job) if total >= pods_at_once(job) else total


BATCH_JOB = BatchJob()


def movable(kind: QueuedKind) -> bool:
    """Whether its controller makes a lost pod again while the others run, so that it may go to another node."""
    return kind.mark == BATCH_JOB.mark
