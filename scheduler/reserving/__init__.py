"""Room kept for blocked workloads, and what may run in the meantime.

A blocked workload gets a `Reservation`: rows, and the time from which they are free for it
if what runs ends when it says. What starts meanwhile must end before that time, or use room
that no reservation needs. Where the time cannot be known, since nothing says when it ends,
the rows are drained: nothing that might outstay is put there, so that a large gang does not
starve behind small arrivals. It must not decide who is blocked, or who goes first.

What lasts between plans is `Reservations`, a frozen value. After a restart it starts empty:
reservations are made anew from what runs, at most on other rows.
"""

from scheduler.reserving.backfill import may_backfill
from scheduler.reserving.book import Blocked, Book
from scheduler.reserving.reservation import Basis, Hold, Reservation, Reservations
from scheduler.reserving.reserve import reserve
from scheduler.reserving.timeline import Timeline

__all__ = ["Basis", "Blocked", "Book", "Hold", "Reservation", "Reservations", "Timeline", "may_backfill", "reserve"]
