"""Plain pods: one by itself, a group by label, a scheduling.k8s.io PodGroup.

They are gated at admission and cannot be suspended: an eviction deletes the pods that
were let go. Pods of one group may differ; each different shape is a pod set, named by a
digest of what a pod itself asks for, so that a pod's set can be told from the pod alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from crds.labels import API_VERSION, HOSTNAME, POD_GROUP_COUNT
from operators.planning.pod_groups import LABELLED_PODS, declared_count
from operators.planning.pod_state import succeeded, up_or_done
from operators.planning.queued_kind import Counts, End, less_the_done
from operators.runtime.resources import RESOURCES, ResourceType
from operators.workloads.integrations.suspended import distinct
from scheduler.objects.fleet_objects import has_ended
from scheduler.objects.job_shape import shaped
from scheduler.objects.pod_requests import pod_requests, show_amounts
from scheduler.objects.pod_shape import POD_SET, pod_set_of
from scheduler.objects.queue_settings import keys_of, priority_of, settings_of
from scheduler.objects.shape import GROUP_INCOMPLETE, INVALID_SETTING, Object, Refused, Shape


class _Pods:
    """What plain pods have in common."""

    between: tuple[str, ...] = ()
    suspendable = False

    def applies(self, obj: Object) -> bool:
        return True

    def is_suspended(self, obj: Object) -> bool:
        return False

    def suspension(self, obj: Object, suspend: bool, admitted: Counts) -> dict[str, Any] | None:
        return None

    def needed(self, obj: Object, pods: Sequence[Object], admitted: Counts) -> Counts:
        """Those that have not ended: a plain pod is not made again."""
        return less_the_done(admitted, pods, self.pod_set_of, has_ended)

    def ready(self, obj: Object, pods: Sequence[Object], admitted: Counts) -> bool:
        return up_or_done(pods) >= sum(admitted.values()) > 0

    def pod_set_of(self, pod: Object) -> str:
        return role(pod)


class PlainPod(_Pods):
    """A pod that asks for devices and that nothing which is queued owns: a group of one."""

    resource: ResourceType = RESOURCES["Pod"]
    mark = "pod"

    def shape(
        self,
        obj: Object,
        parts: Sequence[Object],
        limit_ranges: Iterable[Object],
        runtime_classes: Mapping[str, Object],
    ) -> Shape:
        def make() -> Shape:
            pod_set = pod_set_of(_as_made(obj), 1, (), runtime_classes, name=POD_SET)
            return Shape([pod_set], priority_of(obj), keys_of(obj), settings=settings_of(obj))

        return shaped(make)

    def end(self, obj: Object, pods: Sequence[Object]) -> End | None:
        if not has_ended(obj):
            return None
        status = obj.get("status") or {}
        well = succeeded(obj)
        return well, "Succeeded" if well else str(status.get("reason") or "Failed"), str(status.get("message") or "")

    def pod_set_of(self, pod: Object) -> str:
        return POD_SET


class _Group(_Pods):
    def count(self, obj: Object) -> int:
        raise NotImplementedError

    def shape(
        self,
        obj: Object,
        parts: Sequence[Object],
        limit_ranges: Iterable[Object],
        runtime_classes: Mapping[str, Object],
    ) -> Shape:
        def make() -> Shape:
            count, there = self.count(obj), [pod for pod in parts if not pod["metadata"].get("deletionTimestamp")]
            if len(there) < count:
                message = f"{len(there)} of the {count} pods of its group exist"
                raise Refused(GROUP_INCOMPLETE, message, "make the others")
            by_role: dict[str, list[Object]] = {}
            for pod in sorted(there, key=lambda one: str(one["metadata"]["name"])):
                if not has_ended(pod):
                    by_role.setdefault(role(pod), []).append(pod)
            sets = [
                pod_set_of(_as_made(pods[0]), len(pods), (), runtime_classes, name=name)
                for name, pods in sorted(by_role.items())
            ]
            return Shape(
                distinct(sets, f"group {obj['metadata']['name']}"),
                priority_of(obj),
                keys_of(obj),
                settings=settings_of(obj),
            )

        return shaped(make)

    def end(self, obj: Object, pods: Sequence[Object]) -> End | None:
        if len(pods) < max(1, self._count_or_none(obj)) or not all(has_ended(pod) for pod in pods):
            return None
        failed = sorted(str(pod["metadata"]["name"]) for pod in pods if not succeeded(pod))
        return (False, "Failed", f"pod {failed[0]} has failed") if failed else (True, "Succeeded", "")

    def _count_or_none(self, obj: Object) -> int:
        try:
            return self.count(obj)
        except Refused:
            return 0


class LabelledPods(_Group):
    """Pods with one value of the label `kekkai.dev/pod-group`; an annotation on each says how many there will be."""

    resource: ResourceType = ResourceType("kekkai.dev", API_VERSION.rpartition("/")[2], "", LABELLED_PODS, True)
    mark = "pods"

    def count(self, obj: Object) -> int:
        count: int = obj["spec"]["count"]
        if not count:
            message = f"annotation {POD_GROUP_COUNT} of its oldest pod is missing or no number"
            raise Refused(INVALID_SETTING, message, "say on each pod how many pods the group has")
        return count

    def shape(
        self,
        obj: Object,
        parts: Sequence[Object],
        limit_ranges: Iterable[Object],
        runtime_classes: Mapping[str, Object],
    ) -> Shape:
        others = sorted(str(one["metadata"]["name"]) for one in parts if declared_count(one) != obj["spec"]["count"])
        if others and obj["spec"]["count"]:
            message = f"annotation {POD_GROUP_COUNT} of pod {others[0]} differs from that of the group's oldest pod"
            return shaped(lambda: _refuse(message))
        return super().shape(obj, parts, limit_ranges, runtime_classes)


class SchedulingPodGroup(_Group):
    """The in-tree PodGroup (scheduling.k8s.io): pods name it in `spec.schedulingGroup.podGroupName`.

    Source: k8s.io/api/scheduling/v1beta1 (Kubernetes 1.37).
    """

    resource: ResourceType = RESOURCES["PodGroup"]
    mark = "podgroup"

    def count(self, obj: Object) -> int:
        """Of the gang policy; with the basic policy its pods need not start together, and one is enough."""
        gang = (obj["spec"].get("schedulingPolicy") or {}).get("gang") or {}
        return int(gang.get("minCount") or 1)


def role(pod: Object) -> str:
    """The pod set of a pod in a group: equal pods have equal names. What pinning adds to a pod does not count."""
    spec = pod["spec"]
    selector = {key: value for key, value in (spec.get("nodeSelector") or {}).items() if key != HOSTNAME}
    says = {
        "requests": show_amounts(pod_requests(spec)),
        "selector": selector,
        "tolerations": spec.get("tolerations") or [],
        "class": spec.get("runtimeClassName") or "",
        "affinity": spec.get("affinity") or {},
    }
    return "role-" + hashlib.sha256(json.dumps(says, sort_keys=True).encode()).hexdigest()[:8]


def _as_made(pod: Object) -> dict[str, Any]:
    """The pod as it was before it was pinned and bound."""
    spec = {name: value for name, value in pod["spec"].items() if name != "nodeName"}
    gates = [one.get("name") for one in spec.get("schedulingGates") or ()]
    selector = dict(spec.get("nodeSelector") or {})
    if not gates:
        selector.pop(HOSTNAME, None)
    if "nodeSelector" in spec:
        spec["nodeSelector"] = selector
    # Its overhead is there already, from its runtime class: it must not be added twice.
    return {"metadata": pod["metadata"], "spec": spec}


def _refuse(message: str) -> Shape:
    raise Refused(INVALID_SETTING, message, "say the same number on each pod of the group")
