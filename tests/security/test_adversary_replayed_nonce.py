"""Adversary: somebody who recorded a guest's answer to a challenge."""

from tests.integration.keymgmt_harness import Guest, paths


def test_an_answer_is_taken_once(victim):
    guest = Guest(victim.service)
    body = guest.attest_body(guest.auth().json()["nonce"])
    assert guest.client.post(paths.KBS_ATTEST, json=body).status_code == 200
    assert guest.client.post(paths.KBS_ATTEST, json=body).json()["detail"] == "attestation failed: NonceReplayed"
    assert victim.denied()[-1] == "NonceReplayed"


def test_an_answer_is_of_no_use_in_another_session(victim):
    recorded = Guest(victim.service)
    body = recorded.attest_body(recorded.auth().json()["nonce"])
    thief = Guest(victim.service)
    thief.auth()
    assert thief.client.post(paths.KBS_ATTEST, json=body).status_code == 401
    assert victim.denied()[-1] == "NonceMismatch"


def test_old_evidence_does_not_answer_a_new_nonce(victim):
    recorded = Guest(victim.service)
    evidence = recorded.evidence(recorded.auth().json()["nonce"])
    thief = Guest(victim.service)
    body = thief.attest_body(thief.auth().json()["nonce"], evidence=evidence)
    assert thief.client.post(paths.KBS_ATTEST, json=body).status_code == 401
    assert victim.denied()[-1] == "NonceMismatch"


def test_a_nonce_of_ones_own_making_is_refused(victim):
    guest = Guest(victim.service)
    guest.auth()
    for nonce in ("A" * 44, "", "A" * 43 + "=", "\x00" * 44):
        assert guest.client.post(paths.KBS_ATTEST, json=guest.attest_body(nonce)).status_code == 401
