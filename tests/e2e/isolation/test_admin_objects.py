"""PL1: what Kekkai manages in a tenant's namespace, its quota above all, the owner cannot change."""

from __future__ import annotations

import pytest

from tests.integration.tenants_harness import A, Tenants

RBAC = "/apis/rbac.authorization.k8s.io/v1"
NET = "/apis/networking.k8s.io/v1"
MANAGED = [
    f"/api/v1/namespaces/{A}/resourcequotas/kekkai-ceiling",
    f"/api/v1/namespaces/{A}/limitranges/kekkai-defaults",
    f"{NET}/namespaces/{A}/networkpolicies/kekkai-default-deny",
    f"{NET}/namespaces/{A}/networkpolicies/kekkai-outside",
    f"{RBAC}/namespaces/{A}/rolebindings/kekkai-owners",
]


@pytest.mark.parametrize("path", MANAGED, ids=lambda path: path.rsplit("/", 1)[1])
async def test_managed_objects_are_readable_and_not_changeable(tenants: Tenants, path: str) -> None:
    assert (await tenants.alice.reads(path))["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "kekkai"
    unlabel = {"metadata": {"labels": {"app.kubernetes.io/managed-by": None}}}
    for method, body in (("PATCH", {"metadata": {"annotations": {"a": "b"}}}), ("PATCH", unlabel), ("DELETE", None)):
        assert (await tenants.alice.tries(method, path, body)).startswith(("403", "422")), (method, body)
    collection = path.rsplit("/", 1)[0]
    assert await tenants.alice.tries("DELETE", collection) != ""
    # Nor can an administrator by accident: the Tenant is the place.
    assert "change the Tenant instead" in await tenants.admin.tries("DELETE", path)


async def test_an_owner_cannot_add_a_quota(tenants: Tenants) -> None:
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q"}, "spec": {"hard": {"pods": "1"}}}
    refusal = await tenants.alice.tries("POST", f"/api/v1/namespaces/{A}/resourcequotas", quota)
    assert refusal.startswith("403")
