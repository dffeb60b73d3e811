"""The cheapest nodes for a few pods, exactly: all ways to divide them are looked at."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from scheduler.autoscale.purchase.filling import Problem
from scheduler.placement.bestfit import Ints

PARTS = 800  # of what is divided, at most: the product of (pods + 1) over the groups


def parts(counts: Ints) -> int:
    """How many ways there are to take some of these pods."""
    return int(np.prod(counts.astype(np.float64) + 1.0).clip(max=1e15))


def cheapest(problem: Problem, groups: Ints, counts: Ints, open_: Ints) -> tuple[float, list[tuple[int, Ints]]] | None:
    """(cost, [(offering, pods of each group)]) of the least cost; None when no cover takes all of them.

    `open_`: offerings that may be used, any number of each. Only those that take all the groups
    are. `parts(counts)` must be small: time and memory grow with its square.
    """
    usable = open_[problem.eligible[np.ix_(groups, open_)].all(axis=0)]
    if not usable.size:
        return None
    usable = usable[np.argsort(problem.price[usable], kind="stable")]
    radix = counts + 1
    size = int(np.prod(radix))
    step = np.concatenate([np.cumprod(radix[:0:-1])[::-1], [1]]).astype(np.int64)
    vectors = (np.arange(size)[:, None] // step) % radix
    loads = vectors @ problem.request[groups]
    # The cheapest single node for each part.
    fits = np.ones((size, usable.size), dtype=np.bool_)
    for column in range(loads.shape[1]):
        fits &= loads[:, column][:, None] <= problem.capacity[usable, column]
    single = fits.argmax(axis=1)
    able = np.flatnonzero(fits.any(axis=1))[1:]  # without the empty part
    price = problem.price[usable[single[able]]]
    pieces = vectors[able]
    least = np.full(size, np.inf)
    least[0] = 0.0
    taken = np.zeros(size, dtype=np.int64)
    for number in range(1, size):
        inside = np.flatnonzero((pieces <= vectors[number]).all(axis=1))
        if inside.size:
            cost = price[inside] + least[number - able[inside]]
            best = int(np.argmin(cost))
            least[number], taken[number] = cost[best], able[inside[best]]
    if not np.isfinite(least[-1]):
        return None
    out: list[tuple[int, Ints]] = []
    rest = size - 1
    while rest:
        piece = int(taken[rest])
        out.append((int(usable[single[piece]]), vectors[piece]))
        rest -= piece
    return float(least[-1]), out


def bundle(counts: Sequence[Ints], limit: int = PARTS) -> list[int]:
    """Which of these nodes, the first of them and those that follow, can be divided anew together.

    `counts`: pods by group of each node, all of one length.
    """
    chosen: list[int] = []
    total = np.zeros(0, dtype=np.int64)
    for at, one in enumerate(counts):
        together = one if not chosen else total + one
        if parts(together) <= limit:
            chosen.append(at)
            total = together
    return chosen
