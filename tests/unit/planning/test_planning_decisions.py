"""The desk: who is told what, and when."""

from __future__ import annotations

import pytest

from operators.planning import decisions as module
from operators.planning.decisions import Decisions
from scheduler import Reason


class Clock:
    """Stands for the monotonic clock."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    one = Clock()
    monkeypatch.setattr(module, "time", one)
    return one


def test_a_new_code_is_told_at_once_and_new_words_seldom(clock: Clock) -> None:
    desk, told = Decisions(), []
    desk.listen("workload", told.append)
    desk.wait("a/b", (Reason("QuotaExceeded", "uses 8 of 8"),), 5.0)
    assert told == ["a/b"]
    desk.wait("a/b", (Reason("QuotaExceeded", "uses 7 of 8"),), 5.0)
    assert told == ["a/b"]
    assert desk.tell_stale() == 5.0
    clock.now += 5.0
    assert desk.tell_stale() is None
    assert told == ["a/b", "a/b"]
    desk.wait("a/b", (Reason("MachinesComing", "1 machine"),), 5.0)
    assert len(told) == 3
    assert desk.waiting["a/b"][0].code == "MachinesComing"


def test_what_is_forgotten_is_told_no_more(clock: Clock) -> None:
    desk, told = Decisions(), []
    desk.listen("workload", told.append)
    desk.wait("a/b", (Reason("X", "1"),), 5.0)
    desk.wait("a/b", (Reason("X", "2"),), 5.0)
    desk.forget("a/b")
    clock.now += 10
    assert desk.tell_stale() is None
    assert told == ["a/b"]
    assert desk.waiting == {}
