"""JobSet (jobset.x-k8s.io/v1alpha2): one pod set a replicated Job, suspended by `spec.suspend`.

Source: kubernetes-sigs/jobset api/jobset/v1alpha2/jobset_types.go.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from operators.planning.queued_kind import Counts, End, end_by_condition
from operators.runtime.resources import RESOURCES, ResourceType
from operators.workloads.integrations.suspended import Suspendable, distinct, label, refuse_other_manager
from scheduler.objects.job_shape import pods_at_once, shaped
from scheduler.objects.pod_shape import pod_set_of
from scheduler.objects.queue_settings import keys_of, priority_of, settings_of
from scheduler.objects.shape import NOTHING_TO_RUN, Object, Refused, Shape

CONTROLLER = "jobset.sigs.k8s.io/jobset-controller"
REPLICATED_JOB = "jobset.sigs.k8s.io/replicatedjob-name"


class JobSet(Suspendable):
    """A set of Jobs that run together."""

    resource: ResourceType = RESOURCES["JobSet"]
    mark = "jobset"
    between: tuple[str, ...] = ("Job",)

    def shape(
        self,
        obj: Object,
        parts: Sequence[Object],
        limit_ranges: Iterable[Object],
        runtime_classes: Mapping[str, Object],
    ) -> Shape:
        def make() -> Shape:
            refuse_other_manager(obj, CONTROLLER)
            pod_sets = replicated_pod_sets(obj, limit_ranges, runtime_classes)
            return Shape(pod_sets, priority_of(obj), keys_of(obj), settings=settings_of(obj))

        return shaped(make)

    def needed(self, obj: Object, pods: Sequence[Object], admitted: Counts) -> Counts:
        """Less the pods that have succeeded, where the Jobs do not start others in their place."""
        less = Suspendable.needed(self, obj, pods, admitted)
        turning = {one["name"] for one in _replicated(obj) if _completions(one) > _parallelism(one)}
        return {name: admitted[name] if name in turning else count for name, count in less.items()}

    def end(self, obj: Object, pods: Sequence[Object]) -> End | None:
        return end_by_condition(obj, "Completed")

    def pod_set_of(self, pod: Object) -> str:
        return label(pod, REPLICATED_JOB)


def replicated_pod_sets(
    jobset: Object, limit_ranges: Iterable[Object], runtime_classes: Mapping[str, Object]
) -> list[dict[str, Any]]:
    """One pod set a replicated Job that has pods. Raises Refused."""
    ranges = list(limit_ranges)
    sets = []
    for one in _replicated(jobset):
        replicas = one.get("replicas")
        job = one["template"]
        count = pods_at_once({"metadata": {}, **job}) * (1 if replicas is None else int(replicas))
        if count > 0:
            template = job["spec"].get("template") or {}
            sets.append(pod_set_of(template, count, ranges, runtime_classes, name=one["name"]))
    if not sets:
        raise Refused(NOTHING_TO_RUN, "spec.replicatedJobs ask for no pods", "raise their replicas")
    return distinct(sets, "spec.replicatedJobs")


def _replicated(jobset: Object) -> list[dict[str, Any]]:
    return list(jobset["spec"].get("replicatedJobs") or ())


def _parallelism(replicated: Object) -> int:
    given = replicated["template"]["spec"].get("parallelism")
    return 1 if given is None else int(given)


def _completions(replicated: Object) -> int:
    given = replicated["template"]["spec"].get("completions")
    return _parallelism(replicated) if given is None else int(given)
