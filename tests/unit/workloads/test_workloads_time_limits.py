"""Pods that are not ready in time, runs over their limit, checks that say no: stop, put back, stay out."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from operators.planning.outlook import next_requeue, shut_out
from operators.workloads.lifecycle import Outcome, decide
from tests.unit.workloads.test_workloads_lifecycle import condition, view
from tests.unit.workloads.workload_objects import job, pod, workload

START = datetime(2026, 1, 1, tzinfo=UTC)  # when the objects' admission was written
READY = {"timeoutSeconds": 60, "backoffBaseSeconds": 10, "backoffMaxSeconds": 35}


def visit(one: dict[str, Any], after: float, its_job: dict[str, Any] | None = None) -> Outcome:
    return decide(view(one, its_job or job(1, 1, False), pods=[pod("a", "x")], now=START + timedelta(seconds=after)))


def test_pods_that_do_not_come_up_in_time_are_stopped_and_put_back_later_each_time() -> None:
    one = workload({"x": 1}, spec={"podsReady": READY})
    early = visit(one, 59)
    assert condition(early, "PodsReady") == ("False", "Starting")
    assert early.again == pytest.approx(1.05)
    late = visit(one, 60)
    assert condition(late, "Evicted") == ("True", "PodsReadyTimeout")
    assert late.suspend
    assert late.status is not None
    assert late.status["requeue"] == {"count": 1, "notBefore": "2026-01-01T00:01:10Z"}
    pauses = []
    for count in range(5):
        one["status"]["requeue"] = {"count": count, "notBefore": "2026-01-01T00:00:00Z"}
        due = datetime.fromisoformat(next_requeue(one, START)["notBefore"])
        pauses.append((due - START).total_seconds())
    assert pauses == [10, 20, 35, 35, 35]


def test_the_count_is_kept_while_it_waits_and_starts_anew_once_its_pods_were_ready() -> None:
    one = workload(spec={"podsReady": READY})
    one["status"]["requeue"] = {"count": 2, "notBefore": "2026-01-01T00:00:20Z"}
    waiting = visit(one, 1)
    assert waiting.status is not None
    assert waiting.status["requeue"]["count"] == 2
    running = workload({"x": 1}, spec={"podsReady": READY})
    running["status"]["requeue"] = one["status"]["requeue"]
    up = visit(running, 30, job(1, 1, False, ready=1))
    assert up.status is not None
    assert "requeue" not in up.status


def test_beyond_the_limit_it_stays_out_until_somebody_makes_it_active_again() -> None:
    one = workload(spec={"podsReady": {**READY, "backoffLimit": 1}})
    one["status"]["requeue"] = {"count": 1, "notBefore": "2026-01-01T00:00:00Z"}
    assert shut_out(one) is None
    one["status"]["requeue"] = {"count": 2, "notBefore": "2026-01-01T00:00:00Z"}
    out = visit(one, 99)
    assert condition(out, "Admitted") == ("False", "RequeueLimitExceeded")
    one["spec"]["active"] = False
    off = visit(one, 100)
    assert condition(off, "Admitted") == ("False", "Inactive")
    assert off.status is not None
    assert "requeue" not in off.status


def test_pods_that_were_ready_have_their_own_patience() -> None:
    one = workload({"x": 1}, spec={"podsReady": {**READY, "recoveryTimeoutSeconds": 5}}, PodsReady=True)
    fell = visit(one, 1000)
    assert condition(fell, "PodsReady") == ("False", "Recovering")
    assert fell.status is not None
    assert fell.again == pytest.approx(5.05)
    one["status"] = fell.status
    assert condition(visit(one, 1004), "PodsReady") == ("False", "Recovering")
    assert condition(visit(one, 1005), "Evicted") == ("True", "PodsReadyTimeout")
    del one["spec"]["podsReady"]["recoveryTimeoutSeconds"]
    assert condition(visit(one, 9999), "PodsReady") == ("False", "Recovering")


def test_its_time_is_up_over_all_its_runs() -> None:
    one = workload({"x": 1}, spec={"maximumRuntimeSeconds": 100}, PodsReady=True)
    one["status"]["pastRuntimeSeconds"] = 40
    assert visit(one, 59).again == pytest.approx(1.05)
    over = visit(one, 60)
    assert condition(over, "Evicted") == ("True", "MaximumRuntimeExceeded")
    assert over.status is not None
    assert over.status["pastRuntimeSeconds"] == 100
    waits = workload(spec={"maximumRuntimeSeconds": 100})
    waits["status"]["pastRuntimeSeconds"] = 100
    assert condition(visit(waits, 61), "Admitted") == ("False", "MaximumRuntimeExceeded")
    waits["spec"]["maximumRuntimeSeconds"] = 200
    assert condition(visit(waits, 62), "Admitted") == ("False", "Queued")


def test_an_eviction_for_another_reason_counts_the_time_that_it_ran() -> None:
    one = workload({"x": 1}, spec={"maximumRuntimeSeconds": 100, "active": False})
    out = visit(one, 30)
    assert condition(out, "Evicted") == ("True", "Inactive")
    assert out.status is not None
    assert out.status["pastRuntimeSeconds"] == 30


@pytest.mark.parametrize(("state", "code"), [("Retry", "AdmissionCheckRetry"), ("Rejected", "AdmissionCheckRejected")])
def test_a_check_that_takes_its_word_back_stops_it(state: str, code: str) -> None:
    checks = [{"name": "budget", "state": state, "message": "spent"}]
    one = workload({"x": 1}, spec={"admissionChecks": ["budget"]})
    one["status"]["admissionChecks"] = checks
    assert condition(visit(one, 1), "Evicted") == ("True", code)
    waits = workload(spec={"admissionChecks": ["budget"]})
    waits["status"]["admissionChecks"] = checks
    expected = "AdmissionCheckRejected" if state == "Rejected" else "Queued"
    assert condition(visit(waits, 1), "Admitted") == ("False", expected)
    unnamed = workload({"x": 1})
    unnamed["status"]["admissionChecks"] = checks
    assert condition(visit(unnamed, 1), "PodsReady") == ("False", "Starting"), "it names no check"
