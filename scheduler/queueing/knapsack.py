"""Which of the workloads at the head of the queue to admit, when they do not all fit: a bounded search.

Taking them one by one leaves room unused: the oldest gang may keep out two others that
together need as many devices. Where the order leaves the choice open the plan may
therefore choose the set of most value.

The search knows neither nodes nor quotas. It asks a `Trial`, which takes a candidate and
gives it back in reverse order, so that the placement code itself says what fits. It is a
limited discrepancy search (Harvey and Ginsberg, IJCAI 1995) with bounds: from each of the
given orders first the greedy set, then every set with one refusal of a candidate that
would have fitted, then with two, and so on. It stops at its budget, and what it returns
is never worth less than the greedy set of the first order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

Token = TypeVar("Token")


@dataclass(frozen=True, slots=True)
class Taken(Generic[Token]):
    """A candidate has been admitted on trial."""

    gain: int  # what it added to the value, > 0; it may depend on what was taken before
    token: Token  # with which it is given back


class Trial(Protocol[Token]):
    """Room that can be taken and given back. Candidates and options are indices."""

    def take(self, candidate: int, option: int) -> Taken[Token] | None:
        """Admit the candidate by this option (a pool, say); None when it does not fit, and nothing has changed."""

    def give_back(self, candidate: int, token: Token) -> None:
        """Undo the last `take` that is not undone yet."""

    def bound(self, candidates: Sequence[int]) -> int:
        """No set of these can gain more now, by what is free and by quotas. It may err upwards only."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What to admit: (candidate, option) in an order in which they all fit."""

    picks: tuple[tuple[int, int], ...]
    value: int
    tries: int  # calls of `take`
    complete: bool  # whether the search ended by itself: at the bound, or with nothing left to look at


def choose(options: Sequence[int], trial: Trial[Token], orders: Sequence[Sequence[int]], budget: int = 512) -> Choice:
    """The best set found within `budget` calls of `trial.take`; the trial is left as it was.

    `options`: in how many ways each candidate can be admitted, the best first. `orders`:
    permutations of the candidates to start from, the plan's own first; one in which those
    that are hard to place come first helps most. Among sets of equal value the first one
    found stays, so that nothing changes for nothing.
    """
    search = _Search(options, trial, trial.bound(range(len(options))), budget)
    ways = list(dict.fromkeys(tuple(order) for order in orders))
    for discrepancies in range(sum(options) + 1):
        search.cut = False
        for done, order in enumerate(ways):
            # An even part of what is left for each order, so that the first does not use it up.
            search.allow((budget - search.tries) // (len(ways) - done))
            search.descend(order, 0, discrepancies, 0)
            if search.worth >= search.bound or search.tries >= budget:
                return search.choice(complete=search.worth >= search.bound)
        if not search.cut:
            break  # more discrepancies would find nothing that was not seen
    return search.choice(complete=True)


class _Search(Generic[Token]):
    def __init__(self, options: Sequence[int], trial: Trial[Token], bound: int, budget: int) -> None:
        self.bound, self.worth = bound, 0
        self.tries = 0
        self.cut = False  # a branch was not followed for want of discrepancies
        self._options, self._trial, self._stop = options, trial, budget
        self._picked: list[tuple[int, int]] = []
        self._best: tuple[tuple[int, int], ...] = ()

    def allow(self, tries: int) -> None:
        """So many more, until the next call."""
        self._stop = self.tries + tries

    @property
    def over(self) -> bool:
        """Nothing better is possible, or what was allowed is spent."""
        return self.worth >= self.bound or self.tries >= self._stop

    def choice(self, *, complete: bool) -> Choice:
        return Choice(self._best, self.worth, self.tries, complete)

    def descend(self, order: tuple[int, ...], at: int, discrepancies: int, worth: int) -> None:
        """Decide the candidates from position `at` on, with so many refusals of one that would fit."""
        if worth > self.worth:
            self._best, self.worth = tuple(self._picked), worth
        if at == len(order) or self.over or worth + self._trial.bound(order[at:]) <= self.worth:
            return
        candidate, fitted = order[at], False
        for option in range(self._options[candidate]):
            if fitted and discrepancies == 0:
                self.cut = True
                return
            if self.tries >= self._stop:
                self.cut = True
                return
            self.tries += 1
            taken = self._trial.take(candidate, option)
            if taken is None:
                continue
            # A later option of one that fitted by an earlier one is a discrepancy too.
            self._picked.append((candidate, option))
            self.descend(order, at + 1, discrepancies - fitted, worth + taken.gain)
            self._picked.pop()
            self._trial.give_back(candidate, taken.token)
            fitted = True
            if self.over:
                return
        if fitted and discrepancies == 0:
            self.cut = True
        else:
            self.descend(order, at + 1, discrepancies - fitted, worth)
