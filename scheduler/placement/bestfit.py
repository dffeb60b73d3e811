"""Best fit of equal pods on rows given as arrays.

Rule: a rest that one node can take whole goes to the node where the fewest further pods
would fit; otherwise the roomiest nodes are filled first, so that a gang touches few
nodes. Ties go to the lower rank (fewer free devices, or a better score), then to the
first row.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]
Assignment = list[tuple[int, int, int]]  # pod set index, row, count

UNBOUNDED = int(np.iinfo(np.int64).max) >> 16  # pods that ask for nothing; sums over 65,536 rows stay exact


def capacity(free: Ints, request: Ints) -> Ints:
    """How many pods of `request` fit on each row. Shapes: (n, r), (r,) → (n,)."""
    needed = np.flatnonzero(request)
    if needed.size == 0:
        return np.full(free.shape[0], UNBOUNDED, dtype=np.int64)
    fits: Ints = free[:, needed[0]] // request[needed[0]]
    for column in needed[1:]:
        np.minimum(fits, free[:, column] // request[column], out=fits)
    np.maximum(fits, 0, out=fits)
    return fits


def spread(caps: Ints, count: int, rank: Ints, tight: bool = False) -> list[tuple[int, int]] | None:
    """Place `count` equal pods: [(row, count)], or None when they do not all fit.

    `caps`: how many fit on each row; `rank` settles ties: a row's free devices, or its
    score. `tight` fills the nodes with least room first, which leaves whole nodes to
    others at the price of touching more of them.
    """
    usable = np.minimum(caps, count)
    if int(usable.sum()) < count:
        return None
    chosen: list[tuple[int, int]] = []
    rest = count
    enough = caps >= rest
    if tight or not enough.any():
        some = np.flatnonzero(usable)
        order = some[np.lexsort((some, rank[some], usable[some] if tight else -usable[some]))]
        filled = np.cumsum(usable[order])
        whole = int(np.searchsorted(filled, rest, side="right"))
        chosen.extend((int(row), int(usable[row])) for row in order[:whole])
        rest -= int(filled[whole - 1]) if whole else 0
        enough = caps >= rest
        enough[order[:whole]] = False
    if rest:
        chosen.append((_tightest(caps, enough, rank), rest))
    return chosen


def _tightest(caps: Ints, enough: Mask, rank: Ints) -> int:
    rows = np.flatnonzero(enough)
    room = caps[rows]
    ties = rows[room == room.min()]
    return int(ties[np.argmin(rank[ties])]) if ties.size > 1 else int(ties[0])
