"""Advisories of multi-tenancy operators, each tried here on the real API server and refused.

The attackers below get more than a tenant's owner has: rights on `namespaces`, or on its
subresources only, or cluster-admin.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from crds.labels import OPERATOR_USER
from local.controlplane import ControlPlane
from operators.runtime import Cluster
from operators.workloads.job_maker import job_for
from tests.integration.tenants_harness import A, B, Person, Tenants, two_tenants

GROUP = "rbac.authorization.k8s.io"
OPERATOR_GROUPS = ["system:serviceaccounts", "system:serviceaccounts:kekkai-system"]


@pytest.fixture(scope="module")
def tenants(installed: ControlPlane) -> Tenants:
    return two_tenants(installed)


def with_rights(tenants: Tenants, name: str, *resources: str) -> Person:
    """Somebody who may read and change these, cluster-wide."""
    rules = [{"apiGroups": [""], "resources": list(resources), "verbs": ["get", "update", "patch"]}]
    role = {"apiVersion": f"{GROUP}/v1", "kind": "ClusterRole", "metadata": {"name": name}, "rules": rules}
    binding = {
        "apiVersion": f"{GROUP}/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": name},
        "roleRef": {"apiGroup": GROUP, "kind": "ClusterRole", "name": name},
        "subjects": [{"kind": "User", "name": name, "apiGroup": GROUP}],
    }
    for document in (role, binding):
        tenants.plane.kubectl("apply", "-f", "-", stdin=json.dumps(document))
    return tenants.person(name)


TAKEOVERS: dict[str, dict[str, Any]] = {
    "tenant": {"labels": {"kekkai.dev/tenant": B}},
    "release": {"labels": {"kekkai.dev/tenant": None}},
    "ready": {"labels": {"kekkai.dev/ready": None}},
    "pod security": {"labels": {"pod-security.kubernetes.io/enforce": "privileged"}},
    "owner": {"ownerReferences": [{"apiVersion": "kekkai.dev/v1alpha1", "kind": "Tenant", "name": B, "uid": "1"}]},
}


@pytest.mark.parametrize("what", TAKEOVERS)
async def test_a_namespaces_owner_and_labels_stay(tenants: Tenants, what: str) -> None:
    """CVE-2022-46167, CVE-2024-39690: whoever may patch a namespace took it over."""
    attacker = with_rights(tenants, "adv-namespaces", "namespaces")
    for person in (attacker, tenants.admin):
        refusal = await person.tries("PATCH", f"/api/v1/namespaces/{A}", {"metadata": TAKEOVERS[what]})
        assert "kekkai-namespaces" in refusal
    # The right itself works: what is not a tenant's business may be changed.
    harmless = {"metadata": {"annotations": {"team": "x"}}}
    assert await attacker.tries("PATCH", f"/api/v1/namespaces/{A}", harmless) == ""


@pytest.mark.parametrize("path", ["status", "finalize"])
@pytest.mark.parametrize("what", TAKEOVERS)
async def test_subresources_are_no_way_around(tenants: Tenants, what: str, path: str) -> None:
    """GHSA-2ww6-hf35-mfjm: rights on namespaces/status or namespaces/finalize alone rewrote labels."""
    attacker = with_rights(tenants, f"adv-{path}", f"namespaces/{path}")
    found = await tenants.admin.reads(f"/api/v1/namespaces/{A}")
    meta = found["metadata"]
    change = TAKEOVERS[what]
    labels = {k: v for k, v in (meta["labels"] | change.get("labels", {})).items() if v is not None}
    whole = {**found, "metadata": {**meta, "labels": labels, "ownerReferences": change.get("ownerReferences", [])}}
    assert "kekkai-namespaces" in await attacker.tries("PUT", f"/api/v1/namespaces/{A}/{path}", whole)
    if path == "status":
        assert "kekkai-namespaces" in await attacker.tries(
            "PATCH", f"/api/v1/namespaces/{A}/status", {"metadata": change}
        )


@pytest.mark.parametrize("namespace", ["kube-system", "kube-public", "default", "kekkai-system"])
async def test_no_label_makes_a_system_namespace_a_tenants(tenants: Tenants, namespace: str) -> None:
    """CVE-2025-55205: a tenant's label injected into system namespaces gave rights there."""
    attacker = with_rights(tenants, "adv-namespaces", "namespaces")
    mark = {"metadata": {"labels": {"kekkai.dev/tenant": A}}}
    for person in (attacker, tenants.admin):
        assert "kekkai-namespaces" in await person.tries("PATCH", f"/api/v1/namespaces/{namespace}", mark)


@pytest.mark.parametrize("namespace", ["kube-system", "default", "kekkai-system"])
async def test_no_tenant_names_a_system_namespace(tenants: Tenants, namespace: str) -> None:
    """CVE-2025-55205, from the other side: not even who may write Tenants."""
    spec = {"owners": [{"kind": "User", "name": "x"}], "namespaces": [{"name": namespace}]}
    body = {"apiVersion": "kekkai.dev/v1alpha1", "kind": "Tenant", "metadata": {"name": "adv"}, "spec": spec}
    refusal = await tenants.admin.tries("POST", "/apis/kekkai.dev/v1alpha1/tenants", body)
    assert "spec.namespaces[].name must not be a system namespace" in refusal


async def test_a_service_account_owner_is_not_matched_by_name_alone(tenants: Tenants) -> None:
    """CVE-2023-46254: the account `ci` of one namespace acted as the owner `ci` of another."""
    for namespace, allowed in ((f"{A}-tools", True), (f"{B}-tools", False), (A, False), ("default", False)):
        user = f"system:serviceaccount:{namespace}:ci"
        groups = ["system:serviceaccounts", f"system:serviceaccounts:{namespace}"]
        assert await tenants.may(user, groups, "create", "jobs.batch", A) is allowed, namespace


async def test_the_operator_cannot_be_made_to_create_cluster_scoped_objects(tenants: Tenants) -> None:
    """CVE-2026-22872, CVE-2026-65835: a tenant's template was created by the controller, whatever it said."""
    for verb in ("create", "update", "patch", "delete"):
        for resource in (
            f"clusterroles.{GROUP}",
            f"clusterrolebindings.{GROUP}",
            "validatingadmissionpolicies.admissionregistration.k8s.io",
            "validatingadmissionpolicybindings.admissionregistration.k8s.io",
            "customresourcedefinitions.apiextensions.k8s.io",
            "persistentvolumes",
            "tenants.kekkai.dev" if verb in {"create", "delete"} else "runtimeclasses.node.k8s.io",
        ):
            assert not await tenants.may(OPERATOR_USER, OPERATOR_GROUPS, verb, resource), (verb, resource)
    for role in ("cluster-admin", "admin", "edit"):
        body = {
            "apiVersion": f"{GROUP}/v1",
            "kind": "RoleBinding",
            "metadata": {"name": "b"},
            "roleRef": {"apiGroup": GROUP, "kind": "ClusterRole", "name": role},
            "subjects": [{"kind": "User", "name": "x", "apiGroup": GROUP}],
        }
        operator = tenants.person(OPERATOR_USER, *OPERATOR_GROUPS)
        refusal = await operator.tries("POST", f"/apis/{GROUP}/v1/namespaces/{A}/rolebindings", body)
        assert "attempting to grant RBAC permissions not currently held" in refusal, role


async def test_a_workloads_template_makes_a_job_in_its_own_namespace_and_nothing_else(tenants: Tenants) -> None:
    smuggled = {
        "apiVersion": f"{GROUP}/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": "x", "namespace": "kube-system"},
        "spec": {"template": {"metadata": {"namespace": "kube-system"}, "spec": {"containers": []}}},
    }
    workload = {"metadata": {"name": "w", "namespace": A, "uid": "1"}, "spec": {"job": smuggled}}
    made = job_for(workload, A)
    assert (made["apiVersion"], made["kind"]) == ("batch/v1", "Job")
    assert (made["metadata"]["name"], made["metadata"]["namespace"]) == ("w", A)
    assert made["spec"]["suspend"] is True


async def test_a_job_cannot_be_slipped_past_the_queue(tenants: Tenants) -> None:
    """A fake owner gains nothing, a pod that names its node or is bound by hand is the API server's to refuse."""
    base = f"/api/v1/namespaces/{A}/pods"
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": "j", "uid": "1", "controller": True}
    body: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p", "ownerReferences": [owner]},
        "spec": {
            "schedulingGates": [{"name": "kekkai.dev/admission"}],
            "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [
                {
                    "name": "c",
                    "image": "registry.example/x:1",
                    "resources": {"limits": {"nvidia.com/gpu": "1"}},
                    "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
                }
            ],
        },
    }
    # It may be made, by whomever: admission gates it, and only the queue takes the gate away, within what it admitted.
    for gates in ([{"name": "kekkai.dev/admission"}], []):
        body["spec"]["schedulingGates"] = gates
        async with await Cluster.connect(tenants.alice.kubeconfig) as cluster:
            made = await cluster.request("POST", base, {"dryRun": "All"}, body)
        assert made["spec"]["schedulingGates"] == [{"name": "kekkai.dev/admission"}]
    body["spec"]["nodeName"] = "n"
    for person in (tenants.alice, tenants.admin):
        assert "spec.nodeName" in (said := await person.tries("POST", base, body))
        assert said.startswith(("403", "422")), said
    assert (await tenants.alice.tries("POST", f"{base}/p/binding", {"target": {"name": "n"}})).startswith("403")
