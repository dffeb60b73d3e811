"""The bounded search for the best head of the queue: against brute force, and within its budget."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from scheduler.queueing.knapsack import Taken, choose


class Bins:
    """Candidates of one size each go into one of several bins; worth their size, or the value that is given."""

    def __init__(self, sizes: Sequence[int], bins: Sequence[int], values: Sequence[int] | None = None) -> None:
        self.sizes, self.free, self.values = list(sizes), list(bins), list(values or sizes)
        self.tries = 0

    def take(self, candidate: int, option: int) -> Taken[int] | None:
        self.tries += 1
        if self.sizes[candidate] > self.free[option]:
            return None
        self.free[option] -= self.sizes[candidate]
        return Taken(self.values[candidate], option)

    def give_back(self, candidate: int, token: int) -> None:
        self.free[token] += self.sizes[candidate]

    def bound(self, candidates: Sequence[int]) -> int:
        return sum(self.values[one] for one in candidates)


def brute(sizes: Sequence[int], bins: Sequence[int], values: Sequence[int]) -> int:
    best = 0
    for where in itertools.product(range(len(bins) + 1), repeat=len(sizes)):
        loads = [sum(size for size, at in zip(sizes, where, strict=True) if at == one) for one in range(len(bins))]
        if all(load <= room for load, room in zip(loads, bins, strict=True)):
            best = max(best, sum(value for value, at in zip(values, where, strict=True) if at < len(bins)))
    return best


SIZES = st.lists(st.integers(1, 9), min_size=1, max_size=5)
BINS = st.lists(st.integers(0, 12), min_size=1, max_size=2)


@given(SIZES, BINS, st.data())
def test_with_budget_enough_it_finds_what_brute_force_finds(sizes, bins, data) -> None:
    values = data.draw(st.lists(st.integers(1, 9), min_size=len(sizes), max_size=len(sizes)))
    trial = Bins(sizes, bins, values)
    found = choose([len(bins)] * len(sizes), trial, [range(len(sizes))], budget=100_000)
    assert found.complete
    assert found.value == brute(sizes, bins, values)
    assert trial.free == bins
    assert found.tries == trial.tries
    again = Bins(sizes, bins, values)
    assert sum(again.take(*pick).gain for pick in found.picks) == found.value  # type: ignore[union-attr]


@given(SIZES, BINS, st.integers(1, 12))
def test_within_its_budget_it_is_never_worse_than_taking_them_in_order(sizes, bins, budget) -> None:
    greedy = Bins(sizes, bins)
    for candidate in range(len(sizes)):
        next((True for option in range(len(bins)) if greedy.take(candidate, option)), False)
    reached = sum(bins) - sum(greedy.free)
    trial = Bins(sizes, bins)
    found = choose([len(bins)] * len(sizes), trial, [range(len(sizes))], budget=budget)
    assert trial.tries <= budget
    assert trial.free == bins
    if budget >= greedy.tries:
        assert found.value >= reached


def test_two_that_fit_together_go_before_the_oldest_alone() -> None:
    found = choose([1, 1, 1], Bins([5, 4, 4], [8]), [(0, 1, 2)])
    assert found.picks == ((1, 0), (2, 0))
    assert (found.value, found.complete) == (8, True)


def test_of_equal_sets_the_first_in_order_stays() -> None:
    assert choose([1, 1], Bins([4, 4], [4]), [(0, 1), (1, 0)]).picks == ((0, 0),)


def test_when_all_fit_nothing_is_searched() -> None:
    trial = Bins([1, 2, 3], [6])
    assert len(choose([1, 1, 1], trial, [(0, 1, 2), (2, 1, 0)]).picks) == 3
    assert trial.tries == 3


class Shelves:
    """Two equal boxes on shelves: the first way puts them side by side where a long one would go, the second does not."""

    def __init__(self) -> None:
        self.free, self.tries = [4, 2], 0

    def take(self, candidate: int, option: int) -> Taken[tuple[int, int]] | None:
        """Options: the long shelf, then (of the second way) the short one."""
        self.tries += 1
        size = (2, 4)[candidate]
        if self.free[option] < size:
            return None
        self.free[option] -= size
        return Taken(size, (option, size))

    def give_back(self, candidate: int, token: tuple[int, int]) -> None:
        self.free[token[0]] += token[1]

    def bound(self, candidates) -> int:
        return sum((2, 4)[one] for one in candidates)


def test_another_way_to_place_the_first_leaves_room_for_the_second() -> None:
    shelves = Shelves()
    found = choose([1, 1], shelves, [(0, 1)], budget=64, ranks=[0, 1], ways=2)
    assert found.value == 6
    assert found.picks in {((0, 1), (1, 0)), ((1, 0), (0, 1))}
    assert shelves.free == [4, 2]
    assert found.tries <= 64
    assert choose([1, 1], Shelves(), [(0, 1)], budget=64, ranks=[0, 1], ways=2) == found


def test_nothing_to_choose_from_is_no_choice() -> None:
    assert choose([0, 0], Shelves(), [(0, 1)], budget=8, ways=2).picks == ()
