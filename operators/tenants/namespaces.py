"""The tenant's namespaces: which are wanted, which conflict, which are to go."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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


def split(tenant: Tenant, existing: Iterable[Mapping[str, Any]]) -> Split:
    """Compare spec.namespaces with what is there. Nothing foreign is ever adopted."""
    by_name = {obj["metadata"]["name"]: obj for obj in existing}
    name = tenant.metadata.name
    conflicts = tuple(
        wanted.name
        for wanted in tenant.spec.namespaces
        if wanted.name in by_name and tenant_of(by_name[wanted.name]) != name
    )
    wanted_names = {wanted.name for wanted in tenant.spec.namespaces}
    surplus = tuple(sorted(one for one, obj in by_name.items() if tenant_of(obj) == name and one not in wanted_names))
    ours = tuple(wanted for wanted in tenant.spec.namespaces if wanted.name not in conflicts)
    return Split(ours, conflicts, surplus)


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
