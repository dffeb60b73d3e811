"""Which of the workloads at the head of the queue to admit, when they do not all fit: a bounded search.

Taking them one by one leaves room unused: the oldest gang may keep out two others that
together need as many devices. Where the order leaves the choice open the plan may
therefore choose the set of most value.

The search knows neither nodes nor quotas. It asks a `Trial`, which takes a candidate and
gives it back in reverse order, so that the placement code itself says what fits. First
comes a limited discrepancy search (Harvey and Ginsberg, IJCAI 1995) with bounds: from each
of the given orders the greedy set, then every set with one refusal of a candidate that
would have fitted, then with two, and so on. It knows one way in which a candidate is
placed; what is left of the budget goes to changing the best set (`climb`), which tries the
others too. What is returned is never worth less than the greedy set of the first order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from scheduler.queueing.climb import climb

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
    complete: bool  # whether nothing better is possible: at the bound, or with nothing left to look at


def choose(
    options: Sequence[int],
    trial: Trial[Token],
    orders: Sequence[Sequence[int]],
    budget: int = 512,
    ranks: Sequence[int] = (),
    ways: int = 1,
) -> Choice:
    """The best set found within `budget` calls of `trial.take`; the trial is left as it was.

    `options`: by how many options each candidate can be admitted, the best first. `ways`: there
    are so many times `options` of them: those of the first way, then those of the second, and so
    on. `orders`: permutations of the candidates to start from, the plan's own first; one in
    which those that are hard to place come first helps most. `ranks`: of candidates, 0 the
    first; all equal when absent. Among sets of equal value the first one found stays, so that
    nothing changes for nothing.
    """
    search = _Search(options, trial, trial.bound(range(len(options))))
    starts = list(dict.fromkeys(tuple(order) for order in orders))
    exhausted = _by_discrepancies(search, starts, budget // 2 if ways > 1 else budget)
    search.allow(budget - search.tries)
    if not search.over and ways > 1:
        climb(search, starts, ranks or [0] * len(options), options, ways)
    return search.choice(complete=search.worth >= search.bound or (exhausted and ways == 1))


def _by_discrepancies(search: _Search[Token], starts: Sequence[tuple[int, ...]], budget: int) -> bool:
    """Whether all was looked at."""
    for discrepancies in range(search.most + 1):
        search.cut = False
        for done, order in enumerate(starts):
            # An even part of what is left for each order, so that the first does not use it up.
            search.allow((budget - search.tries) // (len(starts) - done))
            search.descend(order, 0, discrepancies, 0)
            if search.worth >= search.bound or search.tries >= budget:
                return False
        if not search.cut:
            return True  # more discrepancies would find nothing that was not seen
    return True


class _Search(Generic[Token]):
    def __init__(self, options: Sequence[int], trial: Trial[Token], bound: int) -> None:
        self.bound, self.worth = bound, 0
        self.tries = 0
        self.most = sum(options)
        self.cut = False  # a branch was not followed for want of discrepancies
        self._options, self._trial, self._stop = options, trial, 0
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

    def _in_way(self, candidate: int, first: int) -> list[int]:
        many = self._options[candidate]
        start = first - first % max(many, 1)
        return sorted(range(start, start + many), key=lambda option: option != first)

    def greedy(self, order: Sequence[int], first: Mapping[int, int]) -> tuple[int, list[int]]:
        """One by one, each by the first option that fits: (worth, who was left out).

        `first`: the option that is tried first, by candidate, before the others of its way; 0 when absent.
        """
        worth, left_out, taken = 0, [], []
        for candidate in order:
            for option in self._in_way(candidate, first.get(candidate, 0)):
                if self.tries >= self._stop:
                    break
                self.tries += 1
                found = self._trial.take(candidate, option)
                if found is not None:
                    taken.append((candidate, option, found))
                    worth += found.gain
                    break
            else:
                left_out.append(candidate)
        if worth > self.worth:
            self._best, self.worth = tuple((candidate, option) for candidate, option, _ in taken), worth
        for candidate, _, found in reversed(taken):
            self._trial.give_back(candidate, found.token)
        return worth, left_out

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
