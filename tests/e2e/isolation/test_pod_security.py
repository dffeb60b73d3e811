"""PL1: pods of tenants run without any privilege (Pod Security "restricted")."""

from __future__ import annotations

from typing import Any

import pytest

from operators.runtime import Cluster
from tests.integration.tenants_harness import A, Tenants, pod

PODS = f"/api/v1/namespaces/{A}/pods"
SAFE = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
BAD: dict[str, dict[str, Any]] = {
    "added capabilities": pod(container={"securityContext": {**SAFE, "capabilities": {"drop": ["ALL"], "add": ["SYS_ADMIN"]}}}),
    "root": pod(securityContext={"runAsUser": 0, "seccompProfile": {"type": "RuntimeDefault"}}),
    "privileged": pod(container={"securityContext": {"privileged": True}}),
    "privilege escalation": pod(container={"securityContext": {**SAFE, "allowPrivilegeEscalation": True}}),
    "host path": pod(volumes=[{"name": "h", "hostPath": {"path": "/"}}]),
    "host network": pod(hostNetwork=True),
    "host port": pod(container={"ports": [{"containerPort": 80, "hostPort": 80}]}),
    "host PID": pod(hostPID=True),
    "host IPC": pod(hostIPC=True),
    "no seccomp": pod(securityContext={"runAsNonRoot": True, "runAsUser": 1000}),
}  # fmt: skip


async def test_a_plain_pod_is_allowed(tenants: Tenants) -> None:
    assert await tenants.alice.tries("POST", PODS, pod()) == ""


@pytest.mark.parametrize("what", BAD)
async def test_refused(tenants: Tenants, what: str) -> None:
    refusal = await tenants.alice.tries("POST", PODS, BAD[what])
    assert refusal.startswith("403"), refusal
    assert "violates PodSecurity" in refusal


async def test_the_level_cannot_be_lowered_by_the_owner_or_by_accident(tenants: Tenants) -> None:
    lower = {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "privileged"}}}
    assert (await tenants.alice.tries("PATCH", f"/api/v1/namespaces/{A}", lower)).startswith("403")
    assert "follows the SecurityBaseline" in await tenants.admin.tries("PATCH", f"/api/v1/namespaces/{A}", lower)


async def test_images_are_pulled_always(tenants: Tenants) -> None:
    body = pod(container={"imagePullPolicy": "Never"})
    async with await Cluster.connect(tenants.alice.kubeconfig) as cluster:
        made = await cluster.request("POST", PODS, {"dryRun": "All"}, body)
    assert made["spec"]["containers"][0]["imagePullPolicy"] == "Always"
