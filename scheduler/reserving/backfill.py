"""Whether a workload that goes out of turn delays a reservation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from scheduler.placement.bestfit import Ints
from scheduler.reserving.holds import Held, needed
from scheduler.reserving.timeline import Timeline


def may_backfill(
    reserved: Sequence[Held],
    timeline: Timeline,
    free: Ints,
    rows: Ints,
    amounts: Ints,
    duration: float | None,
    now: float,
) -> bool:
    """Whether a workload may take `amounts` on `rows` (in order, each once) of a pool from now on.

    It may if it ends before the start of every reservation whose room it would use: `duration` in
    seconds, None when it is unknown; a reservation whose start cannot be known counts as one
    that may start at once. `free`: the room now, shape (ready rows, columns), no hold taken off.
    """
    mind = [one for one in reserved if not ends_before(one, duration, now)]
    if not mind:
        return True
    spare = free[rows] - needed(mind, rows, timeline, free.shape[1])
    return bool(((amounts <= np.maximum(spare, 0)) | (amounts == 0)).all())


def ends_before(reserved: Held, duration: float | None, now: float) -> bool:
    """Whether work of this length is gone when the reservation starts."""
    return duration is not None and reserved.reservation.start is not None and now + duration <= reserved.start
