"""What reservations need of the rows of one pool, and what they leave to others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from scheduler.placement.bestfit import Ints
from scheduler.reserving.reservation import Reservation
from scheduler.reserving.timeline import Timeline


@dataclass(frozen=True, slots=True)
class Held:
    """A reservation in rows of its pool's supply: `amounts[i]` on `rows[i]`, each row once, in order."""

    reservation: Reservation
    rows: Ints
    amounts: Ints

    @property
    def start(self) -> float:
        """Seconds since the epoch; infinity when it cannot be known."""
        return np.inf if self.reservation.start is None else self.reservation.start

    @property
    def end(self) -> float:
        """When its room comes free again; infinity when it cannot be known."""
        return self.start + self.reservation.runtime if self.reservation.runtime > 0 else np.inf


def needed(held: Sequence[Held], rows: Ints, timeline: Timeline, width: int) -> Ints:
    """Of what is free now on each of `rows`, the part that must not be taken for an unknown time.

    At the start of each reservation its room, and that of those which have started by then and
    not ended, must be there; what comes free by itself until then need not be kept now. More
    than is free where the reservations still wait for running work. Shape (rows, `width`).
    """
    least = np.zeros((rows.size, width), dtype=np.int64)
    for start in sorted({one.start for one in held}):
        wanted, touched = np.zeros_like(least), np.zeros(rows.size, dtype=np.bool_)
        for one in held:
            if one.start <= start < one.end or one.start == start:
                position, mine = _common(rows, one.rows)
                wanted[position] += one.amounts[mine]
                touched[position] |= one.start == start
        at = np.flatnonzero(touched)
        wanted[at] -= np.where(wanted[at] > 0, timeline.released(rows[at], start), 0)
        least[at] = np.maximum(least[at], wanted[at])
    return least


def _common(rows: Ints, others: Ints) -> tuple[Ints, Ints]:
    """Positions in both (each sorted, without repeats) of the rows that they share."""
    _, first, second = np.intersect1d(rows, others, assume_unique=True, return_indices=True)
    return first, second
