"""The tenant's namespaces: which are wanted, which conflict, which are to go."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from crds.baseline import SecurityBaselineSpec
from crds.labels import READY, TENANT
from crds.tenant import Tenant, TenantNamespace
from operators.tenants.ownership import tenant_of

_POD_SECURITY = "pod-security.kubernetes.io"


@dataclass(frozen=True, slots=True)
class Split:
    """The tenant's namespaces by what is to be done."""

    ours: tuple[TenantNamespace, ...]  # to be made, or kept as wanted
    conflicts: tuple[str, ...]  # exist and belong to somebody else
    surplus: tuple[str, ...]  # carry the tenant's label and are not in its spec any more


def split(
    tenant: Tenant, named: Callable[[str], Mapping[str, Any] | None], owned: Iterable[Mapping[str, Any]]
) -> Split:
    """Compare spec.namespaces with what is there. Nothing foreign is ever adopted.

    `named` looks a namespace up by name, `owned` are those that carry the tenant's label.
    """
    name = tenant.metadata.name
    found = {wanted.name: named(wanted.name) for wanted in tenant.spec.namespaces}
    conflicts = tuple(one for one, obj in found.items() if obj is not None and tenant_of(obj) != name)
    surplus = tuple(
        sorted(
            obj["metadata"]["name"]
            for obj in owned
            if obj["metadata"]["name"] not in found and not obj["metadata"].get("deletionTimestamp")
        )
    )
    ours = tuple(wanted for wanted in tenant.spec.namespaces if wanted.name not in conflicts)
    return Split(ours, conflicts, surplus)


def claimed_namespace(tenant: str, name: str) -> dict[str, Any]:
    """What is created first: the tenant's, and closed (see operators.admission), until all else is in it."""
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": {TENANT: tenant}}}


def desired_namespace(
    tenant: str, wanted: TenantNamespace, baseline: SecurityBaselineSpec, ready: bool
) -> dict[str, Any]:
    """The namespace, with Pod Security from the baseline. `ready` lets pods in (see operators.admission)."""
    level = baseline.pod_security.level
    labels = dict(wanted.labels) | {TENANT: tenant}
    for mode in ("enforce", "audit", "warn"):
        labels[f"{_POD_SECURITY}/{mode}"] = level
        labels[f"{_POD_SECURITY}/{mode}-version"] = "latest"
    if ready:
        labels[READY] = "true"
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": wanted.name, "labels": labels}}


def pod_security_level(namespace: Mapping[str, Any]) -> str:
    """The level that the API server enforces in a namespace; empty when it enforces none."""
    return str((namespace["metadata"].get("labels") or {}).get(f"{_POD_SECURITY}/enforce", ""))
