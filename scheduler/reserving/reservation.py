"""What a reservation is: values that outlive a plan, by names of nodes and workloads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

PATIENCE = 600.0  # seconds for which a promised start may be late before it is worked out anew

_FIRST = -(1 << 31)  # before any priority
_BORROWING = 1e12  # seconds; added to the age of who borrows, so that it comes after all who do not
Rank = tuple[int, float, str]  # -priority, age, key
Kind = Literal["free", "ends", "drains", "evicts"]


@dataclass(frozen=True, slots=True)
class Basis:
    """Why the start is what it is.

    `free`: the room is there. `ends`: it is there once `workload` has ended, the last of those
    that must. `drains`: nothing says when the room comes free; `missing` pods still have none.
    `evicts`: `workload` and others have been evicted for it.
    """

    kind: Kind
    workload: str = ""
    missing: int = 0


@dataclass(frozen=True, slots=True, order=True)
class Hold:
    """`count` pods of a pod set of the waiting workload on a node."""

    node: str
    pod_set: str
    count: int


@dataclass(frozen=True, slots=True)
class Reservation:
    """Room for a waiting workload.

    `start`: seconds since the epoch, estimated; None when it cannot be known. `runtime`: seconds
    that it will run at most, 0 when unknown. `since`: when the workload was first given a
    reservation; `created_at`: of the workload. `uid` tells it from another of its name.
    """

    workload: str
    uid: str
    pool: str
    holds: tuple[Hold, ...]
    start: float | None
    basis: Basis
    priority: int
    runtime: float
    since: float
    created_at: float = 0.0
    borrows: bool = False

    @property
    def rank(self) -> Rank:
        """Of two reservations the one of lower rank does not mind the other: priority, then age, then the key.

        Room for which others were evicted is for nobody else, of whatever priority, or they
        would be evicted in vain, again and again.
        """
        if self.basis.kind == "evicts":
            return _FIRST, self.since, self.workload
        return rank_of(self.priority, self.borrows, self.created_at, self.workload)


@dataclass(frozen=True, slots=True)
class Reservations:
    """All that last from one plan to the next, by rank."""

    held: tuple[Reservation, ...] = ()

    def __iter__(self) -> Iterator[Reservation]:
        return iter(self.held)

    def __len__(self) -> int:
        return len(self.held)

    def of(self, workload: str) -> Reservation | None:
        """The reservation of one workload."""
        return next((one for one in self.held if one.workload == workload), None)


def rank_of(priority: int, borrows: bool, created_at: float, workload: str) -> Rank:
    """Priority, then what is owed before what is borrowed, then age, then the key."""
    return -priority, created_at + (_BORROWING if borrows else 0.0), workload
