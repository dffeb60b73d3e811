"""PL1 and PL2: nothing of a tenant is reachable from outside it, though it manages its own network policies."""

from __future__ import annotations

from typing import Any

import pytest

from tests.integration.tenants_harness import A, B, Tenants

POLICIES = f"/apis/networking.k8s.io/v1/namespaces/{A}/networkpolicies"
SERVICES = f"/api/v1/namespaces/{A}/services"


def policy(**spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "own"},
        "spec": {"podSelector": {}, **spec},
    }


def of_tenant(name: str) -> dict[str, Any]:
    return {"namespaceSelector": {"matchLabels": {"kekkai.dev/tenant": name}}}


ANY_NAMESPACE: dict[str, Any] = {"namespaceSelector": {}}
EXISTS = {"namespaceSelector": {"matchExpressions": [{"key": "kekkai.dev/tenant", "operator": "Exists"}]}}
BY_NAME = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": B}}}
EVERYWHERE = {"ipBlock": {"cidr": "0.0.0.0/0"}}


async def test_an_owner_manages_its_own_policies(tenants: Tenants) -> None:
    for good in (
        policy(policyTypes=["Ingress"]),
        policy(ingress=[{"from": [{"podSelector": {"matchLabels": {"a": "b"}}}], "ports": [{"port": 80}]}]),
        policy(ingress=[{"from": [of_tenant(A)]}], egress=[{"to": [of_tenant(A)]}]),
    ):
        assert await tenants.alice.tries("POST", POLICIES, good) == ""


@pytest.mark.parametrize(
    "peer", [ANY_NAMESPACE, EXISTS, BY_NAME, of_tenant(B), EVERYWHERE], ids=["any", "exists", "name", "other", "ip"]
)
async def test_no_policy_voids_the_default_deny(tenants: Tenants, peer: dict[str, Any]) -> None:
    own = {"podSelector": {}}
    for peers in ([peer], [own, peer]):
        assert "spec.ingress[].from must" in await tenants.alice.tries(
            "POST", POLICIES, policy(ingress=[{"from": peers}])
        )
        assert "spec.egress[].to must" in await tenants.alice.tries("POST", POLICIES, policy(egress=[{"to": peers}]))


async def test_an_empty_peer_list_means_everybody_and_is_refused(tenants: Tenants) -> None:
    assert "spec.ingress[].from must" in await tenants.alice.tries("POST", POLICIES, policy(ingress=[{}]))
    assert "spec.egress[].to must" in await tenants.alice.tries(
        "POST", POLICIES, policy(egress=[{"ports": [{"port": 53}]}])
    )


@pytest.mark.parametrize(
    "spec",
    [
        {"type": "NodePort"},
        {"type": "LoadBalancer"},
        {"type": "ExternalName", "externalName": "example.com"},
        {"externalIPs": ["203.0.113.7"]},
    ],
    ids=lambda spec: spec.get("type", "externalIPs"),
)
async def test_no_service_leaves_the_cluster(tenants: Tenants, spec: dict[str, Any]) -> None:
    body = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}], **spec}}
    assert "kekkai-services" in await tenants.alice.tries("POST", SERVICES, body)
    inside = {**body, "spec": {"ports": [{"port": 80}]}}
    assert await tenants.alice.tries("POST", SERVICES, inside) == ""


async def test_no_owner_writes_endpoints(tenants: Tenants) -> None:
    """CVE-2021-25740: endpoints written by hand reach pods of other namespaces, past their policies."""
    for resource in ("endpoints", "endpointslices.discovery.k8s.io"):
        for verb in ("create", "update", "patch"):
            assert not await tenants.may("iso-alice", [], verb, resource, A)
