"""What goes out of turn does not delay a reservation, and uses what it may."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler import Fleet, WorkloadState
from scheduler.placement.bestfit import Assignment
from scheduler.reserving import Basis, Blocked, Book, Hold, Reservation, Reservations, Timeline, may_backfill, reserve
from scheduler.reserving.holds import Held
from scheduler.reserving.reservation import PATIENCE
from scheduler.running.room import by_row
from tests.unit.scheduler.claims import Cycle, run, work, world

NOW = 100.0


class Desk:
    """A book over a fleet; `waiting` are those that still wait of those that have a reservation in `kept`."""

    def __init__(
        self, made: Fleet, kept: Reservations | None = None, waiting: tuple[WorkloadState, ...] = (), depth: int = 8
    ) -> None:
        self.cycle = Cycle(made, now=NOW)
        self.supply = self.cycle.supply.pools["h200"]
        self.asks = {one.key: self.cycle.ask(one) for one in waiting}
        self.book = Book(
            kept or Reservations(), self.cycle.timelines, NOW, lambda key, uid: self.asks.get(key), depth=depth
        )

    def blocked(self, one: WorkloadState) -> Blocked:
        self.asks[one.key] = self.cycle.ask(one)
        return Blocked(one.key, one.uid, one.priority, self.asks[one.key], one.max_runtime, one.created_at)

    def place(self, one: WorkloadState) -> Assignment | None:
        placed = self.book.place(self.blocked(one), "h200", self.supply.ready)
        return None if placed is None else list(placed)

    def reserve(self, one: WorkloadState) -> Reservation | None:
        return self.book.reserve(self.blocked(one), ["h200"])


def half_used() -> Fleet:
    """Node 0 is busy until 200, node 1 is free."""
    made = world(2)
    run(made, work("r", 1, 4, max_runtime=200.0), (0, 1), admitted_at=0.0)
    return made


def test_what_ends_before_the_start_may_use_the_reserved_room() -> None:
    desk = Desk(half_used())
    made = desk.reserve(work("big", 2, 4))
    assert made is not None
    assert (made.start, made.basis) == (200.0, Basis("ends", "x/r"))
    assert made.holds == (Hold("n00", "main", 1), Hold("n01", "main", 1))
    assert desk.place(work("unknown", 1, 1)) is None
    assert desk.place(work("long", 1, 1, max_runtime=101.0)) is None
    assert desk.place(work("short", 1, 1, max_runtime=100.0)) == [(0, 1, 1)]


def test_room_that_the_reservation_does_not_need_is_everybodys() -> None:
    desk = Desk(half_used())
    assert desk.reserve(work("big", 2, 3)) is not None
    assert desk.place(work("small", 1, 1)) == [(0, 1, 1)]
    assert desk.place(work("next", 1, 1)) is None


def test_room_that_comes_free_in_time_makes_up_for_what_is_taken_now() -> None:
    made = world(1)
    run(made, work("r", 1, 2, max_runtime=200.0), (0, 1), admitted_at=0.0)
    desk = Desk(made)
    assert desk.reserve(work("big", 1, 3)) is not None
    assert desk.place(work("small", 1, 1)) == [(0, 0, 1)]
    assert desk.place(work("next", 1, 1)) is None


def test_only_the_first_few_get_one_and_higher_priority_takes_the_place_of_lower() -> None:
    desk = Desk(half_used(), depth=2)
    assert desk.reserve(work("one", 2, 4, max_runtime=9.0, created_at=1.0)) is not None
    assert desk.reserve(work("two", 2, 4, max_runtime=9.0, created_at=2.0)) is not None
    assert desk.reserve(work("three", 2, 4, created_at=3.0)) is None
    assert desk.reserve(work("high", 2, 4, priority=1, created_at=4.0)) is not None
    assert [one.workload for one in desk.book.reservations()] == ["x/high", "x/one"]


def test_room_given_in_the_same_plan_comes_free_too() -> None:
    desk = Desk(world(2))
    assert desk.place(work("short", 1, 4, max_runtime=30.0)) is not None
    assert desk.place(work("unknown", 1, 3)) is not None
    one, both = desk.reserve(work("one", 1, 4, max_runtime=20.0)), desk.reserve(work("two", 2, 4, priority=1))
    assert one is not None
    assert both is not None
    assert (one.start, one.basis) == (NOW + 30.0, Basis("ends", "x/short"))
    assert (both.start, both.basis) == (None, Basis("drains", missing=2))


def test_a_second_reservation_minds_the_first() -> None:
    desk = Desk(half_used())
    first = desk.reserve(work("first", 2, 4, max_runtime=50.0))
    second = desk.reserve(work("second", 1, 4))
    assert first is not None
    assert second is not None
    assert (first.start, second.start) == (200.0, 250.0)
    assert second.basis == Basis("ends", "x/first")
    assert desk.reserve(work("third", 1, 1)) is not None


def test_higher_priority_does_not_mind_lower() -> None:
    desk = Desk(half_used())
    assert desk.reserve(work("low", 2, 4)) is not None
    assert desk.place(work("same", 1, 4)) is None
    assert desk.place(work("high", 1, 4, priority=1)) == [(0, 1, 1)]


def test_its_own_room_is_its_own_in_the_next_plan_and_then_nobodys() -> None:
    made = half_used()
    waiting = work("big", 2, 4)
    first = Desk(made)
    first.reserve(waiting)
    kept = first.book.reservations()
    made.remove_workload("x/r")
    second = Desk(made, kept, (waiting,))
    assert second.place(work("small", 1, 1)) is None
    assert second.place(waiting) == [(0, 0, 1), (0, 1, 1)]
    assert len(second.book.reservations()) == 0


def test_a_reservation_goes_with_its_workload_or_its_node() -> None:
    made = half_used()
    waiting = work("big", 2, 4)
    first = Desk(made)
    first.reserve(waiting)
    kept = first.book.reservations()
    assert len(Desk(made, kept).book) == 0
    made.remove_node("n00")
    desk = Desk(made, kept, (waiting,))
    assert len(desk.book) == 0
    assert desk.place(work("small", 1, 4)) == [(0, 0, 1)]


def test_rows_that_are_drained_stay_the_same_from_plan_to_plan() -> None:
    made = world(3)
    for node, held in enumerate([2, 3, 3]):
        run(made, work(f"r{node}", 1, held), (node, 1))
    waiting = work("big", 1, 4)
    first = Desk(made)
    made_first = first.reserve(waiting)
    assert made_first is not None
    assert (made_first.start, made_first.holds) == (None, (Hold("n00", "main", 1),))
    assert first.place(work("small", 1, 1, max_runtime=1.0)) != [(0, 0, 1)]
    run(made, work("r1", 1, 1), (1, 1))
    second = Desk(made, first.book.reservations(), (waiting,))
    again = second.reserve(waiting)
    assert again is not None
    assert (again.holds, again.since) == (made_first.holds, NOW)


def test_a_nominated_workload_keeps_the_room_of_its_victims() -> None:
    made = world(1)
    run(made, work("victim", 1, 4), (0, 1))
    waiting = work("w", 1, 4, priority=1)
    first = Desk(made)
    claim = first.cycle.claim(waiting)
    found = first.cycle.candidates.find(claim, ["h200"])
    assert found is not None
    first.cycle.candidates.commit(claim, found)
    first.book.nominate(first.blocked(waiting), found.pool, found.assignment, "x/victim")
    kept = first.book.reservations()
    assert [one.basis for one in kept] == [Basis("evicts", "x/victim")]
    second = Desk(made, kept, (waiting,))  # the victim is still going
    assert second.place(waiting) is None
    assert second.reserve(waiting) == kept.of("x/w")
    made.remove_workload("x/victim")
    third = Desk(made, second.book.reservations(), (waiting,))
    assert third.place(work("victim", 1, 4)) is None
    assert third.place(waiting) == [(0, 0, 1)]


@pytest.mark.parametrize(("late", "kept"), [(PATIENCE, 1), (PATIENCE + 1, 0)])
def test_a_start_that_is_long_past_is_worked_out_anew(late: float, kept: int) -> None:
    waiting = work("w", 1, 4)
    for kind in ("evicts", "ends"):
        old = Reservation("x/w", "uid-w", "h200", (Hold("n00", "main", 1),), NOW - late, Basis(kind), 0, 0.0, 0.0)
        assert len(Desk(world(1), Reservations((old,)), (waiting,)).book) == kept


def test_who_outstays_its_time_by_far_is_not_believed_any_more() -> None:
    made = world(1)
    run(made, work("r", 1, 4, max_runtime=1.0), (0, 1), admitted_at=NOW - PATIENCE - 2.0)
    found = Desk(made).reserve(work("w", 1, 4))
    assert found is not None
    assert found.start is None


@pytest.mark.parametrize(
    ("start", "duration", "devices", "allowed"),
    [
        (200.0, 100.0, 4, True),
        (200.0, 100.5, 4, False),
        (200.0, None, 1, True),
        (200.0, None, 2, False),
        (None, 1.0, 2, False),
        (None, None, 1, True),
    ],
)
def test_may_backfill(start: float | None, duration: float | None, devices: int, allowed: bool) -> None:
    cycle = Cycle(world(1), now=NOW)
    big, small = cycle.ask(work("big", 1, 3)), cycle.ask(work("small", 1, devices))
    made = Reservation("x/big", "u", "h200", (), start, Basis("drains"), 0, 0.0, NOW)
    held = Held(made, *by_row(big, [(0, 0, 1)]))
    free = cycle.supply.pools["h200"].free
    taking = by_row(small, [(0, 0, 1)])
    assert may_backfill([held], cycle.timelines["h200"], free, *taking, duration, NOW) is allowed


RUNNING = st.lists(
    st.tuples(st.integers(0, 3), st.integers(1, 4), st.sampled_from([0.0, 150.0, 250.0, 350.0])), max_size=8
)
WAITING = st.lists(
    st.tuples(st.integers(1, 4), st.integers(1, 4), st.sampled_from([0.0, 40.0, 120.0, 300.0]), st.booleans()),
    min_size=1,
    max_size=8,
)


@settings(max_examples=60, deadline=None)
@given(RUNNING, WAITING)
def test_whoever_is_placed_leaves_every_reservation_its_room(
    running: list[tuple[int, int, float]], waiting: list[tuple[int, int, float, bool]]
) -> None:
    made = world(4, racks=2)
    used = [0] * 4
    for index, (node, size, runtime) in enumerate(running):
        if used[node] + size <= 4:
            used[node] += size
            run(made, work(f"r{index}", 1, size, max_runtime=runtime), (node, 1), admitted_at=0.0)
    desk = Desk(made)
    timeline, free = desk.cycle.timelines["h200"], desk.supply.free.copy()  # without holds
    started: list[tuple[np.ndarray, np.ndarray, float]] = []
    for index, (count, devices, runtime, tied) in enumerate(waiting):
        one = work(f"w{index}", count, devices, max_runtime=runtime, required_topology="rack" if tied else "")
        before = held_in(desk)
        placed = desk.place(one)
        if placed is None:
            desk.reserve(one)
        else:
            rows, amounts = by_row(desk.cycle.ask(one), placed)
            assert may_backfill(before, timeline, free, rows, amounts, runtime or None, NOW)
            free[rows] -= amounts
            started.append((rows, amounts, NOW + runtime if runtime else np.inf))
        assert (free >= 0).all()
        every_promise_holds(held_in(desk), timeline, free, started)


def every_promise_holds(
    held: list[Held], timeline: Timeline, free: np.ndarray, started: list[tuple[np.ndarray, np.ndarray, float]]
) -> None:
    """At each known start there is room for all that run then."""
    every = np.arange(free.shape[0])
    for at in (one.start for one in held if one.start < np.inf):
        then = free + timeline.released(every, at)
        for rows, amounts, end in started:
            if end <= at:
                then[rows] += amounts
        for one in held:
            if one.start <= at < one.end:
                then[one.rows] -= one.amounts
        assert (then >= 0).all()


def held_in(desk: Desk) -> list[Held]:
    rows = {name: row for row, name in enumerate(desk.supply.names)}
    found = []
    for one in desk.book.reservations():
        ask = desk.asks[one.workload]
        found.append(Held(one, *by_row(ask, [(0, rows[hold.node], hold.count) for hold in one.holds])))
    return found


def test_a_plan_without_reservations_places_as_the_supply_does() -> None:
    first, second = Desk(half_used()), Desk(half_used())
    one = work("w", 2, 2)
    assert first.place(one) == list(second.supply.place(second.cycle.ask(one), 2) or [])
    assert reserve(second.cycle.ask(work("v", 9, 4)), second.cycle.timelines["h200"], second.supply.free) is None
