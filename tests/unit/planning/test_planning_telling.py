"""Who is told why it waits, and when."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from operators.planning import telling as module
from operators.planning.decisions import Decisions
from scheduler import Reason, Waiting


class Clock:
    """Stands for the monotonic clock."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now


class Words:
    """The reasons of a plan."""

    def __init__(self, **codes: str) -> None:
        self.codes = codes

    def __iter__(self) -> Iterator[Waiting]:
        return iter(())

    def __len__(self) -> int:
        return len(self.codes)

    def of(self, key: str) -> tuple[Reason, ...] | None:
        code, _, words = self.codes.get(key, "").partition(":")
        return (Reason(code, words),) if code else None


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    one = Clock()
    monkeypatch.setattr(module, "time", one)
    return one


@pytest.fixture
def desk() -> Decisions:
    return Decisions()


@pytest.fixture
def told(desk: Decisions) -> list[str]:
    found: list[str] = []
    desk.listen("workload", found.append)
    return found


def test_what_is_admitted_soon_is_told_nothing(clock: Clock, desk: Decisions, told: list[str]) -> None:
    desk.telling.queued("a")
    desk.telling.planned()
    assert desk.telling.go(Words(a="QuotaExceeded")) == pytest.approx(1.5)
    clock.now += 1.0
    desk.telling.forget("a")
    clock.now += 10.0
    assert desk.telling.go(Words(a="QuotaExceeded")) is None
    assert told == []


def test_another_code_is_told_soon_and_other_words_seldom(clock: Clock, desk: Decisions, told: list[str]) -> None:
    desk.telling.queued("a")
    clock.now += 1.5
    desk.telling.go(Words(a="QuotaExceeded:uses 8 of 8"))
    assert told == ["a"]
    clock.now += 1.0
    desk.telling.planned()
    desk.telling.go(Words(a="QuotaExceeded:uses 7 of 8"))
    assert told == ["a"]
    assert desk.waiting["a"][0].message == "uses 8 of 8"
    clock.now += 5.0
    desk.telling.planned()
    desk.telling.go(Words(a="QuotaExceeded:uses 6 of 8"))
    assert told == ["a", "a"]
    clock.now += 0.5
    desk.telling.planned()
    desk.telling.go(Words(a="MachinesComing:1 machine"))
    assert told == ["a", "a", "a"]
    assert desk.waiting["a"][0].code == "MachinesComing"


def test_many_are_told_in_turns_within_the_budget(clock: Clock, desk: Decisions, told: list[str]) -> None:
    names = [f"w{index}" for index in range(1000)]
    for name in names:
        desk.telling.queued(name)
    clock.now += 2.0
    words = Words(**dict.fromkeys(names, "PoolAtMaximum"))
    rounds = 0
    while desk.telling.go(words) is not None:
        rounds += 1
        clock.now += 0.5
    assert rounds == 36  # 100 at once, then 50 a second
    assert told == names
    desk.telling.planned()
    clock.now += 0.5
    moved = Words(**dict.fromkeys(names, "QuotaExceeded"))
    while desk.telling.go(moved) is not None:
        clock.now += 0.5
    assert sorted(told[1000:]) == sorted(names)


def test_while_work_is_admitted_few_are_told(clock: Clock, desk: Decisions, told: list[str]) -> None:
    names = [f"w{index}" for index in range(1000)]
    for name in names:
        desk.telling.queued(name)
    clock.now += 2.0
    for _ in range(20):
        desk.telling.planned(admitted=True)
        desk.telling.go(Words(**dict.fromkeys(names, "QuotaExceeded")))
        clock.now += 0.5
    assert told == names[: len(told)]
    assert 100 < len(told) <= 150  # 100 at once, then 5 a second


def test_what_is_forgotten_is_told_no_more(clock: Clock, desk: Decisions, told: list[str]) -> None:
    desk.telling.queued("a")
    clock.now += 2.0
    desk.telling.go(Words(a="X:1"))
    desk.forget("a")
    clock.now += 10.0
    desk.telling.planned()
    desk.telling.go(Words(a="Y:2"))
    assert told == ["a"]
    assert desk.waiting == {}
