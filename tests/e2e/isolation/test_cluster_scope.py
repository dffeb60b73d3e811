"""PL1: an owner has no access to what is the whole cluster's."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.integration.tenants_harness import Tenants

VERBS = ("get", "list", "watch", "create", "update", "patch", "delete", "deletecollection")
# Everybody may ask what they themselves may do.
OWN_QUESTIONS = {"selfsubjectaccessreviews", "selfsubjectrulesreviews", "selfsubjectreviews"}


async def test_no_cluster_scoped_resource_is_open_to_an_owner(tenants: Tenants) -> None:
    resources = await _cluster_scoped(tenants)
    assert {"nodes", "namespaces", "tenants.kekkai.dev", "acceleratorpools.kekkai.dev"} <= set(resources)
    assert len(resources) > 25
    gate = asyncio.Semaphore(16)

    async def one(verb: str, resource: str) -> str:
        async with gate:
            allowed = await tenants.may("iso-alice", [], verb, resource)
        return f"{verb} {resource}" if allowed else ""

    found = await asyncio.gather(*(one(verb, resource) for resource in resources for verb in VERBS))
    assert [one for one in found if one] == []


async def _cluster_scoped(tenants: Tenants) -> list[str]:
    groups = await tenants.admin.reads("/apis")
    paths = {"": "/api/v1"} | {
        group["name"]: f"/apis/{group['preferredVersion']['groupVersion']}" for group in groups["groups"]
    }
    found: list[str] = []
    for group, path in paths.items():
        listing: dict[str, Any] = await tenants.admin.reads(path)
        for resource in listing["resources"]:
            if not resource["namespaced"] and "/" not in resource["name"] and resource["name"] not in OWN_QUESTIONS:
                found.append(f"{resource['name']}.{group}" if group else resource["name"])
    return found
