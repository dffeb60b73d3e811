"""The check that asks a cluster autoscaler for capacity: when it asks, what it makes of each answer."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from operators.workloads.pinning import assign, patch
from operators.workloads.provisioning import (
    Verdict,
    checks_of,
    class_of,
    entry,
    has_room,
    judge,
    request_body,
    request_name,
    template_bodies,
)
from tests.unit.workloads.workload_objects import pod, workload

CHECK = "provisioning-check-capacity"
T0 = datetime(2026, 1, 1, tzinfo=UTC)


def asking(placements: dict[str, int] | None = None, **rest: Any) -> dict[str, Any]:
    return workload(placements, count=3, spec={"admissionChecks": ["budget", CHECK], **rest.pop("spec", {})}, **rest)


def answer(**conditions: str) -> dict[str, Any]:
    found = [
        {"type": kind, "status": "True", "message": message, "lastTransitionTime": "2026-01-01T00:00:00Z"}
        for kind, message in conditions.items()
    ]
    return {"metadata": {"name": "r"}, "status": {"conditions": found}}


def said(
    requests: dict[int, Any], after: float = 0, one: dict[str, Any] | None = None, may_ask: bool = True
) -> Verdict:
    return judge(one or asking(), requests, may_ask, T0 + timedelta(seconds=after))


def test_its_checks_name_the_class() -> None:
    assert checks_of(asking()) == (CHECK,)
    assert class_of(CHECK) == "check-capacity.autoscaling.x-k8s.io"


def test_capacity_is_asked_for_only_within_quota() -> None:
    assert said({}, may_ask=False).create is None
    assert said({}).create == 1
    assert has_room(8, {"H200": 8, "H100": 0}, ["H200"])
    assert not has_room(8, {"H200": 8, "H100": 0}, ["H100"])
    assert has_room(8, {"H200": 8, "H100": 0}, [])
    assert not has_room(9, {"H200": 8}, [])
    assert has_room(0, {}, ["H200"])


@pytest.mark.parametrize(
    ("conditions", "state", "message"),
    [
        ({}, "Pending", "capacity is asked for"),
        ({"Accepted": "seen"}, "Pending", "capacity is asked for: seen"),
        ({"Accepted": "seen", "Provisioned": "3 nodes"}, "Ready", "capacity is there: 3 nodes"),
        (
            {"Provisioned": "x", "BookingExpired": "late"},
            "Pending",
            "the capacity was not used in time; it is asked for anew",
        ),
        ({"Provisioned": "x", "CapacityRevoked": "spot"}, "Pending", "capacity was revoked: spot"),
    ],
)
def test_each_answer_has_its_state(conditions: dict[str, str], state: str, message: str) -> None:
    verdict = said({1: answer(**conditions)})
    assert (verdict.state, verdict.message) == (state, message)
    assert verdict.delete == ((1,) if "Expired" in str(conditions) or "Revoked" in str(conditions) else ())


def test_what_fails_is_asked_for_again_later_each_time_and_rejected_in_the_end() -> None:
    first = said({1: answer(Failed="no quota")}, after=59)
    assert (first.state, first.create, first.again) == ("Pending", None, 1.0)
    assert said({1: answer(Failed="")}, after=60).create == 2
    assert said({1: answer(Failed=""), 2: answer(Failed="")}, after=119).create is None
    assert said({1: answer(Failed=""), 2: answer(Failed="")}, after=120).create == 3
    last = said({n: answer(Failed="no quota") for n in (1, 2, 3)})
    assert (last.state, last.message, last.create) == ("Rejected", "no capacity: no quota, 3 times", None)


def test_making_it_inactive_forgets_all_attempts_and_an_end_tidies_up() -> None:
    off = said({n: answer(Failed="") for n in (1, 2, 3)}, one=asking(spec={"active": False}))
    assert (off.state, off.delete) == ("Pending", (1, 2, 3))
    assert said({1: answer(Provisioned="")}, one=asking({"x": 3}, Finished=True)).delete == (1,)


def test_capacity_that_goes_while_it_runs_puts_it_back() -> None:
    runs = asking({"x": 3})
    assert said({1: answer(Provisioned="")}, one=runs) == Verdict("Ready", "capacity is there", attempt=1)
    assert said({1: answer(Provisioned="", BookingExpired="")}, one=runs).state == "Ready", "it was used in time"
    assert said({1: answer(Provisioned="", CapacityRevoked="")}, one=runs).state == "Retry"
    assert said({}, one=runs).state == "Retry"


def test_the_request_asks_for_the_pods_of_each_set() -> None:
    one = asking()
    body = request_body(one, CHECK, 2)
    (template,) = template_bodies(one, CHECK, 2)
    assert body["spec"] == {
        "provisioningClassName": "check-capacity.autoscaling.x-k8s.io",
        "podSets": [{"podTemplateRef": {"name": template["metadata"]["name"]}, "count": 3}],
    }
    (container,) = template["template"]["spec"]["containers"]
    assert container["resources"] == {
        "requests": {"nvidia.com/gpu": "2", "cpu": "1"},
        "limits": {"nvidia.com/gpu": "2"},
    }
    assert body["metadata"]["ownerReferences"][0]["uid"] == "workload-uid"
    names = {request_name(one, check, attempt) for check in (CHECK, "provisioning-x") for attempt in (1, 2)}
    assert len(names) == 4
    assert all(len(name) < 64 for name in names)


def test_the_entrys_time_changes_with_its_state_only() -> None:
    one = asking()
    first = entry(one, CHECK, Verdict("Pending", "a"), "t1")
    one["status"]["admissionChecks"] = [first]
    again = entry(one, CHECK, Verdict("Pending", "b"), "t2")
    assert again == {"name": CHECK, "state": "Pending", "message": "b", "lastTransitionTime": "t1"}
    assert entry(one, CHECK, Verdict("Ready", ""), "t3")["lastTransitionTime"] == "t3"


def test_its_pods_say_whose_capacity_they_use() -> None:
    one = asking({"x": 3})
    one["status"]["admissionChecks"] = [entry(one, CHECK, said({2: answer(Provisioned="")}), "t")]
    notes = {
        "autoscaling.x-k8s.io/consume-provisioning-request": request_name(one, CHECK, 2),
        "autoscaling.x-k8s.io/provisioning-class-name": "check-capacity.autoscaling.x-k8s.io",
    }
    bare, noted = pod("a"), pod("b", index=1)
    pins = {pin.pod["metadata"]["name"]: pin for pin in assign(one, [bare, noted])[0]}
    assert [pin.annotations for pin in pins.values()] == [notes, notes]
    assert {"op": "add", "path": "/metadata/annotations", "value": notes} in patch(pins["a"])
    added = [each["path"] for each in patch(pins["b"]) if "annotations" in each["path"]]
    assert added == [
        "/metadata/annotations/autoscaling.x-k8s.io~1consume-provisioning-request",
        "/metadata/annotations/autoscaling.x-k8s.io~1provisioning-class-name",
    ]
