"""PL2: owners manage their own roles, bindings and people, and cannot give what they do not have."""

from __future__ import annotations

from typing import Any

from tests.integration.tenants_harness import A, Tenants

API = "/apis/rbac.authorization.k8s.io/v1"
GROUP = "rbac.authorization.k8s.io"


def role(*rules: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": f"{GROUP}/v1", "kind": "Role", "metadata": {"name": "r"}, "rules": list(rules)}


def binding(kind: str, name: str, *subjects: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": f"{GROUP}/v1",
        "kind": "RoleBinding",
        "metadata": {"name": "b"},
        "roleRef": {"apiGroup": GROUP, "kind": kind, "name": name},
        "subjects": list(subjects),
    }


CAROL = {"kind": "User", "name": "carol", "apiGroup": GROUP}


async def test_an_owner_makes_roles_and_binds_colleagues(tenants: Tenants) -> None:
    own = role({"apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["get", "create"]})
    assert await tenants.alice.tries("POST", f"{API}/namespaces/{A}/roles", own) == ""
    for name in ("kekkai-tenant-owner", "kekkai-tenant-viewer"):
        assert (
            await tenants.alice.tries("POST", f"{API}/namespaces/{A}/rolebindings", binding("ClusterRole", name, CAROL))
            == ""
        )


async def test_no_role_gives_more_than_its_maker_has(tenants: Tenants) -> None:
    for rule in (
        {"apiGroups": [""], "resources": ["pods/exec"], "verbs": ["create"]},
        {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]},
        {"apiGroups": [GROUP], "resources": ["roles"], "verbs": ["escalate"]},
        {"apiGroups": [GROUP], "resources": ["clusterroles"], "verbs": ["bind"]},
        {"apiGroups": [""], "resources": ["resourcequotas"], "verbs": ["delete"]},
    ):
        refusal = await tenants.alice.tries("POST", f"{API}/namespaces/{A}/roles", role(rule))
        assert "attempting to grant RBAC permissions not currently held" in refusal, rule


async def test_no_binding_gives_a_stronger_role(tenants: Tenants) -> None:
    for name in ("cluster-admin", "admin", "edit", "kekkai-operator", "system:controller:job-controller"):
        refusal = await tenants.alice.tries(
            "POST", f"{API}/namespaces/{A}/rolebindings", binding("ClusterRole", name, CAROL)
        )
        assert "attempting to grant RBAC permissions not currently held" in refusal, name


async def test_no_binding_opens_the_namespace_to_everybody(tenants: Tenants) -> None:
    for subject in (
        {"kind": "Group", "name": "system:authenticated", "apiGroup": GROUP},
        {"kind": "Group", "name": "system:serviceaccounts", "apiGroup": GROUP},
        {"kind": "Group", "name": "system:serviceaccounts:iso-b", "apiGroup": GROUP},
        {"kind": "User", "name": "system:anonymous", "apiGroup": GROUP},
        {"kind": "User", "name": "system:serviceaccount:iso-b:default", "apiGroup": GROUP},
        {"kind": "ServiceAccount", "name": "default", "namespace": "iso-b"},
    ):
        body = binding("ClusterRole", "kekkai-tenant-viewer", CAROL, subject)
        refusal = await tenants.alice.tries("POST", f"{API}/namespaces/{A}/rolebindings", body)
        assert "kekkai-role-bindings" in refusal, subject
