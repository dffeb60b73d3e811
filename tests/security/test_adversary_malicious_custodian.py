"""Adversary: one of a tenant's three custodians, two of whom must agree."""

from keymgmt.policy import payload_types as types
from tests.integration.keymgmt_harness import Custodians, paths


def signed_twice_by_one(victim, kind, document):
    """The envelope that one custodian can make alone, with every trick: two signatures, both theirs."""
    envelope = victim.custodians.sign(kind, document, signers=1)
    (only,) = envelope["signatures"]
    second = dict(only, keyid=list(victim.custodians.keys)[1])
    return [
        envelope,
        envelope | {"signatures": [only, only]},
        envelope | {"signatures": [only, second]},
        envelope | {"signatures": [only] * 32},
    ]


def test_alone_they_change_no_policy(victim):
    document = victim.policy | {"maxReleases": 10**6, "replaces": victim.made["policyDigest"]}
    for envelope in signed_twice_by_one(victim, types.POLICY_TYPE, document):
        assert victim.service.call("POST", paths.POLICIES, envelope).status_code in (400, 403)


def test_alone_they_name_no_successors(victim):
    heirs = Custodians(victim.custodians.tenant, count=1)
    document = {
        "apiVersion": "kekkai.dev/custodian-set/v1",
        "tenant": heirs.tenant,
        **heirs.roster(),
        "replaces": victim.made["custodianSet"],
    }
    for envelope in signed_twice_by_one(victim, types.CUSTODIAN_SET_TYPE, document):
        path = paths.CUSTODIANS.format(tenant=heirs.tenant)
        assert victim.service.call("PUT", path, {"envelope": envelope}, "registrar").status_code in (400, 403)


def test_alone_they_destroy_nothing(victim):
    document = {
        "apiVersion": "kekkai.dev/destroy-order/v1",
        "tenant": victim.custodians.tenant,
        "key": victim.key,
        "keyId": victim.made["keyId"],
    }
    for envelope in signed_twice_by_one(victim, types.DESTROY_ORDER_TYPE, document):
        path = paths.KEY_DESTROY.format(namespace=victim.custodians.tenant, name="dataset")
        assert victim.service.call("POST", path, envelope).status_code in (400, 403)
    assert len(victim.secret()) == 32


def test_a_signature_for_one_purpose_serves_no_other(victim):
    """Two custodians signed a policy; the third presents those signatures under another type."""
    envelope = victim.custodians.sign(types.POLICY_TYPE, victim.policy)
    for kind, path in (
        (types.DESTROY_ORDER_TYPE, f"/v1/keys/{victim.key}/destroy"),
        (types.IMPORT_ORDER_TYPE, f"/v1/keys/{victim.key}/import"),
    ):
        assert victim.service.call("POST", path, envelope | {"payloadType": kind}).status_code in (400, 403, 409)
    assert len(victim.secret()) == 32
