"""The kinds of Cluster API and Karpenter as CustomResourceDefinitions that keep whatever fields they are given."""

from __future__ import annotations

from typing import Any


def _definition(group: str, version: str, plural: str, kind: str, scope: str) -> dict[str, Any]:
    keep = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    schema = {"openAPIV3Schema": {"type": "object", "properties": {"spec": keep, "status": keep}}}
    served = {"name": version, "served": True, "storage": True, "schema": schema, "subresources": {"status": {}}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {
            "group": group,
            "scope": scope,
            "names": {"plural": plural, "singular": kind.lower(), "kind": kind, "listKind": f"{kind}List"},
            "versions": [served],
        },
    }


DEFINITIONS = [
    _definition("cluster.x-k8s.io", "v1beta2", "machinedeployments", "MachineDeployment", "Namespaced"),
    _definition("cluster.x-k8s.io", "v1beta2", "machines", "Machine", "Namespaced"),
    _definition("karpenter.sh", "v1", "nodeclaims", "NodeClaim", "Cluster"),
]
