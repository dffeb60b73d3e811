"""PL1: ceilings on compute, devices and the nine object counts are in force in every namespace."""

from __future__ import annotations

import pytest

from tests.integration.tenants_harness import A, B, Tenants, pod

COMPUTE = {"requests.cpu", "requests.memory", "requests.ephemeral-storage"}
COUNTS = {
    *("pods", "services", "replicationcontrollers", "resourcequotas", "secrets", "configmaps"),
    *("persistentvolumeclaims", "services.nodeports", "services.loadbalancers"),
}
JOB_CONTROLLER = "system:serviceaccount:kube-system:job-controller"


@pytest.mark.parametrize("namespace", [A, f"{A}-tools", B])
async def test_every_ceiling_is_in_force(tenants: Tenants, namespace: str) -> None:
    found = await tenants.admin.reads(f"/api/v1/namespaces/{namespace}/resourcequotas/kekkai-ceiling")
    assert found["status"]["hard"].keys() >= COMPUTE | COUNTS
    assert found["status"]["hard"] == found["spec"]["hard"]


async def test_a_pod_above_the_ceiling_is_refused(tenants: Tenants) -> None:
    body = pod(container={"resources": {"requests": {"cpu": "10001"}}})
    refusal = await tenants.alice.tries("POST", f"/api/v1/namespaces/{A}/pods", body)
    assert "exceeded quota: kekkai-ceiling" in refusal


async def test_a_pod_that_states_nothing_gets_requests(tenants: Tenants) -> None:
    # Without the LimitRange the quota would refuse it: "must specify requests.cpu".
    assert await tenants.alice.tries("POST", f"/api/v1/namespaces/{A}/pods", pod()) == ""
    # And one that asks for much without a limit is valid.
    body = pod(container={"resources": {"requests": {"cpu": "8", "memory": "64Gi"}}})
    assert await tenants.alice.tries("POST", f"/api/v1/namespaces/{A}/pods", body) == ""


async def test_devices_beyond_the_quota_are_refused_even_to_the_job_controller(tenants: Tenants) -> None:
    """A last line of defence: whatever the queue does, and whatever Nodes somebody makes by hand."""
    controller = tenants.person(JOB_CONTROLLER, "system:masters")
    for count, allowed in (("2", True), ("3", False)):
        body = pod(
            container={"resources": {"limits": {"nvidia.com/gpu": count}}},
            schedulingGates=[{"name": "kekkai.dev/admission"}],
        )
        owner = {"apiVersion": "batch/v1", "kind": "Job", "name": "j", "uid": "1", "controller": True}
        body["metadata"]["ownerReferences"] = [owner]
        refusal = await controller.tries("POST", f"/api/v1/namespaces/{A}/pods", body)
        assert ("exceeded quota: kekkai-ceiling" in refusal) is not allowed, refusal
