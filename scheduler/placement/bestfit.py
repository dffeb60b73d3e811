"""Best fit of a gang on nodes given as arrays: all pods or none.

Rule: a rest that one node can take whole goes to the node where the fewest further pods
would fit; otherwise the roomiest nodes are filled first, so that a gang touches few
nodes. Ties go to the node with fewer free devices, then to the first row.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]
Assignment = list[tuple[int, int, int]]  # pod set index, row, count

_MANY = np.iinfo(np.int64).max


def capacity(free: Ints, request: Ints, eligible: Mask) -> Ints:
    """How many pods of `request` fit on each row; 0 where not eligible. Shapes: (n, r), (r,), (n,)."""
    needed = np.flatnonzero(request)
    if needed.size == 0:
        fits = np.full(free.shape[0], _MANY, dtype=np.int64)
    else:
        fits = np.maximum(free[:, needed] // request[needed], 0).min(axis=1)
    return np.where(eligible, fits, 0)


def fit_gang(
    free: Ints, requests: Sequence[Ints], counts: Sequence[int], eligible: Sequence[Mask]
) -> Assignment | None:
    """Place all pod sets on a copy of `free`, or None."""
    left = free.copy()
    # The largest pods first: small ones fit into what these leave.
    order = sorted(range(len(requests)), key=lambda i: (-int(requests[i].max(initial=0)), i))
    placed: Assignment = []
    for index in order:
        rows = fit_one(left, requests[index], counts[index], eligible[index])
        if rows is None:
            return None
        for row, count in rows:
            left[row] -= requests[index] * count
            placed.append((index, row, count))
    return sorted(placed)


def fit_one(free: Ints, request: Ints, count: int, eligible: Mask) -> list[tuple[int, int]] | None:
    """Place `count` pods of one shape: [(row, count)], or None."""
    caps = capacity(free, request, eligible)
    if int(np.minimum(caps, count).sum()) < count:
        return None
    needed = np.flatnonzero(request)
    scarce = free[:, needed[-1]] if needed.size else np.zeros(free.shape[0], dtype=np.int64)
    chosen: list[tuple[int, int]] = []
    rest = count
    if not (caps >= rest).any():
        some = np.flatnonzero(caps)
        order = some[np.lexsort((some, scarce[some], -caps[some]))]
        filled = np.cumsum(caps[order])
        whole = int(np.searchsorted(filled, rest, side="right"))
        for row in order[:whole]:
            chosen.append((int(row), int(caps[row])))
        rest -= int(filled[whole - 1]) if whole else 0
        caps = caps.copy()
        caps[order[:whole]] = 0
    if rest:
        enough = np.flatnonzero(caps >= rest)
        tightest = enough[np.lexsort((enough, scarce[enough], caps[enough]))[0]]
        chosen.append((int(tightest), rest))
    return chosen
