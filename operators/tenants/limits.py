"""Ceilings of a namespace (ResourceQuota) and default requests of its containers (LimitRange).

The queue governs use; these stop runaways and what bypasses the queue.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from crds.tenant import ContainerDefaults, TenantSpec
from operators.tenants.ownership import labels


def desired_quota(tenant: str, namespace: str, spec: TenantSpec, resource_of: Mapping[str, str]) -> dict[str, Any]:
    """`resource_of`: accelerator class → extended resource, as the pools say."""
    ceiling, objects = spec.ceiling, spec.ceiling.objects
    devices: dict[str, int] = defaultdict(int)
    for quota in spec.quota:
        if quota.accelerator in resource_of:
            devices[resource_of[quota.accelerator]] += quota.nominal + quota.borrow
    for resource in set(resource_of.values()):
        devices.setdefault(resource, 0)  # a class that the tenant may not use has a ceiling of zero
    # Our own kinds are not counted: the quota controller learns of a CRD up to 30 s after it is installed, and
    # until then everything of that kind would be refused ("status unknown").
    hard = {
        "requests.cpu": ceiling.cpu,
        "requests.memory": ceiling.memory,
        "requests.ephemeral-storage": ceiling.ephemeral_storage,
        "pods": str(objects.pods),
        "count/jobs.batch": str(objects.jobs),
        "services": str(objects.services),
        "services.nodeports": "0",
        "services.loadbalancers": "0",
        "secrets": str(objects.secrets),
        "configmaps": str(objects.config_maps),
        "persistentvolumeclaims": str(objects.persistent_volume_claims),
        "replicationcontrollers": str(objects.replication_controllers),
        "resourcequotas": str(objects.resource_quotas),
        **{f"requests.{resource}": str(count) for resource, count in sorted(devices.items())},
    }
    return {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "kekkai-ceiling", "namespace": namespace, "labels": labels(tenant)},
        "spec": {"hard": hard},
    }


def desired_limits(tenant: str, namespace: str, defaults: ContainerDefaults) -> dict[str, Any]:
    """Requests of containers that state none: a ResourceQuota refuses pods without them.

    No default limits: a container that asks for more than such a limit, and states none, would be invalid.
    """
    amounts = {
        "cpu": defaults.cpu,
        "memory": defaults.memory,
        "ephemeral-storage": defaults.ephemeral_storage,
    }
    return {
        "apiVersion": "v1",
        "kind": "LimitRange",
        "metadata": {"name": "kekkai-defaults", "namespace": namespace, "labels": labels(tenant)},
        "spec": {"limits": [{"type": "Container", "defaultRequest": amounts}]},
    }


def quota_in_force(quota: Mapping[str, Any] | None) -> bool:
    """Whether the quota controller has taken it in and counted; before that pods are not limited, or all refused."""
    status = (quota or {}).get("status") or {}
    known = set(status.get("hard") or ()) & set(status.get("used") or ())
    return quota is not None and known >= set(quota["spec"]["hard"])
