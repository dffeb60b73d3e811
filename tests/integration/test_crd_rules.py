"""Every CEL rule of every kind, on the real API server: a good object passes, a bad one is refused in clear words."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from crds.generate.manifests import crd
from crds.registry import KINDS
from local.controlplane import ControlPlane
from operators.runtime import RESOURCES, ApiFault, Cluster

OPERATOR = "system:serviceaccount:kekkai-system:kekkai-operator"
DIGEST = "sha256:" + "a" * 64
BASE: dict[str, dict[str, Any]] = {
    "Site": {"jurisdiction": "JP"},
    "AcceleratorPool": {
        "site": "tokyo",
        "accelerator": {"type": "H200", "perNode": 8},
        "scaling": {"max": 4},
        "provider": {"kwok": {}},
        "power": {"idleWatts": 100, "maxWatts": 1000},
        "price": {"perNodeHour": "1.5"},
    },
    "Machine": {"pool": "p", "clientToken": "t-0"},
    "Tenant": {"owners": [{"kind": "User", "name": "u"}], "namespaces": [{"name": "rules-ns"}]},
    "SecurityBaseline": {},
    "Workload": {"job": {"spec": {"template": {"spec": {"containers": []}}}}},
    "ProtectedKey": {"jurisdiction": "JP", "releasePolicy": {"digest": DIGEST}},
}
REF = {"apiVersion": "batch/v1", "kind": "Job", "name": "j", "uid": "1"}
OTHER_JOB = {"spec": {"template": {"spec": {"containers": [], "restartPolicy": "Never"}}}}


REQUESTS = {"name": "requests", "type": "requests", "capacity": "10", "prometheus": {"metric": "m", "read": "rate"}}
LATENCY = {"name": "p95", "type": "latencySeconds", "target": "2", "prometheus": {"metric": "l", "read": "quantile"}}
WAITING = {"name": "waiting", "type": "queueDepth", "of": "requests", "prometheus": {"metric": "w"}}


def service(*signals: dict[str, Any], name: str = "chat", **flow: Any) -> dict[str, Any]:
    """The spec of a service whose replicas follow these signals."""
    target = {"kind": "Deployment", "name": name}
    data_flow = {"minReplicas": 1, "maxReplicas": 4, "signals": [*signals], **flow}
    return {"job": None, "service": {"target": target, "dataFlow": data_flow}}


def without(signal: dict[str, Any], *names: str, **changes: Any) -> dict[str, Any]:
    return {key: value for key, value in signal.items() if key not in names} | changes


@dataclass(frozen=True)
class Case:
    """`bad` breaks the rule, `good` comes close and does not. With `update`, both change a stored object."""

    kind: str
    starts: str  # how the rule's message begins
    bad: dict[str, Any]
    good: dict[str, Any] = field(default_factory=dict)
    update: bool = False
    base: dict[str, Any] = field(default_factory=dict)
    name: str = "rules"


CASES = [
    Case(
        "Site",
        "spec.roundTrips:",
        {"roundTrips": [{"to": "x", "p95Micros": 1, "measuredAt": "2026-01-01T00:00:00Z"}] * 2},
        {"roundTrips": [{"to": "x", "p95Micros": 1, "measuredAt": "2026-01-01T00:00:00Z"}]},
    ),
    Case("Site", "spec.jurisdiction cannot", {"jurisdiction": "US"}, {"roundTrips": []}, update=True),
    Case("AcceleratorPool", "spec.site cannot", {"site": "osaka"}, {"scaling": {"max": 9}}, update=True),
    Case(
        "AcceleratorPool",
        "spec.accelerator cannot",
        {"accelerator": {"type": "H100", "perNode": 8}},
        {"accelerator": {"type": "H200", "perNode": 8}},
        update=True,
    ),
    Case(
        "AcceleratorPool",
        "spec.confidential cannot",
        {"confidential": {"cpu": "sev-snp"}},
        {"confidential": {"cpu": "none"}},
        update=True,
    ),
    Case(
        "AcceleratorPool", "spec.scaling.min must", {"scaling": {"min": 5, "max": 4}}, {"scaling": {"min": 4, "max": 4}}
    ),
    Case(
        "AcceleratorPool",
        "spec.scaling.headroom must",
        {"scaling": {"headroom": 5, "max": 4}},
        {"scaling": {"headroom": 4, "max": 4}},
    ),
    Case("AcceleratorPool", "spec.provider: name", {"provider": {}}, {"provider": {"kwok": {"bootSeconds": 3}}}),
    Case(
        "AcceleratorPool",
        "spec.power.idleWatts must",
        {"power": {"idleWatts": 2000, "maxWatts": 1000}},
        {"power": {"idleWatts": 1000, "maxWatts": 1000}},
    ),
    Case(
        "AcceleratorPool",
        "spec.price.perNodeHour must",
        {"price": {"perNodeHour": "-1"}},
        {"price": {"perNodeHour": "0"}},
    ),
    Case("Machine", "spec of a Machine cannot", {"reason": "other"}, {"pool": "p"}, update=True),
    Case(
        "Tenant",
        "spec.owners[].namespace belongs",
        {"owners": [{"kind": "ServiceAccount", "name": "a"}]},
        {"owners": [{"kind": "ServiceAccount", "name": "a", "namespace": "n"}]},
    ),
    Case(
        "Tenant",
        "spec.owners[].name of a ServiceAccount",
        {"owners": [{"kind": "ServiceAccount", "name": "n:a", "namespace": "n"}]},
        {"owners": [{"kind": "User", "name": "oidc:a"}]},
    ),
    Case(
        "Tenant",
        "spec.owners[].name must not be a built-in",
        {"owners": [{"kind": "Group", "name": "system:authenticated"}]},
        {"owners": [{"kind": "Group", "name": "people"}]},
    ),
    Case(
        "Tenant",
        "spec.namespaces[].name must",
        {"namespaces": [{"name": "kube-system"}]},
        {"namespaces": [{"name": "my-kube"}]},
    ),
    Case(
        "Tenant",
        "spec.namespaces[].labels must",
        {"namespaces": [{"name": "a", "labels": {"pod-security.kubernetes.io/enforce": "privileged"}}]},
        {"namespaces": [{"name": "a", "labels": {"team": "x"}}]},
    ),
    Case(
        "Tenant",
        "spec.namespaces: a name",
        {"namespaces": [{"name": "a"}] * 2},
        {"namespaces": [{"name": "a"}, {"name": "b"}]},
    ),
    Case(
        "Tenant",
        "spec.quota: an accelerator",
        {"quota": [{"accelerator": "H200", "nominal": 1}] * 2},
        {"quota": [{"accelerator": "H200", "nominal": 1}, {"accelerator": "H100", "nominal": 1}]},
    ),
    Case(
        "Tenant",
        "spec.quota[].lend must",
        {"quota": [{"accelerator": "H200", "nominal": 1, "lend": 2}]},
        {"quota": [{"accelerator": "H200", "nominal": 1, "lend": 1}]},
    ),
    Case("Tenant", "spec.drain evicts", {"drain": True}, {"drain": True, "hold": True}),
    Case("Tenant", "spec.parent must", {"parent": "self-parent"}, {"parent": "self-parents"}, name="self-parent"),
    Case(
        "Tenant",
        "spec.isolation.pools must",
        {"isolation": {"level": "dedicated"}},
        {"isolation": {"level": "dedicated", "pools": ["p"]}},
    ),
    Case(
        "Tenant",
        "spec.network.egressCidrs[] must",
        {"network": {"egressCidrs": ["203.0.113.0"]}},
        {"network": {"egressCidrs": ["203.0.113.0/24", "2001:db8::/32"]}},
    ),
    Case("SecurityBaseline", "metadata.name must", {}, name="other"),
    Case(
        "SecurityBaseline",
        "spec.images.allowedPrefixes[] must",
        {"images": {"allowedPrefixes": ["registry.example"]}},
        {"images": {"allowedPrefixes": ["registry.example/"]}},
        name="default",
    ),
    Case("Workload", "spec: give exactly one", {"ref": REF}),
    Case("Workload", "spec.job.spec.template is", {"job": {"spec": {}}}),
    Case(
        "Workload",
        "spec.job.spec.suspend is",
        {"job": {"spec": {"template": {}, "suspend": True}}},
        {"job": {"spec": {"template": {}, "parallelism": 2}}},
    ),
    Case("Workload", "spec.job.spec.managedBy would", {"job": {"spec": {"template": {}, "managedBy": "x/y"}}}),
    Case("Workload", "spec.job cannot", {"job": OTHER_JOB}, {"priority": 5}, update=True),
    Case(
        "Workload",
        "spec.ref cannot",
        {"ref": {**REF, "name": "k"}},
        {"priority": 5},
        update=True,
        base={"job": None, "ref": REF},
    ),
    Case("Workload", "spec.tenant cannot", {"tenant": "b"}, {"tenant": "a"}, update=True, base={"tenant": "a"}),
    Case(
        "Workload",
        "spec.topology: set",
        {"topology": {"required": "rack", "preferred": "rack"}},
        {"topology": {"required": "rack"}},
    ),
    Case(
        "Workload",
        "spec.podSets[].minCount must",
        {"podSets": [{"name": "main", "count": 2, "minCount": 3}]},
        {"podSets": [{"name": "main", "count": 2, "minCount": 2}]},
    ),
    Case(
        "Workload",
        "spec.accelerators[].throughput must",
        {"accelerators": [{"type": "H200", "throughput": "0.0"}]},
        {"accelerators": [{"type": "H200", "throughput": "0.1"}]},
    ),
    Case(
        "Workload",
        "spec.accelerators: a class",
        {"accelerators": [{"type": "H200"}, {"type": "H200", "throughput": "2"}]},
        {"accelerators": [{"type": "H200"}, {"type": "H100", "throughput": "0.5"}]},
    ),
    Case(
        "Workload",
        "spec.admissionChecks: a check",
        {"admissionChecks": ["budget", "budget"]},
        {"admissionChecks": ["budget", "provisioning"]},
    ),
    Case(
        "Workload",
        "spec.podsReady.backoffBaseSeconds must",
        {"podsReady": {"timeoutSeconds": 60, "backoffBaseSeconds": 61, "backoffMaxSeconds": 60}},
        {"podsReady": {"timeoutSeconds": 60, "backoffBaseSeconds": 60, "backoffMaxSeconds": 60}},
    ),
    Case(
        "AcceleratorPool",
        "spec.scaling.budget.costPerHour must",
        {"scaling": {"max": 4, "budget": {"costPerHour": "-1"}}},
        {"scaling": {"max": 4, "budget": {"costPerHour": "0"}}},
    ),
    Case(
        "Workload",
        "spec.service.dataFlow.minReplicas must",
        service(REQUESTS, minReplicas=5),
        service(REQUESTS, minReplicas=4),
    ),
    Case(
        "Workload",
        "spec.service.dataFlow.signals: a name",
        service(REQUESTS, REQUESTS),
        service(REQUESTS, {**REQUESTS, "name": "more"}),
    ),
    Case(
        "Workload",
        "spec.service.dataFlow.signals[].capacity is",
        service(without(REQUESTS, "capacity")),
        service(REQUESTS),
    ),
    Case(
        "Workload",
        "spec.service.dataFlow.signals[].of is missing; name the demand signal that",
        service(REQUESTS, without(WAITING, "of", type="lagSeconds", capacity="5")),
        service(REQUESTS, without(WAITING, type="lagSeconds")),
    ),
    Case(
        "Workload",
        "spec.service.dataFlow.signals[].of is missing; name the demand signal whose",
        service(REQUESTS, without(WAITING, "of")),
        service(REQUESTS, WAITING),
    ),
    Case(
        "Workload",
        "spec.service.dataFlow.signals[].of must",
        service(REQUESTS, {**WAITING, "of": "p95"}, LATENCY),
        service(REQUESTS, WAITING, LATENCY),
    ),
    Case(
        "Workload",
        "spec.service.dataFlow.signals[].target is",
        service(REQUESTS, without(LATENCY, "target")),
        service(REQUESTS, LATENCY),
    ),
    Case(
        "Workload",
        "spec.service.dataFlow.signals[]: give",
        service({**REQUESTS, "pods": {"metric": "m", "port": 8080}}),
        service(REQUESTS),
    ),
    Case(
        "Workload",
        "spec.service.target cannot",
        service(REQUESTS, name="other"),
        service(REQUESTS, maxReplicas=5),
        update=True,
        base=service(REQUESTS),
    ),
    Case(
        "ProtectedKey",
        "spec.algorithm cannot",
        {"algorithm": "ML-DSA-65"},
        {"releasePolicy": {"digest": "sha256:" + "b" * 64}},
        update=True,
        base={"purpose": "signature", "algorithm": "ED25519"},
    ),
    Case(
        "ProtectedKey",
        "spec.algorithm: purpose",
        {"purpose": "signature"},
        {"purpose": "signature", "algorithm": "ED25519"},
    ),
    Case("ProtectedKey", "spec.origin cannot", {"origin": "import"}, {"origin": "generate"}, update=True),
    Case("ProtectedKey", "spec.jurisdiction cannot", {"jurisdiction": "US"}, {}, update=True),
]


def rules_of(schema: dict[str, Any]) -> Iterator[str]:
    yield from (rule["message"] for rule in schema.get("x-kubernetes-validations", []))
    for child in schema.get("properties", {}).values():
        yield from rules_of(child)
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            yield from rules_of(schema[key])


ALL = {
    (kind.name, message)
    for kind in KINDS
    for message in rules_of(crd(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"])
}


def test_every_rule_has_a_case() -> None:
    uncovered = {
        (kind, message)
        for kind, message in ALL
        if not any(c.kind == kind and message.startswith(c.starts) for c in CASES)
    }
    assert uncovered == set()
    assert all(any(message.startswith(c.starts) for kind, message in ALL if kind == c.kind) for c in CASES)


@pytest.fixture(scope="module", autouse=True)
def tenant_namespace(installed: ControlPlane) -> str:
    """A namespace in which Workloads and ProtectedKeys are let in."""
    name = '{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"rules","labels":{"kekkai.dev/tenant":"rules"}}}'
    installed.kubectl("apply", "-f", "-", f"--as={OPERATOR}", stdin=name)
    return "rules"


def document(case: Case, change: dict[str, Any], name: str) -> dict[str, Any]:
    spec = copy.deepcopy(BASE[case.kind]) | copy.deepcopy(case.base) | copy.deepcopy(change)
    meta = {"name": name} | ({"namespace": "rules"} if RESOURCES[case.kind].namespaced else {})
    spec = {key: value for key, value in spec.items() if value is not None}
    return {"apiVersion": "kekkai.dev/v1alpha1", "kind": case.kind, "metadata": meta, "spec": spec}


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.kind}: {case.starts}")
async def test_rule(case: Case, installed: ControlPlane) -> None:
    # As the operator, so that only the CRD's own rules speak, not the policies for tenants.
    async with await Cluster.connect(installed.kubeconfig_for(OPERATOR, ("system:masters",))) as cluster:
        resource = RESOURCES[case.kind]
        message = next(m for kind, m in ALL if kind == case.kind and m.startswith(case.starts))
        path = resource.path("rules")
        name = case.name if case.name != "rules" else f"rules-{CASES.index(case)}"

        async def send(change: dict[str, Any]) -> None:
            if case.update or case.name == "default":
                await cluster.merge_patch(
                    resource, name, {"spec": change}, "test", "rules" if resource.namespaced else None
                )
            else:
                await cluster.request("POST", path, {"dryRun": "All"}, document(case, change, name))

        if case.update:
            await cluster.create(document(case, {}, name), "test")
        try:
            if case.name != "other":
                await send(case.good)
            with pytest.raises(ApiFault) as caught:
                await send(case.bad)
            assert caught.value.code == 422
            assert message in str(caught.value)
        finally:
            if case.update:
                await cluster.delete(resource, name, "rules" if resource.namespaced else None)
            if case.name == "default":
                await cluster.merge_patch(resource, name, {"spec": {"images": {"allowedPrefixes": []}}}, "test")


async def test_scale_sets_the_floor_and_is_checked(installed: ControlPlane) -> None:
    installed.kubectl("apply", "-f", "docs/examples/10-pools.yaml")
    installed.kubectl("scale", "acceleratorpool", "h200-snp", "--replicas=3")
    found = installed.kubectl("get", "apool", "h200-snp", "-o", "jsonpath={.spec.scaling.min}").stdout
    assert found == "3"
    refused = installed.kubectl("scale", "acceleratorpool", "h200-snp", "--replicas=99", check=False)
    assert "spec.scaling.min must not be above spec.scaling.max" in refused.stderr
    installed.kubectl("delete", "acceleratorpools", "--all")
