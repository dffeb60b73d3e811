"""The resource types that the operators read or write, by kind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from crds.labels import GROUP, VERSION
from crds.registry import KINDS


@dataclass(frozen=True, slots=True)
class ResourceType:
    """Where the API server serves a kind."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str | None = None, name: str | None = None, subresource: str = "") -> str:
        """The REST path of the collection (no name) or of one object."""
        parts = ["/apis", self.group, self.version] if self.group else ["/api", self.version]
        if namespace and self.namespaced:
            parts += ["namespaces", namespace]
        parts.append(self.plural)
        if name:
            parts.append(name)
        if subresource:
            parts.append(subresource)
        return "/".join(parts)


def _builtin(group: str, version: str, plural: str, kind: str, namespaced: bool = True) -> ResourceType:
    return ResourceType(group, version, plural, kind, namespaced)


_ALL = [
    _builtin("", "v1", "namespaces", "Namespace", False),
    _builtin("", "v1", "nodes", "Node", False),
    _builtin("", "v1", "pods", "Pod"),
    _builtin("", "v1", "configmaps", "ConfigMap"),
    _builtin("", "v1", "serviceaccounts", "ServiceAccount"),
    _builtin("", "v1", "resourcequotas", "ResourceQuota"),
    _builtin("", "v1", "limitranges", "LimitRange"),
    _builtin("events.k8s.io", "v1", "events", "Event"),
    _builtin("batch", "v1", "jobs", "Job"),
    _builtin("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy"),
    _builtin("rbac.authorization.k8s.io", "v1", "roles", "Role"),
    _builtin("rbac.authorization.k8s.io", "v1", "rolebindings", "RoleBinding"),
    _builtin("rbac.authorization.k8s.io", "v1", "clusterroles", "ClusterRole", False),
    _builtin("rbac.authorization.k8s.io", "v1", "clusterrolebindings", "ClusterRoleBinding", False),
    _builtin("node.k8s.io", "v1", "runtimeclasses", "RuntimeClass", False),
    _builtin("coordination.k8s.io", "v1", "leases", "Lease"),
    _builtin(
        "admissionregistration.k8s.io",
        "v1",
        "validatingadmissionpolicies",
        "ValidatingAdmissionPolicy",
        False,
    ),
    _builtin(
        "admissionregistration.k8s.io",
        "v1",
        "validatingadmissionpolicybindings",
        "ValidatingAdmissionPolicyBinding",
        False,
    ),
    _builtin("admissionregistration.k8s.io", "v1", "mutatingadmissionpolicies", "MutatingAdmissionPolicy", False),
    _builtin(
        "admissionregistration.k8s.io",
        "v1",
        "mutatingadmissionpolicybindings",
        "MutatingAdmissionPolicyBinding",
        False,
    ),
    _builtin("apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", False),
    # Kinds that the queue takes where they are served (operators.workloads.integrations).
    _builtin("jobset.x-k8s.io", "v1alpha2", "jobsets", "JobSet"),
    _builtin("ray.io", "v1", "rayjobs", "RayJob"),
    _builtin("ray.io", "v1", "rayclusters", "RayCluster"),
    _builtin("trainer.kubeflow.org", "v1alpha1", "trainjobs", "TrainJob"),
    _builtin("leaderworkerset.x-k8s.io", "v1", "leaderworkersets", "LeaderWorkerSet"),
    _builtin("scheduling.k8s.io", "v1beta1", "podgroups", "PodGroup"),
    _builtin("apps", "v1", "statefulsets", "StatefulSet"),
    _builtin("apps", "v1", "deployments", "Deployment"),
    _builtin("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim"),
    _builtin("", "v1", "podtemplates", "PodTemplate"),
    _builtin("autoscaling.x-k8s.io", "v1", "provisioningrequests", "ProvisioningRequest"),
    *(ResourceType(GROUP, VERSION, kind.plural, kind.name, kind.namespaced) for kind in KINDS),
]

RESOURCES: Mapping[str, ResourceType] = {resource.kind: resource for resource in _ALL}


def type_of(obj: Mapping[str, Any]) -> ResourceType:
    """The resource type of an object. Raises KeyError for a kind the operators do not know."""
    return RESOURCES[obj["kind"]]
