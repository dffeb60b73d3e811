"""A set of candidates made better by changes of the order in which they are taken (iterated greedy search).

After "squeaky wheel" optimisation (Joslin and Clements, JAIR 1999): who was left out goes
earlier next time. Beside that, a candidate may be placed another way. A change that makes
the set worse is taken back. Its dice are the same for equal inputs, so that the
answer is a function of them.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

_EARLIER = 0.6  # the part of changes that take one who was left out earlier; the others change how one is placed
_ACROSS = 0.3  # the part of those that mind no rank: a small gang of low rank may leave its room to a large one
_MORE = 0.4  # the chance of a further change in the same step


@dataclass(slots=True)
class _Climber:
    """A greedy set, and the order and first options that lead to it."""

    order: list[int]
    first: dict[int, int]
    worth: int
    left_out: list[int]


class Greedy(Protocol):
    """A search that can be asked for the greedy set of an order."""

    @property
    def over(self) -> bool:
        """Nothing better is possible, or the budget is spent."""

    def greedy(self, order: Sequence[int], first: Mapping[int, int]) -> tuple[int, list[int]]:
        """(worth, who was left out) of the greedy set; the best set is kept by the search."""


def climb(
    search: Greedy, starts: Sequence[Sequence[int]], ranks: Sequence[int], options: Sequence[int], ways: int
) -> None:
    """Change the greedy sets of `starts`, turn by turn, until the search is over.

    `ranks`: of candidates, 0 the first. `options` of each, in each of so many `ways`. As in
    `knapsack.choose`; the search must be over at some time.
    """
    chance = random.Random(len(ranks))  # noqa: S311 (the same for equal inputs)
    able = [candidate for candidate, many in enumerate(options) if many]
    climbers: list[_Climber] = []
    for start in starts:
        climbers.append(_Climber(list(start), {}, *search.greedy(start, {})))
        if search.over:
            return
    while able and not search.over:
        for climber in climbers:
            order, first = climber.order.copy(), climber.first.copy()
            while True:
                if climber.left_out and chance.random() < _EARLIER:
                    _promote(order, chance.choice(climber.left_out), ranks, chance)
                else:
                    candidate = chance.choice(able)
                    first[candidate] = chance.randrange(ways * options[candidate])
                if chance.random() >= _MORE:
                    break
            worth, left_out = search.greedy(order, first)
            if worth >= climber.worth:
                climber.order, climber.first, climber.worth, climber.left_out = order, first, worth, left_out
            if search.over:
                return


def _promote(order: list[int], candidate: int, ranks: Sequence[int], chance: random.Random) -> None:
    """Take the candidate earlier: before any, or only before those of its rank."""
    at, start = order.index(candidate), 0
    if chance.random() >= _ACROSS:
        start = next(place for place, one in enumerate(order) if ranks[one] == ranks[candidate])
    order.insert(chance.randint(start, at), order.pop(at))
