"""ProtectedKeys on a real API server, with the real key service and SoftHSM behind the operator."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from keymgmt import strict_json
from keymgmt.policy import payload_types as types
from keymgmt.policy.custodians import digest_of
from local.controlplane import ControlPlane
from tests.integration.keymgmt_harness import TOKENS, Custodians, Guest, Service
from tests.integration.operators_harness import API, Operators, World, condition, holds, until

Obj = dict[str, Any]


class OperatorsWithKeys(Operators):
    """The operators, told where the key service is."""

    def __init__(self, plane: ControlPlane, folder: Path, service: Service) -> None:
        super().__init__(plane, folder / "operators.log")
        self._token = folder / "token"
        self._token.write_text(TOKENS["operator"] + "\n")
        self._service = service

    def start(self) -> None:
        flags = [
            f"--keys-url={self._service.url}",
            f"--keys-ca={self._service.folder / 'tls.crt'}",
            f"--keys-token-file={self._token}",
        ]
        with self._log.open("ab") as log:
            command = [sys.executable, "-m", "operators", f"--kubeconfig={self._kubeconfig}", *flags]
            self._process = subprocess.Popen(command, stdout=log, stderr=log)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    # A port of its own, kept over restarts: the operators are told it once.
    with Service(tmp_path_factory.mktemp("keys")) as one:
        one.config["listen"]["port"] = int(one.url.rsplit(":", 1)[1])
        yield one


@pytest.fixture(scope="module")
def operators(
    installed: ControlPlane, service: Service, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[OperatorsWithKeys]:
    one = OperatorsWithKeys(installed, Path(tmp_path_factory.mktemp("operators")), service)
    one.start()
    yield one
    assert one.stop() == 0, one.log()[-2000:]
    assert TOKENS["operator"] not in one.log()


@pytest.fixture(scope="module")
def world(installed: ControlPlane, operators: OperatorsWithKeys, service: Service) -> World:
    """Two tenants with a namespace each, and their custodians."""
    one = World(installed)
    for name in ("ko-a", "ko-b"):
        one.tenant_with_namespace(name, "H200", 0)
    return one


@pytest.fixture(scope="module")
def custodians(service: Service) -> Custodians:
    found = Custodians("ko-a")
    found.register(service)
    return found


def submitted(service: Service, custodians: Custodians, key: str, **changes: Any) -> str:
    document = custodians.policy(key, **changes)
    reply = custodians.submit(service, document)
    assert reply.status_code == 201, reply.text
    return digest_of(strict_json.canonical(document))


def protected_key(name: str, digest: str, namespace: str = "ko-a", **spec: Any) -> Obj:
    base = {"jurisdiction": "JP", "releasePolicy": {"digest": digest}}
    return {
        "apiVersion": API,
        "kind": "ProtectedKey",
        "metadata": {"name": name, "namespace": namespace},
        "spec": base | spec,
    }


def says(world: World, name: str, kind: str, reason: str, namespace: str = "ko-a") -> Obj:
    def read() -> Obj | None:
        found = world.get("protectedkey", name, namespace)
        return found if condition(found, kind).get("reason") == reason else None

    return until(f"{kind} of {namespace}/{name} says {reason}", read)


def state(service: Service, name: str) -> Obj:
    found: Obj = service.ok("GET", f"/v1/keys/ko-a/{name}", None, "operator")
    return found


def test_a_key_is_made_counted_suspended_and_resumed(world: World, service: Service, custodians: Custodians) -> None:
    digest = submitted(service, custodians, "ko-a/one")
    world.apply(protected_key("one", digest))
    found = says(world, "one", "Ready", "Active")
    assert holds(found, "Sealed")
    assert holds(found, "PolicyAccepted")
    assert found["status"]["policyDigest"] == digest
    assert found["status"]["version"] == 1
    assert "kekkai.dev/cleanup" in found["metadata"]["finalizers"]
    assert state(service, "one")["tenant"] == "ko-a"  # from the namespace: the object does not say it

    guest = Guest(service)
    guest.attest()
    reply = guest.fetch("ko-a/one")
    assert reply.status_code == 200, reply.text
    until("the release is counted", lambda: (world.get("protectedkey", "one", "ko-a") or {})["status"]["releases"] == 1)

    world.delete("protectedkey", "one", "ko-a", wait=True)
    assert state(service, "one")["state"] == "Suspended"
    world.apply(protected_key("one", digest))
    found = says(world, "one", "Ready", "Active")
    assert found["status"]["releases"] == 1
    assert found["status"]["version"] == 1


def test_an_imported_key_waits_for_its_custodians(world: World, service: Service, custodians: Custodians) -> None:
    digest = submitted(service, custodians, "ko-a/brought")
    world.apply(protected_key("brought", digest, origin="import"))
    found = says(world, "brought", "Ready", "AwaitingImport")
    assert not holds(found, "Sealed")
    order = custodians.import_order(service, bytes(range(32)), "ko-a/brought", digest)
    service.ok("POST", "/v1/keys/ko-a/brought/import", custodians.sign(types.IMPORT_ORDER_TYPE, order))
    assert holds(says(world, "brought", "Ready", "Active"), "Sealed")


def test_a_policy_that_nobody_signed_makes_no_key(world: World, service: Service, custodians: Custodians) -> None:
    world.apply(protected_key("early", "sha256:" + "e" * 64))
    found = says(world, "early", "PolicyAccepted", "PolicyNotFound")
    assert condition(found, "Ready")["status"] == "False"
    assert found["status"]["keyID"] == ""
    assert service.call("GET", "/v1/keys/ko-a/early", None, "operator").status_code == 404
    # Once it is signed, and the object names it, all is well.
    world.apply(protected_key("early", submitted(service, custodians, "ko-a/early")))
    says(world, "early", "Ready", "Active")


def test_an_administrator_cannot_change_the_policy_and_the_custodians_can(
    world: World, service: Service, custodians: Custodians
) -> None:
    first = submitted(service, custodians, "ko-a/policy")
    world.apply(protected_key("policy", first))
    says(world, "policy", "Ready", "Active")
    weaker = submitted(service, custodians, "ko-a/policy", maxReleases=9)  # signed, but replaces nothing
    for digest in ("sha256:" + "0" * 64, weaker):
        world.apply(protected_key("policy", digest))
        found = says(world, "policy", "PolicyAccepted", "PolicyChangeNeedsQuorum")
        assert holds(found, "Ready"), "the key stays usable under its old policy"
        assert found["status"]["policyDigest"] == first
        assert state(service, "policy")["policyDigest"] == first
    world.apply(protected_key("policy", submitted(service, custodians, "ko-a/policy", maxReleases=9, replaces=first)))
    found = says(world, "policy", "PolicyAccepted", "Bound")
    assert found["status"]["policyDigest"] != first


def test_a_key_of_another_tenant_is_out_of_reach(world: World, service: Service, custodians: Custodians) -> None:
    digest = submitted(service, custodians, "ko-b/theirs")
    # Tenant A's custodians made a key under a name in what is now tenant B's namespace.
    service.ok(
        "PUT",
        "/v1/keys/ko-b/theirs",
        custodians.key_body(digest, uid="uid-of-a", purpose="data-encryption"),
        "operator",
    )
    world.apply(protected_key("theirs", digest, "ko-b"))
    found = says(world, "theirs", "Ready", "KeyBelongsToAnotherTenant", "ko-b")
    assert found["status"]["keyID"] == ""
    assert found["status"]["releases"] == 0
    # And deleting the object does not suspend what was never its own.
    world.delete("protectedkey", "theirs", "ko-b", wait=True)
    reply = service.ok("GET", "/v1/keys/ko-b/theirs", None, "operator")
    assert reply["state"] == "Active"


def test_a_deleted_tenant_leaves_its_keys_suspended(world: World, service: Service) -> None:
    custodians = Custodians("ko-c")
    custodians.register(service)
    digest = submitted(service, custodians, "ko-c/k")
    world.tenant_with_namespace("ko-c", "H200", 0)
    world.apply(protected_key("k", digest, "ko-c"))
    says(world, "k", "Ready", "Active", "ko-c")
    world.delete("tenant", "ko-c", wait=True)
    assert world.get("namespace", "ko-c") is None
    assert service.ok("GET", "/v1/keys/ko-c/k", None, "operator")["state"] == "Suspended"


def test_a_key_service_that_is_gone_is_said_and_waited_for(
    world: World, service: Service, custodians: Custodians, operators: OperatorsWithKeys
) -> None:
    digest = submitted(service, custodians, "ko-a/outage")
    service.kill()
    try:
        world.apply(protected_key("outage", digest))
        found = says(world, "outage", "Ready", "KeyServiceUnreachable")
        assert condition(found, "Ready")["status"] == "Unknown"
        # Fail closed: the object cannot go while its key might still be released.
        world.delete("protectedkey", "outage", "ko-a")
        assert world.get("protectedkey", "outage", "ko-a") is not None
        operators.kill()
        operators.start()
    finally:
        service.start()
    until("the object goes", lambda: world.get("protectedkey", "outage", "ko-a") is None)


def test_nobody_can_forge_what_the_key_service_said(world: World) -> None:
    world.apply(protected_key("forged", "sha256:" + "f" * 64))
    says(world, "forged", "PolicyAccepted", "PolicyNotFound")
    owner = world.plane.kubeconfig_for("ko-a")  # the tenant's owner, by the harness

    def patch(user: Path | None, change: Obj, *flags: str) -> str:
        where = ("protectedkey", "forged", "-n", "ko-a", "--type=merge", "-p", json.dumps(change))
        tried = world.plane.kubectl("patch", *where, *flags, user=user, check=False)
        assert tried.returncode != 0
        return tried.stderr

    lie = {"status": {"state": "Active"}}
    assert "forbidden" in patch(owner, lie, "--subresource=status")
    assert "status of a ProtectedKey" in patch(None, lie, "--subresource=status")  # not even cluster-admin
    assert "metadata.finalizers must keep" in patch(owner, {"metadata": {"finalizers": []}})
