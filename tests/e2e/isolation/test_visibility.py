"""PL1: another tenant's objects can neither be seen nor touched."""

from __future__ import annotations

import asyncio

from tests.integration.tenants_harness import A, B, Tenants

KINDS = (
    *("pods", "pods/log", "pods/exec", "configmaps", "secrets", "services", "serviceaccounts", "events"),
    *("resourcequotas", "limitranges", "persistentvolumeclaims", "jobs.batch", "deployments.apps"),
    *("networkpolicies.networking.k8s.io", "roles.rbac.authorization.k8s.io", "rolebindings.rbac.authorization.k8s.io"),
    *("workloads.kekkai.dev", "protectedkeys.kekkai.dev"),
)
VERBS = ("get", "list", "watch", "create", "update", "patch", "delete", "deletecollection")


async def test_nothing_in_the_others_namespaces_is_open(tenants: Tenants) -> None:
    asked = [(verb, kind, where) for verb in VERBS for kind in KINDS for where in (B, f"{B}-tools", "kube-system", "")]
    gate = asyncio.Semaphore(16)

    async def one(verb: str, kind: str, where: str) -> bool:
        async with gate:
            return await tenants.may("iso-alice", [], verb, kind, where)

    answers = await asyncio.gather(*(one(*ask) for ask in asked))
    assert [ask for ask, allowed in zip(asked, answers, strict=True) if allowed] == []


async def test_the_same_questions_about_its_own_namespaces_are_answered_with_yes(tenants: Tenants) -> None:
    """Otherwise the test above would hold for somebody without any rights."""
    for where in (A, f"{A}-tools"):
        for verb, kind in (("create", "jobs.batch"), ("list", "pods"), ("get", "pods/log"), ("get", "resourcequotas")):
            assert await tenants.may("iso-alice", [], verb, kind, where), (verb, kind, where)


async def test_reading_it_says_no_more_than_forbidden(tenants: Tenants) -> None:
    for name in ("kube-root-ca.crt", "not-there"):
        refusal = await tenants.alice.tries("GET", f"/api/v1/namespaces/{B}/configmaps/{name}")
        assert refusal.startswith("403"), "whether it exists must not show"


async def test_owners_have_no_way_into_running_confidential_pods_or_others_identities(tenants: Tenants) -> None:
    for verb, what in (
        ("create", "pods/exec"),
        ("create", "pods/attach"),
        ("patch", "pods/ephemeralcontainers"),
        ("create", "pods/binding"),
        ("patch", "pods/status"),
        ("patch", "workloads/status.kekkai.dev"),
        ("impersonate", "users"),
        ("impersonate", "serviceaccounts"),
        ("create", "serviceaccounts/token"),
    ):
        resource, _, sub = what.partition("/")
        sub, _, group = sub.partition(".")
        asked = f"{resource}{'.' + group if group else ''}{'/' + sub if sub else ''}"
        assert not await tenants.may("iso-alice", [], verb, asked, A), (verb, asked)
