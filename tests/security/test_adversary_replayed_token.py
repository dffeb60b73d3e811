"""Adversary: a thief of a guest's attestation token."""

import base64
import json

import pytest

from tests.integration.keymgmt_harness import Guest
from tests.security.conftest import make_victim


def test_it_yields_ciphertext_for_the_attested_key_and_uses_up_a_run(key_service):
    victim = make_victim(key_service, maxReleases=2)
    guest = victim.guest()
    thief = Guest(victim.service)
    thief.token = guest.token
    reply = thief.fetch(victim.key)
    assert reply.status_code == 200
    with pytest.raises(Exception, match=r".+"):
        thief.open(reply)
    assert len(guest.open(reply)) == 32
    assert guest.fetch(victim.key).status_code == 200
    assert guest.fetch(victim.key).status_code == 401  # both runs are used
    entries = victim.entries("release")
    assert len({entry["session"] for entry in entries}) == 1
    assert [entry["count"] for entry in entries] == [1, 2]


def test_it_is_of_no_use_for_another_tenants_key(key_service):
    victim, other = make_victim(key_service, measurement=bytes(48)), make_victim(key_service)
    guest = other.guest()
    assert guest.fetch(victim.key).status_code == 401
    assert victim.denied()[-1] == "RuleNotMet"


def test_it_cannot_be_given_another_public_key(victim):
    guest, thief = victim.guest(), Guest(victim.service)
    head, payload, signature = guest.token.split(".")
    claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    annotated = claims["submods"]["cpu0"]["ear.veraison.annotated-evidence"]
    annotated["runtime_data_claims"]["tee-pubkey"] = thief.jwk
    changed = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
    thief.token = f"{head}.{changed}.{signature}"
    assert thief.fetch(victim.key).status_code == 401
    assert victim.denied()[-1] == "TokenInvalid"
