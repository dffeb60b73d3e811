"""Adversary: a thief of the operators' bearer token, anywhere on the network."""

import pytest

from tests.integration.keymgmt_harness import TOKENS, paths


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", paths.RELEASES),
        ("PUT", "/v1/custodians/{tenant}"),
        ("POST", "/v1/keys/{key}/destroy"),
        ("POST", "/v1/keys/{key}/import"),
        ("POST", paths.POLICIES),
        ("POST", "/v1/transit/{key}/decrypt"),
        ("POST", "/v1/transit/{key}/data-key"),
    ],
)
def test_it_opens_no_route_that_is_not_the_operators(victim, method, path):
    url = path.format(tenant=victim.custodians.tenant, key=victim.key)
    assert victim.service.call(method, url, {}, "operator").status_code in (400, 401, 403)
    assert victim.service.ok("GET", f"/v1/keys/{victim.key}", role="operator")["state"] == "Active"


def test_it_is_no_attestation_token(victim):
    headers = {"Authorization": f"Bearer {TOKENS['operator']}"}
    reply = victim.service.client.get(f"/kbs/v0/resource/{victim.key.replace('/', '/key/')}", headers=headers)
    assert reply.status_code == 401
    assert victim.denied()[-1] == "TokenInvalid"


def test_no_reply_to_it_holds_key_material(victim):
    secret = victim.secret()
    for method, path in (
        ("GET", f"/v1/keys/{victim.key}"),
        ("GET", paths.KEYS),
        ("GET", paths.STATUS),
        ("POST", f"/v1/keys/{victim.key}/rotate"),
        ("POST", f"/v1/keys/{victim.key}/rewrap"),
    ):
        content = victim.service.call(method, path, role="operator").content
        assert secret not in content
        assert secret.hex().encode() not in content.lower()


def test_its_acts_are_in_the_log(victim):
    victim.service.call("POST", f"/v1/keys/{victim.key}/rotate", role="operator")
    body = {"state": "Deactivated", "cause": "mischief"}
    victim.service.call("POST", f"/v1/keys/{victim.key}/state", body, "operator")
    assert victim.entries("key-rotated")[-1]["cause"] == "operator"
    assert victim.entries("key-state")[-1]["cause"] == "mischief"
