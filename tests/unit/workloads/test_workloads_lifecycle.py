"""The state machine of a Workload, as a pure function."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from crds.conditions import find
from operators.planning.decisions import Admitted, Moved
from operators.workloads.lifecycle import Outcome, View, decide
from scheduler import Admission, Move, Placed, Reason
from scheduler.explain.reasons import node_replaced
from scheduler.objects.fleet_objects import pod_sets
from scheduler.objects.job_shape import Shape, shape_of
from tests.unit.workloads.workload_objects import NAME, job, pod, workload

NOW = datetime(2026, 1, 1, 1, tzinfo=UTC)


def view(one: dict[str, Any], its_job: dict[str, Any] | None = None, **rest: Any) -> View:
    given = {
        "workload": one,
        "job": its_job if its_job is not None else job(),
        "pods": [],
        "shape": shape_of(its_job if its_job is not None else job()),
        "namespace_ready": True,
        "admitted": None,
        "eviction": None,
        "waiting": (),
        "node_exists": lambda node: True,
        "now": NOW,
    }
    return View(**{**given, **rest})


def condition(outcome: Outcome, kind: str) -> tuple[str, str]:
    assert outcome.status is not None
    found = find(outcome.status["conditions"], kind)
    assert found is not None, kind
    return found["status"], found["reason"]


def decision(one: dict[str, Any], *nodes: str) -> Admitted:
    placements = tuple(Placed("main", node, 1) for node in nodes)
    return Admitted("workload-uid", pod_sets(one), Admission(f"a/{NAME}", "H200", "p", placements), NOW.timestamp())


def test_a_wait_keeps_the_job_suspended_and_says_why() -> None:
    why = Reason("QuotaExceeded", "tenant t uses 8 of 8", "wait")
    outcome = decide(view(workload(), job(suspend=False), waiting=(why,)))
    assert outcome.suspend is True
    assert condition(outcome, "Admitted") == ("False", "QuotaExceeded")
    assert outcome.status is not None
    assert outcome.status["reasons"] == [{"code": "QuotaExceeded", "message": why.message, "nearest": "wait"}]
    assert {c["type"] for c in outcome.status["conditions"]} == {
        "Ready",
        "Admitted",
        "PodsReady",
        "Finished",
        "Evicted",
    }


def test_admission_is_written_with_all_conditions_before_the_job_starts() -> None:
    one = workload()
    outcome = decide(view(one, admitted=decision(one, "x")))
    assert outcome.status is not None
    assert outcome.status["admission"]["placements"] == [{"podSet": "main", "node": "x", "count": 1}]
    assert "reasons" not in outcome.status
    assert condition(outcome, "Admitted") == ("True", "Admitted")
    assert outcome.suspend is False


def test_a_decision_about_other_pods_or_another_object_is_void() -> None:
    one = workload()
    for stale in (replace(decision(one, "x"), pod_sets=()), replace(decision(one, "x"), uid="older")):
        outcome = decide(view(one, admitted=stale))
        assert outcome.status is not None
        assert "admission" not in outcome.status
        assert outcome.suspend is True


def test_nothing_is_admitted_in_a_namespace_that_is_not_ready_or_ungated() -> None:
    one = workload()
    late = decide(view(one, admitted=decision(one, "x"), namespace_ready=False))
    assert condition(late, "Admitted") == ("False", "NamespaceNotReady")
    ungated = Shape(refusal=Reason("NotGated", "no gate", "make it again"))
    outcome = decide(view(one, admitted=decision(one, "x"), shape=ungated))
    assert condition(outcome, "Admitted") == ("False", "NotGated")
    assert outcome.suspend is True


def test_an_admitted_workload_starts_and_pins() -> None:
    outcome = decide(view(workload({"x": 1}), job(suspend=False), pods=[pod("a")]))
    assert outcome.suspend is False
    assert [(pin.pod["metadata"]["name"], pin.node) for pin in outcome.pins] == [("a", "x")]


def test_pods_ready_when_all_admitted_are_up_or_done() -> None:
    one = workload({"x": 2}, count=2)
    assert condition(decide(view(one, job(2, 2, False, ready=1))), "PodsReady") == ("False", "Starting")
    assert condition(decide(view(one, job(2, 2, False, ready=1, succeeded=1))), "Ready") == ("True", "PodsReady")


def test_a_lost_node_evicts_unless_its_pod_has_succeeded() -> None:
    def gone(node: str) -> bool:
        return node != "x"

    one = workload({"x": 1, "y": 1}, count=2)
    lost = decide(view(one, job(2, 2, False), pods=[pod("a", "x", "Running")], node_exists=gone))
    assert condition(lost, "Evicted") == ("True", "NodeLost")
    assert lost.suspend is True
    assert [p["metadata"]["name"] for p in lost.bury] == ["a"]
    done = [pod("a", "x", "Succeeded"), pod("b", "y", "Running")]
    kept = decide(view(one, job(2, 2, False, succeeded=1), pods=done, node_exists=gone))
    assert condition(kept, "Evicted")[0] == "False"


def test_eviction_holds_the_admission_until_its_pods_are_gone() -> None:
    one = workload({"x": 1}, Evicted=True)
    running = decide(view(one, job(suspend=False), pods=[pod("a", "x", "Running")]))
    assert running.suspend is True
    assert running.status is None
    terminating = decide(view(one, job(suspend=True), pods=[pod("a", "x", "Running")]))
    assert terminating.status is None
    gone = decide(view(one, job(suspend=True)))
    assert gone.status is not None
    assert "admission" not in gone.status
    assert condition(gone, "Admitted") == ("False", "Evicted")
    assert condition(gone, "Evicted")[0] == "True"


def test_after_an_eviction_it_can_be_admitted_again() -> None:
    one = workload(Evicted=True, Admitted=False)
    outcome = decide(view(one, admitted=decision(one, "y")))
    assert condition(outcome, "Evicted") == ("False", "NotEvicted")
    assert condition(outcome, "Admitted")[0] == "True"


def test_active_false_stops_what_runs_and_keeps_what_waits() -> None:
    running = workload({"x": 1})
    running["spec"]["active"] = False
    assert condition(decide(view(running, job(suspend=False))), "Evicted") == ("True", "Inactive")
    waiting = workload()
    waiting["spec"]["active"] = False
    outcome = decide(view(waiting, admitted=decision(waiting, "x")))
    assert condition(outcome, "Admitted") == ("False", "Inactive")


def test_a_job_that_asks_for_more_before_it_starts_is_queued_again() -> None:
    outcome = decide(view(workload({"x": 1}), job(4, 4, suspend=True)))
    assert condition(outcome, "Evicted") == ("True", "PodsChanged")
    fewer = decide(view(workload({"x": 4}, count=4), job(4, 4, True, succeeded=2)))
    assert fewer.suspend is False


def test_the_end_is_written_once() -> None:
    ended = {"conditions": [{"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded", "message": "m"}]}
    outcome = decide(view(workload({"x": 1}), job(1, 1, False, **ended)))
    assert condition(outcome, "Finished") == ("True", "BackoffLimitExceeded")
    assert condition(outcome, "Ready") == ("False", "BackoffLimitExceeded")
    assert outcome.status is not None
    assert outcome.status["admission"]["placements"]
    complete = {"conditions": [{"type": "Complete", "status": "True", "reason": "CompletionsReached", "message": ""}]}
    assert condition(decide(view(workload({"x": 1}), job(1, 1, False, **complete))), "Ready") == ("True", "Succeeded")
    assert decide(view(workload({"x": 1}, Finished=True), job())) == Outcome()


def test_a_shadow_without_its_job_is_left_to_the_garbage_collector() -> None:
    assert decide(replace(view(workload({"x": 1})), job=None)) == Outcome()


def test_a_job_of_the_same_name_that_it_did_not_make_is_named_as_the_reason() -> None:
    one = workload()
    one["spec"] = {**one["spec"], "ref": None, "job": {"spec": {}}}
    outcome = decide(replace(view(one), job=None, name_taken=True))
    assert condition(outcome, "Admitted") == ("False", "JobNameTaken")


def test_the_place_in_the_line_is_written_with_other_news_only() -> None:
    why = Reason("QuotaExceeded", "tenant t uses 8 of 8", "wait")
    one = workload()
    first = decide(view(one, waiting=(why,), position=lambda: 7))
    assert first.status is not None
    assert first.status["position"] == 7
    one["status"] = first.status
    same = decide(view(one, waiting=(why,), position=lambda: 3))
    assert same.status == first.status
    other = decide(view(one, waiting=(replace(why, message="tenant t uses 6 of 8"),), position=lambda: 3))
    assert other.status is not None
    assert other.status["position"] == 3
    started = decide(view(one, admitted=decision(one, "x"), position=lambda: 1))
    assert started.status is not None
    assert "position" not in started.status


def test_an_admission_in_part_starts_as_many_pods_and_waits_for_no_more() -> None:
    one = workload(count=4)
    one["spec"]["podSets"][0]["minCount"] = 2
    outcome = decide(view(one, job(4, 8), admitted=decision(one, "x", "y", "z")))
    assert outcome.counts == {"main": 3}
    assert outcome.suspend is False
    runs = workload({"x": 1, "y": 1, "z": 1}, count=4)
    up = decide(view(runs, job(3, 8, False, ready=3)))
    assert condition(up, "PodsReady") == ("True", "PodsReady")
    assert up.counts == {"main": 3}
    # It is suspended still, and asks for all of its pods: that is what was admitted, in part.
    assert condition(decide(view(runs, job(4, 8, True))), "PodsReady") == ("False", "Starting")


def on(node: str) -> bool:
    """All nodes exist but x."""
    return node != "x"


def move(*nodes: str, uid: str = "workload-uid") -> Moved:
    places = tuple(Placed("main", node, 1) for node in nodes)
    return Moved(uid, Move(f"a/{NAME}", ("x",), places, node_replaced(["x"])))


def test_lost_pods_of_a_movable_one_wait_for_the_planner_while_others_run() -> None:
    pods = [pod("a", "x", "Running"), pod("b", "y", "Running")]
    one = workload({"x": 1, "y": 1}, count=2)
    undecided = decide(view(one, job(2, 2, False), pods=pods, node_exists=on, movable=True))
    assert condition(undecided, "Evicted")[0] == "False"
    assert undecided.bury == ()
    alone = decide(view(workload({"x": 2}, count=2), job(2, 2, False), pods=pods[:1], node_exists=on, movable=True))
    assert condition(alone, "Evicted") == ("True", "NodeLost")
    why = Reason("NodeLost", "node x is gone", "")
    refused = decide(view(one, job(2, 2, False), pods=pods, node_exists=on, movable=True, eviction=why))
    assert condition(refused, "Evicted") == ("True", "NodeLost")
    assert [p["metadata"]["name"] for p in refused.bury] == ["a"]


def test_a_move_is_written_and_its_dead_pods_are_buried() -> None:
    pods = [pod("a", "x", "Running"), pod("b", "y", "Running")]
    one = workload({"x": 1, "y": 1}, count=2)
    moved = decide(view(one, job(2, 2, False), pods=pods, node_exists=on, movable=True, moved=move("y", "z")))
    assert moved.status is not None
    assert [p["node"] for p in moved.status["admission"]["placements"]] == ["y", "z"]
    assert condition(moved, "Admitted")[0] == "True"
    assert condition(moved, "Evicted")[0] == "False"
    assert (moved.suspend, [p["metadata"]["name"] for p in moved.bury]) == (False, ["a"])
    assert moved.event is not None
    assert moved.event.code == "NodeReplaced"


def test_after_a_move_the_new_pod_goes_to_the_new_place_and_what_was_left_behind_is_buried() -> None:
    one = workload({"y": 1, "z": 1}, count=2)
    pods = [pod("a", "x", "Running"), pod("b", "y", "Running"), pod("c")]
    outcome = decide(view(one, job(2, 2, False), pods=pods, node_exists=on, movable=True))
    assert condition(outcome, "Evicted")[0] == "False"
    assert [(pin.pod["metadata"]["name"], pin.node) for pin in outcome.pins] == [("c", "z")]
    assert [p["metadata"]["name"] for p in outcome.bury] == ["a"]


def test_a_move_of_another_object_or_to_a_node_that_is_gone_too_is_not_made() -> None:
    one, pods = workload({"x": 1, "y": 1}, count=2), [pod("a", "x", "Running"), pod("b", "y", "Running")]
    for stale in (move("y", "z", uid="other"), move("x", "y")):
        outcome = decide(view(one, job(2, 2, False), pods=pods, node_exists=on, movable=True, moved=stale))
        assert outcome.status is not None
        assert [p["node"] for p in outcome.status["admission"]["placements"]] == ["x", "y"]
