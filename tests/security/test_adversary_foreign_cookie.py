"""Adversary: a client with a cookie that is expired, another session's, or made up."""

import time

import pytest

from tests.integration.keymgmt_harness import Guest, Service, paths
from tests.security.conftest import make_victim


@pytest.mark.parametrize("cookie", ["", "0" * 32, "g" * 32, "../../etc/passwd", "0" * 4096])
def test_a_made_up_cookie_is_no_session(victim, cookie):
    guest = Guest(victim.service)
    guest.client.cookies.set(paths.KBS_COOKIE, cookie, path="/kbs", domain="127.0.0.1")
    assert guest.fetch(victim.key, cookie=True).status_code in (400, 401, 431)


def test_a_cookie_before_its_attestation_gives_nothing(victim):
    guest = Guest(victim.service)
    guest.auth()
    assert guest.fetch(victim.key, cookie=True).status_code == 401


def test_a_stolen_cookie_yields_ciphertext_for_the_attested_guest_alone(victim):
    guest = victim.guest()
    thief = Guest(victim.service)
    thief.client.cookies.update(guest.client.cookies)
    reply = thief.fetch(victim.key, cookie=True)
    assert reply.status_code == 200
    assert len(guest.open(reply)) == 32
    with pytest.raises(Exception, match=r".+"):
        thief.open(reply)
    assert victim.entries("release")[-1]["count"] == 1  # and it used up a run, where the owner sees it


def test_an_expired_session_is_over(tmp_path):
    with Service(tmp_path / "s", limits={"sessionSeconds": 10}) as service:
        victim = make_victim(service)
        late = Guest(service)
        body = late.attest_body(late.auth().json()["nonce"])
        cookie = late.client.cookies[paths.KBS_COOKIE]
        guest = victim.guest()
        time.sleep(10.5)
        assert guest.fetch(victim.key, cookie=True).status_code == 401
        # The client drops an expired cookie by itself; one that keeps it is refused all the same.
        late.client.cookies.clear()
        late.client.headers["cookie"] = f"{paths.KBS_COOKIE}={cookie}"
        assert late.client.post(paths.KBS_ATTEST, json=body).status_code == 401
        assert victim.denied()[-1] == "NonceExpired"
