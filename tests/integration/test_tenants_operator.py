"""The tenants operator on a real API server: isolation comes into force before the first pod, stays, and leaves nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from crds.labels import OPERATOR_USER
from local.controlplane import ControlPlane
from tests.integration.operators_harness import API, Operators, World, condition, holds, pool, site, until

Obj = dict[str, Any]
NETPOLS = {"kekkai-default-deny", "kekkai-tenant-internal", "kekkai-outside"}
POD: Obj = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "first"},
    "spec": {
        "automountServiceAccountToken": False,
        "securityContext": {"runAsNonRoot": True, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [
            {
                "name": "c",
                "image": "registry.example/x:1",
                "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
            }
        ],
    },
}


@pytest.fixture(scope="module")
def operators(installed: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operators]:
    one = Operators(installed, Path(tmp_path_factory.mktemp("operators")) / "operators.log")
    one.start()
    yield one
    assert one.stop() == 0, one.log()[-2000:]


@pytest.fixture(scope="module")
def world(installed: ControlPlane, operators: Operators) -> Iterator[World]:
    """Every test has tenants of its own; all of them go at the end."""
    one = World(installed)
    yield one
    for found in one.list("tenant"):
        if found["metadata"]["name"].startswith("to-"):
            one.delete("tenant", found["metadata"]["name"])
    until(
        "the tenants are gone", lambda: not [t for t in one.list("tenant") if t["metadata"]["name"].startswith("to-")]
    )


def tenant(name: str, *namespaces: str, **spec: Any) -> Obj:
    base = {
        "owners": [{"kind": "User", "name": f"{name}-owner"}],
        "namespaces": [{"name": one} for one in namespaces or (name,)],
    }
    return {"apiVersion": API, "kind": "Tenant", "metadata": {"name": name}, "spec": base | spec}


def ready(world: World, name: str) -> Obj:
    def read() -> Obj | None:
        found = world.get("tenant", name)
        fresh = found and condition(found, "Ready").get("observedGeneration") == found["metadata"]["generation"]
        return found if fresh and holds(found, "Ready") else None

    return until(f"tenant {name} is Ready", read)


def reason(world: World, name: str, wanted: str) -> str:
    def read() -> str | None:
        found = condition(world.get("tenant", name), "Ready")
        return found.get("message") if found.get("reason") == wanted else None

    return until(f"tenant {name} says {wanted}", read)


def names(world: World, kind: str, namespace: str) -> set[str]:
    return {one["metadata"]["name"] for one in world.list(kind, namespace)}


def as_operator(world: World, *args: str) -> None:
    """What a fault or a mishap could do: only this identity may touch what is managed."""
    world.plane.kubectl(*args, f"--as={OPERATOR_USER}", "--as-group=system:masters")


def test_a_ready_tenant_has_everything_in_force(world: World) -> None:
    world.apply(site(), pool("to-pool", "H200"))
    quota = [{"accelerator": "H200", "nominal": 8, "borrow": 4}]
    world.apply(tenant("to-one", "to-one-a", "to-one-b", quota=quota, network={"egressCidrs": ["203.0.113.0/24"]}))
    found = ready(world, "to-one")
    assert found["status"]["readyNamespaces"] == 2
    assert "kekkai.dev/cleanup" in found["metadata"]["finalizers"]
    for namespace in ("to-one-a", "to-one-b"):
        labels = (world.get("namespace", namespace) or {})["metadata"]["labels"]
        assert labels["kekkai.dev/tenant"] == "to-one"
        for mode in ("enforce", "audit", "warn"):
            assert labels[f"pod-security.kubernetes.io/{mode}"] == "restricted"
            assert labels[f"pod-security.kubernetes.io/{mode}-version"] == "latest"
        hard = (world.get("resourcequota", "kekkai-ceiling", namespace) or {})["status"]["hard"]
        assert hard["requests.nvidia.com/gpu"] == "12"
        assert hard["services.nodeports"] == hard["services.loadbalancers"] == "0"
        assert names(world, "networkpolicy", namespace) == NETPOLS
        outside = json.dumps(world.get("networkpolicy", "kekkai-outside", namespace))
        assert "203.0.113.0/24" in outside
        binding = world.get("rolebinding", "kekkai-owners", namespace) or {}
        assert [one["name"] for one in binding["subjects"]] == ["to-one-owner"]
    world.delete("acceleratorpool", "to-pool")


def test_the_first_pod_that_is_let_in_finds_the_isolation_in_force(world: World) -> None:
    world.apply(tenant("to-race"))
    body = json.dumps(POD)
    refusals: list[str] = []

    def let_in() -> bool:
        tried = world.plane.kubectl("create", "--dry-run=server", "-n", "to-race", "-f", "-", stdin=body, check=False)
        if tried.returncode:
            refusals.append(tried.stderr)
        return tried.returncode == 0

    until("a pod is let in", let_in)
    assert (world.get("resourcequota", "kekkai-ceiling", "to-race") or {})["status"]["hard"]["pods"] == "2k"
    assert names(world, "networkpolicy", "to-race") == NETPOLS
    for said in refusals:
        assert "is not ready" in said or "not found" in said or "service account" in said, said


def test_what_was_changed_is_mended(world: World) -> None:
    world.apply(tenant("to-drift"))
    ready(world, "to-drift")
    where = ("-n", "to-drift")
    as_operator(world, "delete", "networkpolicy", "kekkai-default-deny", *where)
    as_operator(world, "delete", "limitrange", "kekkai-defaults", *where)
    as_operator(
        world,
        "patch",
        "resourcequota",
        "kekkai-ceiling",
        *where,
        "--type=merge",
        "-p",
        '{"spec":{"hard":{"pods":"99k"}}}',
    )
    as_operator(
        world, "patch", "rolebinding", "kekkai-owners", *where, "--type=merge", "-p",
        '{"subjects":[{"kind":"User","name":"mallory","apiGroup":"rbac.authorization.k8s.io"}]}',
    )  # fmt: skip
    as_operator(world, "label", "namespace", "to-drift", "pod-security.kubernetes.io/enforce=privileged", "--overwrite")

    def mended() -> bool:
        quota = world.get("resourcequota", "kekkai-ceiling", "to-drift") or {}
        binding = world.get("rolebinding", "kekkai-owners", "to-drift") or {}
        labels = (world.get("namespace", "to-drift") or {})["metadata"]["labels"]
        return (
            names(world, "networkpolicy", "to-drift") == NETPOLS
            and names(world, "limitrange", "to-drift") == {"kekkai-defaults"}
            and quota["spec"]["hard"]["pods"] == "2k"
            and [one["name"] for one in binding["subjects"]] == ["to-drift-owner"]
            and labels["pod-security.kubernetes.io/enforce"] == "restricted"
        )

    until("all of it is as it was", mended)


def test_a_binding_with_another_role_is_replaced(world: World) -> None:
    world.apply(tenant("to-role"))
    ready(world, "to-role")
    as_operator(world, "delete", "rolebinding", "kekkai-owners", "-n", "to-role")
    # Whoever is first: an administrator's binding of that name cannot have its role changed, only be replaced.
    world.plane.kubectl(
        "create", "rolebinding", "kekkai-owners", "--clusterrole=view", "--user=x", "-n", "to-role", check=False
    )

    def replaced() -> bool:
        binding = world.get("rolebinding", "kekkai-owners", "to-role")
        return binding is not None and binding["roleRef"]["name"] == "kekkai-tenant-owner"

    as_operator(world, "annotate", "networkpolicy", "kekkai-outside", "-n", "to-role", "touched=yes")
    until("the binding names the owners' role", replaced)


def test_a_foreign_namespace_is_never_adopted(world: World) -> None:
    world.plane.kubectl("create", "namespace", "to-foreign")
    world.apply(tenant("to-claim", "to-foreign", "to-claim-own"))
    said = reason(world, "to-claim", "NamespaceConflict")
    assert "to-foreign" in said
    assert "choose another name or delete it" in said
    until("its other namespace is made all the same", lambda: world.get("rolebinding", "kekkai-owners", "to-claim-own"))
    labels = (world.get("namespace", "to-foreign") or {})["metadata"]["labels"]
    assert set(labels) == {"kubernetes.io/metadata.name"}
    assert names(world, "networkpolicy", "to-foreign") == set()
    world.delete("tenant", "to-claim", wait=True)
    assert world.get("namespace", "to-foreign") is not None
    world.delete("namespace", "to-foreign")


def test_what_the_api_server_refuses_is_said_and_holds_up_nothing_else(world: World) -> None:
    bad = {"name": "to-bad", "labels": {"team": "not a label value!"}}
    world.apply(tenant("to-refused", namespaces=[bad, {"name": "to-good"}]))
    said = reason(world, "to-refused", "ApplyRefused")
    assert "to-bad" in said
    assert "not a label value!" in said
    until(
        "the other namespace is ready",
        lambda: (world.get("namespace", "to-good") or {})["metadata"]["labels"].get("kekkai.dev/ready"),
    )
    assert "kekkai.dev/ready" not in (world.get("namespace", "to-bad") or {})["metadata"]["labels"]


def test_another_tenants_namespace_is_never_adopted(world: World) -> None:
    world.apply(tenant("to-first", "to-shared"))
    ready(world, "to-first")
    world.apply(tenant("to-second", "to-shared"))
    assert "to-shared" in reason(world, "to-second", "NamespaceConflict")
    assert (world.get("namespace", "to-shared") or {})["metadata"]["labels"]["kekkai.dev/tenant"] == "to-first"
    # The end of the first one resolves the conflict; nothing of it is inherited.
    before = (world.get("namespace", "to-shared") or {})["metadata"]["uid"]
    world.delete("tenant", "to-first")
    ready(world, "to-second")
    after = world.get("namespace", "to-shared") or {}
    assert after["metadata"]["labels"]["kekkai.dev/tenant"] == "to-second"
    assert after["metadata"]["uid"] != before


def test_a_namespace_taken_out_of_the_spec_goes_and_the_others_stay(world: World) -> None:
    world.apply(tenant("to-less", "to-keep", "to-drop"))
    ready(world, "to-less")
    kept = (world.get("namespace", "to-keep") or {})["metadata"]["uid"]
    world.apply(tenant("to-less", "to-keep"))
    until("the namespace is gone", lambda: world.get("namespace", "to-drop") is None)
    assert ready(world, "to-less")["status"]["readyNamespaces"] == 1
    assert (world.get("namespace", "to-keep") or {})["metadata"]["uid"] == kept


def test_a_deleted_tenant_leaves_nothing(world: World) -> None:
    world.apply(tenant("to-gone", "to-gone-a", "to-gone-b"))
    ready(world, "to-gone")
    owner = world.plane.kubeconfig_for("to-gone-owner")
    world.plane.kubectl("create", "-n", "to-gone-a", "-f", "-", user=owner, stdin=json.dumps(POD))
    world.delete("tenant", "to-gone", wait=True)
    for namespace in ("to-gone-a", "to-gone-b"):
        assert world.get("namespace", namespace) is None
    for kind in ("networkpolicy", "rolebinding", "resourcequota", "limitrange", "pod"):
        left = world.plane.kubectl("get", kind, "-A", "-l", "kekkai.dev/tenant=to-gone", "-o", "name").stdout
        assert left == ""


def test_a_killed_operator_goes_on_where_it_was(world: World, operators: Operators) -> None:
    world.apply(tenant("to-killed", *(f"to-killed-{i}" for i in range(6))))
    until("a first namespace is made", lambda: world.get("namespace", "to-killed-0"))
    operators.kill()
    operators.start()
    assert ready(world, "to-killed")["status"]["readyNamespaces"] == 6


def test_a_namespace_deleted_behind_the_operators_back_is_made_again(world: World) -> None:
    world.apply(tenant("to-again"))
    ready(world, "to-again")
    before = (world.get("namespace", "to-again") or {})["metadata"]["uid"]
    as_operator(world, "delete", "namespace", "to-again", "--wait=false")

    def anew() -> bool:
        found = world.get("namespace", "to-again")
        return found is not None and found["metadata"]["uid"] != before

    until("a new namespace is there", anew)
    until(
        "it is made ready",
        lambda: "kekkai.dev/ready" in (world.get("namespace", "to-again") or {})["metadata"]["labels"],
    )
    assert names(world, "networkpolicy", "to-again") == NETPOLS


def test_a_stricter_baseline_reaches_every_namespace(world: World) -> None:
    world.apply(tenant("to-level"))
    ready(world, "to-level")

    def level() -> str:
        return (world.get("namespace", "to-level") or {})["metadata"]["labels"]["pod-security.kubernetes.io/enforce"]

    world.plane.kubectl(
        "patch", "securitybaseline", "default", "--type=merge", "-p", '{"spec":{"podSecurity":{"level":"baseline"}}}'
    )
    try:
        until("the level follows", lambda: level() == "baseline")
        until(
            "the baseline says so",
            lambda: "level baseline" in condition(world.get("securitybaseline", "default"), "Ready").get("message", ""),
        )
    finally:
        world.plane.kubectl(
            "patch",
            "securitybaseline",
            "default",
            "--type=merge",
            "-p",
            '{"spec":{"podSecurity":{"level":"restricted"}}}',
        )
    until("and follows back", lambda: level() == "restricted")
