"""What a Job asks of the queue: its pod set, priority and keys; or why it cannot be queued.

A gang of `parallelism` pods is one pod set.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from crds.errors import InvalidInput
from crds.labels import FULL_PARALLELISM
from scheduler import Reason
from scheduler.objects.pod_shape import POD_SET, pod_set_of, refuse_ungated
from scheduler.objects.queue_settings import keys_of, priority_of, settings_of
from scheduler.objects.shape import INVALID_RESOURCES, NOTHING_TO_RUN, RUN_BY_ANOTHER, Object, Refused, Shape

__all__ = ["POD_SET", "Shape", "full_parallelism", "pods_at_once", "shape_of", "shaped"]
_CONTROLLER = "kubernetes.io/job-controller"


def shape_of(
    job: Object, limit_ranges: Iterable[Object] = (), runtime_classes: Mapping[str, Object] | None = None
) -> Shape:
    """The shape of a batch/v1 Job. `runtime_classes` by name; `limit_ranges` of its namespace."""
    return shaped(lambda: _shape(job, limit_ranges, runtime_classes or {}))


def shaped(make: Callable[[], Shape]) -> Shape:
    """What `make` returns; a refusal that it raises becomes the shape's."""
    try:
        return make()
    except Refused as refused:
        return Shape(refusal=refused.reason)
    except InvalidInput as error:
        return Shape(refusal=Reason(INVALID_RESOURCES, error.problem.what, error.problem.fix))


def _shape(job: Object, limit_ranges: Iterable[Object], runtime_classes: Mapping[str, Object]) -> Shape:
    template = job["spec"].get("template") or {}
    if job["spec"].get("managedBy", _CONTROLLER) != _CONTROLLER:
        raise Refused(RUN_BY_ANOTHER, "spec.managedBy names another controller", "remove spec.managedBy")
    refuse_ungated(template.get("spec") or {}, "Job")
    count = pods_at_once(job)
    if count < 1:
        raise Refused(NOTHING_TO_RUN, "spec.parallelism is 0", "raise spec.parallelism")
    pod_set = pod_set_of(template, count, limit_ranges, runtime_classes, owner=job)
    return Shape([pod_set], priority_of(job), keys_of(job), settings=settings_of(job))


def full_parallelism(job: Object) -> int:
    """The parallelism that its user gave it; an admission in part lowers spec.parallelism while it runs."""
    kept = (job["metadata"].get("annotations") or {}).get(FULL_PARALLELISM, "")
    given = job["spec"].get("parallelism")
    return int(kept) if kept.isdigit() else 1 if given is None else int(given)


def pods_at_once(job: Object) -> int:
    """How many pods the Job controller will run at once: min(parallelism, completions that remain)."""
    spec, status = job["spec"], job.get("status") or {}
    completions = spec.get("completions")
    if completions is None:
        # A work queue: once a pod has succeeded, no more are started.
        return full_parallelism(job)
    return max(0, min(full_parallelism(job), int(completions) - int(status.get("succeeded") or 0)))
