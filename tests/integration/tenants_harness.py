"""Two tenants as the real operator makes them, and people who try things."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from local.controlplane import ControlPlane
from operators.runtime import ApiFault, Cluster
from tests.integration.operators_harness import API, Operators, World, holds, pool, site, until

Obj = dict[str, Any]
A, B = "iso-a", "iso-b"
_TYPES = {"merge": "application/merge-patch+json", "json": "application/json-patch+json"}


@dataclass(frozen=True)
class Person:
    """Somebody with a client certificate."""

    name: str
    kubeconfig: Path

    async def tries(self, method: str, path: str, body: Any = None, patch: str = "merge") -> str:
        """The refusal, or "" when it would have been allowed. Nothing is changed: dry run."""
        query = {"dryRun": "All"} if method != "GET" else {}
        kind = _TYPES[patch] if method == "PATCH" else "application/json"
        async with await Cluster.connect(self.kubeconfig) as cluster:
            try:
                await cluster.request(method, path, query, body, kind)
            except ApiFault as fault:
                return f"{fault.code} {fault}"
        return ""

    async def reads(self, path: str) -> Any:
        async with await Cluster.connect(self.kubeconfig) as cluster:
            return await cluster.request("GET", path)


@dataclass(frozen=True)
class Tenants:
    """Tenant A with owner alice, tenant B with owner bob, and the cluster's administrator.

    The operator is stopped: what is refused, the API server refuses.
    """

    plane: ControlPlane
    alice: Person
    bob: Person
    admin: Person

    def person(self, name: str, *groups: str) -> Person:
        return Person(name, self.plane.kubeconfig_for(name, groups))

    async def may(self, user: str, groups: list[str], verb: str, resource: str, namespace: str = "") -> bool:
        """SubjectAccessReview; `resource` is plural.group, with /subresource if any."""
        plain, _, sub = resource.partition("/")
        plural, _, group = plain.partition(".")
        where = {"verb": verb, "group": group, "resource": plural, "subresource": sub, "namespace": namespace}
        body = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {"user": user, "groups": [*groups, "system:authenticated"], "resourceAttributes": where},
        }
        async with await Cluster.connect(self.admin.kubeconfig) as cluster:
            answer = await cluster.request("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", None, body)
        return bool(answer["status"]["allowed"])


@cache
def two_tenants(plane: ControlPlane) -> Tenants:
    """Made once a control plane."""
    world = World(plane)
    with tempfile.TemporaryDirectory() as folder:
        operators = Operators(plane, Path(folder) / "operators.log")
        operators.start()
        try:
            world.apply(site(), pool("iso-pool", "H200"))
            for name, owner in ((A, "iso-alice"), (B, "iso-bob")):
                world.apply(_tenant(name, owner))
            for name in (A, B):
                until(f"tenant {name} is Ready", lambda name=name: holds(world.get("tenant", name), "Ready"))
        finally:
            operators.stop()
    people = [Person(name, plane.kubeconfig_for(name)) for name in ("iso-alice", "iso-bob")]
    return Tenants(plane, *people, Person("some-admin", plane.admin_kubeconfig))


def _tenant(name: str, owner: str) -> Obj:
    spec = {
        "owners": [
            {"kind": "User", "name": owner},
            {"kind": "ServiceAccount", "name": "ci", "namespace": f"{name}-tools"},
        ],
        "namespaces": [{"name": name}, {"name": f"{name}-tools"}],
        "quota": [{"accelerator": "H200", "nominal": 2}],
    }
    return {"apiVersion": API, "kind": "Tenant", "metadata": {"name": name}, "spec": spec}


def pod(name: str = "p", container: Obj | None = None, **spec: Any) -> Obj:
    """A pod that meets Pod Security "restricted" unless it is changed."""
    base = {
        "name": "c",
        "image": "registry.example/x:1",
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    whole = {
        "automountServiceAccountToken": False,
        "securityContext": {"runAsNonRoot": True, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [base | (container or {})],
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": whole | spec}
