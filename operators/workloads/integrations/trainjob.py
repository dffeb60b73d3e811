"""Kubeflow TrainJob (trainer.kubeflow.org/v1alpha1): the pod sets of the JobSet that its controller makes, suspended.

What a TrainJob runs stands in its runtime, which the Trainer turns into a JobSet. That
JobSet is made while the TrainJob is suspended, so its pod sets are read from there.
Source: kubeflow/trainer pkg/apis/trainer/v1alpha1/trainjob_types.go.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from operators.planning.queued_kind import End, end_by_condition
from operators.runtime.resources import RESOURCES, ResourceType
from operators.workloads.integrations.jobset import REPLICATED_JOB, replicated_pod_sets
from operators.workloads.integrations.suspended import Suspendable, label, refuse_other_manager
from scheduler.objects.job_shape import shaped
from scheduler.objects.queue_settings import keys_of, priority_of, settings_of
from scheduler.objects.shape import NOTHING_TO_RUN, Object, Refused, Shape

CONTROLLER = "trainer.kubeflow.org/trainjob-controller"


class TrainJob(Suspendable):
    """A training run."""

    resource: ResourceType = RESOURCES["TrainJob"]
    mark = "trainjob"
    between: tuple[str, ...] = ("JobSet", "Job")

    def shape(
        self,
        obj: Object,
        parts: Sequence[Object],
        limit_ranges: Iterable[Object],
        runtime_classes: Mapping[str, Object],
    ) -> Shape:
        def make() -> Shape:
            refuse_other_manager(obj, CONTROLLER)
            made = sorted(
                (one for one in parts if one["kind"] == "JobSet"), key=lambda one: str(one["metadata"]["name"])
            )
            if not made:
                raise Refused(NOTHING_TO_RUN, "its JobSet does not exist yet", "see the TrainJob's own conditions")
            sets = replicated_pod_sets(made[0], limit_ranges, runtime_classes)
            return Shape(sets, priority_of(obj), keys_of(obj), settings=settings_of(obj))

        return shaped(make)

    def end(self, obj: Object, pods: Sequence[Object]) -> End | None:
        return end_by_condition(obj, "Complete")

    def pod_set_of(self, pod: Object) -> str:
        return label(pod, REPLICATED_JOB)
