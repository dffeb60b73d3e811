"""Networks of a namespace: everything denied, except within the tenant, to DNS, and to named networks."""

from __future__ import annotations

from typing import Any

from crds.labels import TENANT
from crds.tenant import TenantNetwork
from operators.tenants.ownership import labels


def desired_network(tenant: str, namespace: str, network: TenantNetwork) -> list[dict[str, Any]]:
    """The policies, the deny first."""
    same_tenant = [{"namespaceSelector": {"matchLabels": {TENANT: tenant}}}]
    dns = {
        "to": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}}],
        "ports": [{"protocol": protocol, "port": 53} for protocol in ("UDP", "TCP")],
    }
    outside = [{"to": [{"ipBlock": {"cidr": cidr}} for cidr in network.egress_cidrs]}] if network.egress_cidrs else []
    return [
        _policy(tenant, namespace, "kekkai-default-deny", {"policyTypes": ["Ingress", "Egress"]}),
        _policy(
            tenant,
            namespace,
            "kekkai-tenant-internal",
            {
                "policyTypes": ["Ingress", "Egress"],
                "ingress": [{"from": same_tenant}],
                "egress": [{"to": same_tenant}],
            },
        ),
        _policy(tenant, namespace, "kekkai-outside", {"policyTypes": ["Egress"], "egress": [dns, *outside]}),
    ]


def _policy(tenant: str, namespace: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": namespace, "labels": labels(tenant)},
        "spec": {"podSelector": {}, **spec},
    }
