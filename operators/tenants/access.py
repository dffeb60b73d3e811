"""Rights of the tenant's owners in its namespaces."""

from __future__ import annotations

from typing import Any

from crds.tenant import Owner
from operators.rbac import TENANT_OWNER
from operators.tenants.ownership import labels

_RBAC = "rbac.authorization.k8s.io"


def desired_owners(tenant: str, namespace: str, owners: list[Owner]) -> dict[str, Any]:
    """One RoleBinding for all owners."""
    return {
        "apiVersion": f"{_RBAC}/v1",
        "kind": "RoleBinding",
        "metadata": {"name": "kekkai-owners", "namespace": namespace, "labels": labels(tenant)},
        "roleRef": {"apiGroup": _RBAC, "kind": "ClusterRole", "name": TENANT_OWNER},
        "subjects": [_subject(owner) for owner in owners],
    }


def _subject(owner: Owner) -> dict[str, Any]:
    if owner.kind == "ServiceAccount":
        # Name and namespace together: a name alone would match any namespace's (CVE-2023-46254).
        return {"kind": "ServiceAccount", "name": owner.name, "namespace": owner.namespace}
    return {"kind": owner.kind, "name": owner.name, "apiGroup": _RBAC}
