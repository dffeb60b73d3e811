"""Races that a real API server does not show on demand: what the operator read is not what is there."""

from __future__ import annotations

from typing import Any

import pytest

from operators.runtime import ApiFault, Stores
from operators.tenants.controller import TenantController

Obj = dict[str, Any]


TENANT: Obj = {
    "apiVersion": "kekkai.dev/v1alpha1",
    "kind": "Tenant",
    "metadata": {
        "name": "t",
        "uid": "t1",
        "resourceVersion": "1",
        "generation": 1,
        "finalizers": ["kekkai.dev/cleanup"],
    },
    "spec": {"owners": [{"kind": "User", "name": "u"}], "namespaces": [{"name": "a"}]},
}


class FakeCluster:
    """Answers creation of namespaces with 409, as when somebody was faster; notes every write."""

    def __init__(self, there: Obj) -> None:
        self.there = there
        self.applied: list[Obj] = []

    async def create(self, obj: Obj, manager: str) -> Obj:
        raise ApiFault(409, "AlreadyExists", "namespaces already exists")

    async def get(self, resource: Any, name: str, namespace: str | None = None) -> Obj:
        return self.there

    async def apply(self, obj: Obj, manager: str, subresource: str = "", force: bool = True) -> Obj:
        self.applied.append(obj)
        whole = TENANT if obj["kind"] == "Tenant" else {}
        return {**whole, **obj, "metadata": {**obj["metadata"], "resourceVersion": "9", "generation": 1}}


def namespace(owner: str | None) -> Obj:
    marks = {"kekkai.dev/tenant": owner} if owner else {}
    meta = {"name": "a", "uid": "n1", "resourceVersion": "5", "labels": marks}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": meta}


def world(there: Obj) -> tuple[FakeCluster, Stores, TenantController]:
    cluster, stores = FakeCluster(there), Stores()
    controller = TenantController(cluster, stores)  # type: ignore[arg-type]
    stores.observe(TENANT)
    return cluster, stores, controller


async def test_a_namespace_made_a_moment_ago_by_another_is_not_adopted() -> None:
    cluster, _, controller = world(namespace(None))
    with pytest.raises(ApiFault):  # the work queue comes again
        await controller.reconcile(("", "t"))
    assert cluster.applied == []
    await controller.reconcile(("", "t"))
    (status,) = cluster.applied
    assert status["status"]["conditions"][0]["reason"] == "NamespaceConflict"


async def test_a_namespace_of_ours_that_the_cache_missed_is_gone_on_with() -> None:
    cluster, _, controller = world(namespace("t"))
    with pytest.raises(ApiFault):
        await controller.reconcile(("", "t"))
    await controller.reconcile(("", "t"))
    kinds = [one["kind"] for one in cluster.applied]
    assert kinds[0] == "Namespace"
    assert kinds[-1] == "Tenant"
    # Applied to that very namespace, or not at all; rights come after the deny and the limits.
    assert cluster.applied[0]["metadata"]["uid"] == "n1"
    order = ["NetworkPolicy", "ResourceQuota", "LimitRange", "RoleBinding"]
    assert [kinds.index(kind) for kind in order] == sorted(kinds.index(kind) for kind in order)
    assert all("kekkai.dev/ready" not in one["metadata"].get("labels", {}) for one in cluster.applied)
