"""Pods one by one where what is free has the proportions of what they ask for.

The usual order (`scoring`) looks at devices first. Where CPU or memory is what runs out,
a pod that needs much of it for each device is better kept to nodes that have much of it
left for each device, so that the others' devices stay usable. It is tried only where the
head of the queue is shared out by search (`cycle.head`), beside the usual order.
"""

from __future__ import annotations

import numpy as np

from scheduler.placement.bestfit import Ints, capacity


def aligned(free: Ints, request: Ints, allowed: Ints, count: int) -> list[tuple[int, int]] | None:
    """[(row, pods)] for `count` equal pods; None when they do not all fit.

    `free`: shape (rows, columns), not changed; `allowed`: rows that suit, in order. Each pod goes
    to the row whose free amounts have the smallest angle to the request, both as parts of
    what is free on all allowed rows; then to the one with the least room, then to the first.
    """
    columns = np.flatnonzero(request)
    if not columns.size or not allowed.size:
        return None
    left, asked = free[np.ix_(allowed, columns)], request[columns]
    if int(np.minimum(capacity(left, asked), count).sum()) < count:
        return None
    scale = np.maximum(left.sum(axis=0), 1).astype(np.float64)
    demand = asked / scale
    found: dict[int, int] = {}
    for _ in range(count):
        parts = left / scale
        size = np.sqrt((parts**2).sum(axis=1))
        fits = (left >= asked).all(axis=1)
        if not fits.any():
            return None
        # Rounded, so that equal angles are equal whatever the order of additions.
        cosine = np.round(parts @ demand / np.maximum(size, 1e-12) / np.sqrt((demand**2).sum()), 9)
        at = int(np.lexsort((size, np.where(fits, -cosine, 2.0)))[0])
        left[at] -= asked
        found[at] = found.get(at, 0) + 1
    return [(int(allowed[at]), found[at]) for at in sorted(found)]
