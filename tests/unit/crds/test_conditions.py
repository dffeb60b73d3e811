from __future__ import annotations

from datetime import UTC, datetime, timedelta

from crds.conditions import is_true, set_condition

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def test_the_same_observation_gives_an_equal_list() -> None:
    first = set_condition([], "Ready", True, "AllGood", "fine", NOW, 3)
    assert set_condition(first, "Ready", True, "AllGood", "fine", NOW + timedelta(hours=1), 3) == first


def test_transition_time_moves_only_when_the_status_flips() -> None:
    later = NOW + timedelta(minutes=5)
    first = set_condition([], "Ready", False, "Starting", "", NOW)
    same = set_condition(first, "Ready", False, "StillStarting", "", later)
    flipped = set_condition(same, "Ready", True, "Up", "", later)
    assert same[0]["lastTransitionTime"] == "2026-01-02T03:04:05Z"
    assert flipped[0]["lastTransitionTime"] == "2026-01-02T03:09:05Z"


def test_ready_comes_first_and_the_others_by_name() -> None:
    conditions = set_condition([], "Registered", True, "R", "", NOW)
    conditions = set_condition(conditions, "Ready", None, "Unknown", "", NOW)
    conditions = set_condition(conditions, "Launched", True, "L", "", NOW)
    assert [c["type"] for c in conditions] == ["Ready", "Launched", "Registered"]
    assert conditions[0]["status"] == "Unknown"


def test_is_true_reads_an_object() -> None:
    conditions = set_condition([], "Admitted", True, "Fits", "", NOW)
    assert is_true({"status": {"conditions": conditions}}, "Admitted")
    assert not is_true({"status": {"conditions": conditions}}, "Ready")
    assert not is_true({}, "Ready")
