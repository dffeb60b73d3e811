"""What a ProtectedKey says, from what the key service answered; and how its replies are read."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from crds.conditions import find
from crds.errors import Unavailable
from crds.protectedkey import ProtectedKey
from operators.keys.decide import REFRESH_SECONDS, again_after, request_for, status_of
from operators.keys.service import KeyServiceRefused, _read

NOW = datetime(2026, 1, 1, tzinfo=UTC)
DIGEST = "sha256:" + "a" * 64
KEY = ProtectedKey.parse(
    {
        "apiVersion": "kekkai.dev/v1alpha1",
        "kind": "ProtectedKey",
        "metadata": {"name": "k", "namespace": "n", "uid": "u", "generation": 3},
        "spec": {"jurisdiction": "JP", "releasePolicy": {"digest": DIGEST}},
    }
)
ANSWER = {
    "keyId": "n/k/1",
    "version": 1,
    "state": "Active",
    "policyDigest": DIGEST,
    "custodianSet": "sha256:" + "c" * 64,
    "releases": 4,
    "logIndex": 17,
}


def verdicts(status: dict[str, Any]) -> dict[str, tuple[str, str]]:
    return {c["type"]: (c["status"], c["reason"]) for c in status["conditions"]}


def refusal(reason: str) -> KeyServiceRefused:
    return KeyServiceRefused(409, "no", where="spec.releasePolicy.digest", fix="ask the custodians", reason=reason)


def test_the_tenant_is_the_namespaces_not_the_objects() -> None:
    assert request_for(KEY, "owner-of-namespace")["tenant"] == "owner-of-namespace"


def test_an_active_key() -> None:
    status = status_of(KEY, {}, ANSWER, None, NOW)
    assert verdicts(status) == {
        "Ready": ("True", "Active"),
        "Sealed": ("True", "Sealed"),
        "PolicyAccepted": ("True", "Bound"),
    }
    assert (status["keyID"], status["releases"], status["logIndex"]) == ("n/k/1", 4, 17)
    assert status["observedGeneration"] == 3


@pytest.mark.parametrize("state", ["Suspended", "Deactivated", "Compromised"])
def test_a_key_that_gives_nothing_is_not_ready_and_still_sealed(state: str) -> None:
    found = verdicts(status_of(KEY, {}, ANSWER | {"state": state}, None, NOW))
    assert found["Ready"] == ("False", state)
    assert found["Sealed"][0] == "True"


@pytest.mark.parametrize(("state", "reason"), [("PreActivation", "AwaitingImport"), ("Destroyed", "Destroyed")])
def test_a_key_without_material_is_not_sealed(state: str, reason: str) -> None:
    found = verdicts(status_of(KEY, {}, ANSWER | {"state": state}, None, NOW))
    assert found["Ready"] == ("False", reason)
    assert found["Sealed"] == ("False", reason)


def test_an_edited_policy_is_refused_and_the_key_stays_usable_under_the_old_one() -> None:
    status = status_of(KEY, {}, ANSWER, refusal("PolicyChangeNeedsQuorum"), NOW)
    found = verdicts(status)
    assert found["PolicyAccepted"] == ("False", "PolicyChangeNeedsQuorum")
    assert found["Ready"] == ("True", "Active")
    assert status["policyDigest"] == DIGEST
    message = find(status["conditions"], "PolicyAccepted")
    assert message is not None
    assert "spec.releasePolicy.digest" in message["message"]
    assert "ask the custodians" in message["message"]


def test_a_key_of_another_tenant_tells_nothing_of_it() -> None:
    status = status_of(KEY, {}, {}, refusal("KeyBelongsToAnotherTenant"), NOW)
    assert verdicts(status)["Ready"] == ("False", "KeyBelongsToAnotherTenant")
    assert status["keyID"] == status["custodianSet"] == ""
    assert status["releases"] == 0


def test_the_same_answer_makes_the_same_status() -> None:
    first = status_of(KEY, {}, ANSWER, None, NOW)
    assert status_of(KEY, first, ANSWER, None, NOW + timedelta(hours=1)) == first


def test_what_nobody_mends_is_asked_for_less_and_less() -> None:
    active = status_of(KEY, {}, ANSWER, None, NOW)
    assert again_after(active, False, NOW) == REFRESH_SECONDS
    waiting = status_of(KEY, {}, ANSWER | {"state": "PreActivation"}, None, NOW)
    edited = status_of(KEY, {}, ANSWER, refusal("PolicyNotFound"), NOW)
    for status, refused in ((waiting, False), (edited, True)):
        waits = [again_after(status, refused, NOW + timedelta(seconds=s)) for s in (0, 60, 3600)]
        assert waits == [2.0, 12.0, 60.0]


class TestReplies:
    def test_a_refusal_keeps_the_services_own_words(self) -> None:
        body = {"reason": "PolicyNotFound", "what": "w", "where": "x", "fix": "f"}
        with pytest.raises(KeyServiceRefused) as caught:
            _read(409, json.dumps(body).encode(), "/p")
        assert caught.value.problem.as_dict() == body
        assert caught.value.status == 409

    @pytest.mark.parametrize("reason", ["", "not a reason", "x" * 100, "1st", None, {"a": 1}])
    def test_a_reason_that_no_condition_may_have_is_not_taken_over(self, reason: Any) -> None:
        with pytest.raises(KeyServiceRefused) as caught:
            _read(403, json.dumps({"reason": reason}).encode(), "/p")
        assert caught.value.problem.reason == "Refused"

    @pytest.mark.parametrize("data", [b"", b"[]", b"<html>", b"[" * 60_000, b"\xff\xfe"])
    def test_what_is_not_an_object_is_no_answer(self, data: bytes) -> None:
        if data:
            with pytest.raises(Unavailable):
                _read(200, data, "/p")
        with pytest.raises(Unavailable):
            _read(503, data, "/p")
        with pytest.raises(KeyServiceRefused):
            _read(404, data, "/p")
