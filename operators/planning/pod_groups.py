"""Pods that are queued without an owner of a queued kind: alone, or together by a label or a PodGroup.

A group by label has no object of its own, so one is made up from its pods: its name is
the label's value, its uid follows from the name, and what it asks for is in the
annotations of its pods. A name is free again once none of its pods is left.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

from crds.labels import API_VERSION, POD_GROUP, POD_GROUP_COUNT
from operators.runtime import Stores
from scheduler.objects.pod_shape import is_device

Object = Mapping[str, Any]
LABELLED_PODS = "LabelledPods"
SCHEDULING_POD_GROUP = "PodGroup"


def group_label(pod: Object) -> str:
    """The plain pod group that a pod says it is of; "" when it says none."""
    return str((pod["metadata"].get("labels") or {}).get(POD_GROUP, ""))


def scheduling_group(pod: Object) -> str:
    """The scheduling.k8s.io PodGroup that a pod is linked to; "" when it is to none."""
    return str((pod["spec"].get("schedulingGroup") or {}).get("podGroupName") or "")


def group_uid(name: str, namespace: str) -> str:
    """The uid of a group by label."""
    return "pods-" + hashlib.sha256(f"{namespace}/{name}".encode()).hexdigest()[:32]


def asks_for_devices(pod: Object) -> bool:
    """Whether some container asks for a vendor's resource, as the admission policies see it."""
    spec = pod["spec"]
    return any(
        is_device(resource)
        for one in [*(spec.get("containers") or ()), *(spec.get("initContainers") or ())]
        for field in ("requests", "limits")
        for resource in (one.get("resources") or {}).get(field) or ()
    )


def declared_count(pod: Object) -> int:
    """How many pods its group has, as this pod says; 0 when it says nothing that can be read."""
    text = (pod["metadata"].get("annotations") or {}).get(POD_GROUP_COUNT, "")
    return int(text) if text.isdigit() and len(text) < 7 else 0


class PodGroups:
    """Groups over the store of pods."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores
        pods = stores.watch("Pod")
        self._by_label = pods.index("pod-group", _keyed(group_label))
        self._by_link = pods.index("scheduling-group", _keyed(scheduling_group))

    def of_pod(self, pod: Object, kinds: Iterable[str]) -> Object | None:
        """The queued object of a pod that no other queued object owns, among these kinds."""
        namespace = pod["metadata"]["namespace"]
        link, label = scheduling_group(pod), group_label(pod)
        if link and SCHEDULING_POD_GROUP in kinds:
            return self._stores.watch(SCHEDULING_POD_GROUP).get(link, namespace)
        if label and LABELLED_PODS in kinds:
            return self.labelled(label, namespace)
        return pod if "Pod" in kinds and asks_for_devices(pod) else None

    def labelled(self, name: str, namespace: str) -> Object | None:
        """The group by label of that name; None when it has no pod."""
        pods = sorted(self._by_label.get(f"{namespace}/{name}"), key=_age)
        if not pods:
            return None
        first = pods[0]["metadata"]
        return {
            "apiVersion": API_VERSION,
            "kind": LABELLED_PODS,
            "metadata": {
                "name": name,
                "namespace": namespace,
                "uid": group_uid(name, namespace),
                "labels": dict(first.get("labels") or {}),
                "annotations": dict(first.get("annotations") or {}),
                "creationTimestamp": first.get("creationTimestamp"),
            },
            "spec": {"count": declared_count(pods[0])},
        }

    def pods(self, group: Object) -> list[Object]:
        """The pods of a group of either kind."""
        key = f"{group['metadata']['namespace']}/{group['metadata']['name']}"
        index = self._by_link if group["kind"] == SCHEDULING_POD_GROUP else self._by_label
        return list(index.get(key))


def _keyed(name_of: Any) -> Any:
    def key(pod: Object) -> tuple[str, ...]:
        name = name_of(pod)
        return (f"{pod['metadata']['namespace']}/{name}",) if name else ()

    return key


def _age(pod: Object) -> tuple[str, str]:
    return str(pod["metadata"].get("creationTimestamp") or ""), pod["metadata"]["name"]
