"""Workloads that another controller runs: one write admits, its word ends and stops them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from crds.conditions import find
from operators.planning.decisions import Admitted
from operators.planning.ownership import runs_elsewhere
from operators.workloads.external import STOPPED, decide
from operators.workloads.lifecycle import View
from scheduler import Admission, Placed, Reason
from scheduler.objects.fleet_objects import pod_sets
from scheduler.objects.job_shape import Shape

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ADMISSION = {"accelerator": "H200", "admittedAt": "2026-01-01T00:00:00Z", "placements": []}


def workload(status: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    ref = {"apiVersion": "bench.example/v1", "kind": "Task", "name": "t", "uid": "1"}
    sets = [{"name": "main", "count": 2, "requests": {"nvidia.com/gpu": "1"}}]
    return {
        "apiVersion": "kekkai.dev/v1alpha1",
        "kind": "Workload",
        "metadata": {"name": "w", "namespace": "a", "uid": "u", "resourceVersion": "5", "generation": 1},
        "spec": {"ref": ref, "tenant": "a", "podSets": sets, **spec},
        "status": status or {},
    }


def admitted(obj: dict[str, Any]) -> Admitted:
    decision = Admission("a/w", "H200", "h200", (Placed("main", "n1", 2),))
    return Admitted("u", pod_sets(obj), decision, NOW.timestamp())


def view(obj: dict[str, Any], **over: Any) -> View:
    given: dict[str, Any] = {
        "workload": obj,
        "job": None,
        "pods": (),
        "shape": Shape(),
        "namespace_ready": True,
        "admitted": None,
        "eviction": None,
        "waiting": (),
        "node_exists": lambda node: True,
        "now": NOW,
    }
    return View(**(given | over))


def condition(kind: str, status: str, reason: str = "Test") -> dict[str, Any]:
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }


def running(*more: dict[str, Any], placements: tuple[dict[str, Any], ...] = ()) -> dict[str, Any]:
    return {
        "admission": {**ADMISSION, "placements": list(placements)},
        "conditions": [condition("Ready", "True"), condition("Admitted", "True"), *more],
    }


@pytest.mark.parametrize(
    ("api", "elsewhere"),
    [
        ("bench.example/v1", True),
        ("batch/v1", False),
        ("v1", False),
        ("ray.io/v1", False),
        ("kekkai.dev/v1alpha1", False),
    ],
)
def test_only_kinds_of_other_groups_run_elsewhere(api: str, elsewhere: bool) -> None:
    obj = workload()
    obj["spec"]["ref"]["apiVersion"] = api
    assert runs_elsewhere(obj) is elsewhere


def test_the_admission_is_one_write_and_starts_nothing() -> None:
    obj = workload()
    outcome = decide(view(obj, admitted=admitted(obj)))
    assert outcome.status is not None
    assert outcome.status["admission"]["placements"] == [{"podSet": "main", "node": "n1", "count": 2}]
    assert [one["type"] for one in outcome.status["conditions"]] == ["Ready", "Admitted"]
    assert outcome.suspend is None
    assert outcome.pins == ()


def test_an_admitted_one_is_left_alone() -> None:
    assert decide(view(workload(running()))).status is None


def test_one_that_ended_is_left_alone() -> None:
    assert decide(view(workload(running(condition("Finished", "True"))), eviction=Reason("X", ""))).status is None


def test_a_decision_about_other_pods_is_void() -> None:
    obj = workload()
    decision = admitted(obj)
    obj["spec"]["podSets"][0]["count"] = 3
    outcome = decide(view(obj, admitted=decision))
    assert outcome.status is not None
    assert "admission" not in outcome.status


@pytest.mark.parametrize(
    ("spec", "over", "reason"),
    [
        ({}, {"eviction": Reason("Preempted", "for another")}, "Preempted"),
        ({"active": False}, {}, "Inactive"),
        ({}, {"node_exists": lambda node: False}, "NodeLost"),
    ],
)
def test_it_is_evicted_and_keeps_its_admission_until_it_has_stopped(
    spec: dict[str, Any], over: dict[str, Any], reason: str
) -> None:
    place = {"podSet": "main", "node": "n1", "count": 2}
    outcome = decide(view(workload(running(placements=(place,)), **spec), **over))
    assert outcome.status is not None
    evicted = find(outcome.status["conditions"], "Evicted")
    assert evicted is not None
    assert (evicted["status"], evicted["reason"]) == ("True", reason)
    assert outcome.status["admission"]["placements"] == [place]


def test_nothing_is_taken_back_before_its_controller_says_that_it_stopped() -> None:
    evicted = condition("Evicted", "True", "Preempted")
    assert decide(view(workload(running(evicted)))).status is None
    assert decide(view(workload(running(evicted, condition("PodsReady", "False", "Starting"))))).status is None


def test_once_stopped_it_waits_again_and_starts_afresh() -> None:
    status = running(condition("Evicted", "True", "Preempted"), condition("PodsReady", "False", STOPPED))
    given_back = decide(view(workload(status))).status
    assert given_back is not None
    assert "admission" not in given_back
    assert given_back["reasons"][0]["code"] == "Preempted"
    obj = workload(given_back)
    again = decide(view(obj, admitted=admitted(obj))).status
    assert again is not None
    kinds = {one["type"]: (one["status"], one["reason"]) for one in again["conditions"]}
    assert kinds["Evicted"] == ("False", "NotEvicted")
    assert kinds["PodsReady"] == ("False", "Starting")
    assert kinds["Admitted"][0] == "True"


def test_it_says_why_it_waits() -> None:
    outcome = decide(view(workload(), waiting=(Reason("QuotaExceeded", "uses 8 of 8", "wait"),)))
    assert outcome.status is not None
    assert outcome.status["reasons"] == [{"code": "QuotaExceeded", "message": "uses 8 of 8", "nearest": "wait"}]
    blocked = decide(view(workload(), namespace_ready=False)).status
    assert blocked is not None
    assert blocked["reasons"][0]["code"] == "NamespaceNotReady"
