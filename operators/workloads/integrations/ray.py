"""RayCluster and RayJob (ray.io/v1): head, worker groups and submitter as pod sets, suspended by `spec.suspend`.

Sources: ray-project/kuberay ray-operator/apis/ray/v1/{raycluster,rayjob}_types.go; the
submitter's default template is that of `common.GetDefaultSubmitterTemplate`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from operators.planning.ownership import controller_of
from operators.planning.queued_kind import Counts, End
from operators.runtime.resources import RESOURCES, ResourceType
from operators.workloads.integrations.suspended import Suspendable, distinct, label, refuse_other_manager
from scheduler.objects.job_shape import shaped
from scheduler.objects.pod_shape import pod_set_of
from scheduler.objects.queue_settings import keys_of, priority_of, settings_of
from scheduler.objects.shape import INVALID_SETTING, UNSUPPORTED_PLACEMENT, Object, Refused, Shape

CONTROLLER = "ray.io/kuberay-operator"
NODE_TYPE, GROUP = "ray.io/node-type", "ray.io/group"
HEAD, SUBMITTER = "head", "submitter"
_SUBMITTER: dict[str, Any] = {
    "spec": {
        "containers": [
            {
                "name": "ray-job-submitter",
                "resources": {
                    "requests": {"cpu": "500m", "memory": "200Mi"},
                    "limits": {"cpu": "1", "memory": "1Gi"},
                },
            }
        ]
    }
}


class RayCluster(Suspendable):
    """A Ray cluster of its own; one that a RayJob makes is part of that."""

    resource: ResourceType = RESOURCES["RayCluster"]
    mark = "raycluster"
    between: tuple[str, ...] = ()

    def applies(self, obj: Object) -> bool:
        owner = controller_of(obj)
        return owner is None or owner.get("kind") != "RayJob"

    def shape(
        self,
        obj: Object,
        parts: Sequence[Object],
        limit_ranges: Iterable[Object],
        runtime_classes: Mapping[str, Object],
    ) -> Shape:
        def make() -> Shape:
            refuse_other_manager(obj, CONTROLLER)
            sets = cluster_pod_sets(obj["spec"], list(limit_ranges), runtime_classes)
            return Shape(distinct(sets, "spec"), priority_of(obj), keys_of(obj), settings=settings_of(obj))

        return shaped(make)

    def needed(self, obj: Object, pods: Sequence[Object], admitted: Counts) -> Counts:
        return dict(admitted)  # a Ray node that ends is made again

    def end(self, obj: Object, pods: Sequence[Object]) -> End | None:
        return None

    def pod_set_of(self, pod: Object) -> str:
        return ray_pod_set(pod)


class RayJob(Suspendable):
    """A Ray cluster for one job, and the pod that submits the job to it."""

    resource: ResourceType = RESOURCES["RayJob"]
    mark = "rayjob"
    between: tuple[str, ...] = ("RayCluster", "Job")

    def shape(
        self,
        obj: Object,
        parts: Sequence[Object],
        limit_ranges: Iterable[Object],
        runtime_classes: Mapping[str, Object],
    ) -> Shape:
        def make() -> Shape:
            spec, ranges = obj["spec"], list(limit_ranges)
            refuse_other_manager(obj, CONTROLLER)
            if spec.get("clusterSelector") or not spec.get("rayClusterSpec"):
                message = "spec.clusterSelector names a cluster that is queued by itself"
                raise Refused(INVALID_SETTING, message, "give spec.rayClusterSpec")
            if not spec.get("shutdownAfterJobFinishes"):
                message = "spec.shutdownAfterJobFinishes is false, so its cluster would stay after the job"
                raise Refused(INVALID_SETTING, message, "set it to true, or make a RayCluster and submit jobs to that")
            sets = cluster_pod_sets(spec["rayClusterSpec"], ranges, runtime_classes, "spec.rayClusterSpec.")
            if spec.get("submissionMode", "K8sJobMode") == "K8sJobMode":
                template = spec.get("submitterPodTemplate") or _SUBMITTER
                sets.append(pod_set_of(template, 1, ranges, runtime_classes, name=SUBMITTER))
            return Shape(distinct(sets, "spec"), priority_of(obj), keys_of(obj), settings=settings_of(obj))

        return shaped(make)

    def end(self, obj: Object, pods: Sequence[Object]) -> End | None:
        status = obj.get("status") or {}
        if status.get("jobDeploymentStatus") not in {"Complete", "Failed"}:
            return None
        well = status["jobDeploymentStatus"] == "Complete" and status.get("jobStatus") in {"SUCCEEDED", None, ""}
        reason = "Succeeded" if well else str(status.get("reason") or "Failed")
        return well, reason, str(status.get("message") or "")

    def needed(self, obj: Object, pods: Sequence[Object], admitted: Counts) -> Counts:
        less = Suspendable.needed(self, obj, pods, admitted)
        return {name: less[name] if name == SUBMITTER else count for name, count in admitted.items()}

    def pod_set_of(self, pod: Object) -> str:
        return ray_pod_set(pod)


def ray_pod_set(pod: Object) -> str:
    """By the labels that KubeRay puts on its pods; the submitter's has none of them."""
    kind = label(pod, NODE_TYPE)
    if kind == "worker":
        return label(pod, GROUP).lower()
    return HEAD if kind == "head" else SUBMITTER


def cluster_pod_sets(
    spec: Object, limit_ranges: list[Object], runtime_classes: Mapping[str, Object], where: str = "spec."
) -> list[dict[str, Any]]:
    """The head, and one pod set a worker group that has pods. Raises Refused."""
    if spec.get("enableInTreeAutoscaling"):
        message = f"{where}enableInTreeAutoscaling would ask for pods that were not admitted"
        raise Refused(UNSUPPORTED_PLACEMENT, message, "set it to false and replicas to what is needed")
    sets = [pod_set_of(spec["headGroupSpec"].get("template") or {}, 1, limit_ranges, runtime_classes, name=HEAD)]
    for group in spec.get("workerGroupSpecs") or ():
        if group.get("suspend"):
            continue
        count = _replicas(group) * int(group.get("numOfHosts") or 1)
        if count > 0:
            name = str(group["groupName"]).lower()
            sets.append(pod_set_of(group.get("template") or {}, count, limit_ranges, runtime_classes, name=name))
    return sets


def _replicas(group: Object) -> int:
    """As KubeRay reads it: replicas within minReplicas and maxReplicas."""
    least, most = int(group.get("minReplicas") or 0), group.get("maxReplicas")
    wanted = max(int(group.get("replicas") or 0), least)
    return wanted if most is None else min(wanted, int(most))
