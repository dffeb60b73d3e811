"""Adversary: the cluster's administrator, with every right in the cluster and the operator's token of the key service.

In the custodial profile the key service stands outside. What is left to the administrator is
to stop releases, and that is in the log.
"""

from tests.integration.keymgmt_harness import Custodians, Guest, paths


def test_no_call_weakens_or_replaces_the_policy(victim):
    service, before = victim.service, victim.secret()
    weaker = victim.policy | {"rule": victim.policy["rule"].replace("&& !claims.snp.debug", ""), "maxReleases": 10**6}
    # Not signed, signed by people of its own, signed by one of the victim's (who was talked into it).
    mine = Custodians(victim.custodians.tenant, count=3, threshold=2)
    for envelope in (
        mine.sign("application/vnd.kekkai.release-policy.v1+json", weaker),
        victim.custodians.sign("application/vnd.kekkai.release-policy.v1+json", weaker, signers=1),
    ):
        assert service.call("POST", paths.POLICIES, envelope).json()["reason"] == "QuorumNotMet"
    # A policy that the custodians did sign, for another key of theirs.
    other = victim.custodians.submit(service, weaker | {"keys": [f"{victim.custodians.tenant}/other"]}).json()["digest"]
    reply = service.call("PUT", f"/v1/keys/{victim.key}", victim.custodians.key_body(other), "operator")
    assert reply.json()["reason"] == "PolicyChangeNeedsQuorum"
    assert service.ok("GET", f"/v1/keys/{victim.key}", role="operator")["policyDigest"] == victim.made["policyDigest"]
    assert victim.secret() == before


def test_the_key_cannot_be_taken_over_by_another_tenant(victim):
    thief = Custodians("thief")
    thief.register(victim.service)
    mine = thief.submit(victim.service, thief.policy(victim.key, measurement=bytes(48))).json()["digest"]
    body = thief.key_body(mine)
    reply = victim.service.call("PUT", f"/v1/keys/{victim.key}", body, "operator")
    assert reply.json()["reason"] == "KeyBelongsToAnotherTenant"
    victim.service.call("DELETE", f"/v1/keys/{victim.key}", role="operator")
    assert victim.service.call("PUT", f"/v1/keys/{victim.key}", body, "operator").status_code == 409


def test_new_custodians_need_the_old(victim):
    mine = Custodians(victim.custodians.tenant)
    path = paths.CUSTODIANS.format(tenant=mine.tenant)
    # The operator's token is no registrar's; and the registrar's is of no use either.
    assert victim.service.call("PUT", path, mine.roster(), "operator").status_code == 403
    reply = victim.service.call("PUT", path, mine.roster(), "registrar")
    assert reply.json()["reason"] == "CustodianChangeNeedsQuorum"


def test_a_guest_of_its_own_gets_nothing_and_every_try_is_logged(victim):
    tries = (
        {"measurement": bytes(48)},  # another image
        {"host_data": bytes(32)},  # another configuration of the right image
    )
    for fields in tries:
        assert victim.guest(**fields).fetch(victim.key).status_code == 401
    assert Guest(victim.service, policy=0x30000 | 1 << 19).attest().status_code == 401  # the right image, debuggable
    assert victim.denied()[-3:] == ["RuleNotMet", "RuleNotMet", "DebugAllowed"]


def test_what_it_can_do_is_stop_the_key_and_that_is_logged(victim):
    before = victim.secret()
    victim.service.call("DELETE", f"/v1/keys/{victim.key}", role="operator")
    assert victim.guest().fetch(victim.key).status_code == 401
    assert victim.entries("key-state")[-1]["cause"] == "operator"
    victim.custodians.put_key(victim.service, victim.made["policyDigest"], victim.key)
    assert victim.secret() == before


def test_rotation_and_rewrapping_give_nothing_away(victim):
    before = victim.secret()
    for act in ("rotate", "rewrap"):
        reply = victim.service.call("POST", f"/v1/keys/{victim.key}/{act}", role="operator")
        assert reply.status_code == 200
        assert not {"sealed", "hsmKey", "key"} & set(reply.json())
    guest = victim.guest()
    assert guest.open(guest.fetch(victim.key, kind="key.1")) == before
