"""Shares: how much of the cloud a tenant, with all under it, borrows and uses for its weight.

After Kueue's fair sharing (KEP-1714): the dominant of all classes, divided by the weight,
compared where the ways up of two tenants join. Beyond Kueue, what is used decides between
those that borrow alike, most of all those that borrow nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import inf

from scheduler.queueing.accounts import Accounts

Pair = tuple[float, float]  # (borrowed, used), each ÷ weight


def levels(
    accounts: Accounts,
    way: Sequence[tuple[str, float]],
    reach: Callable[[str], int],
    accelerator: str,
    wanted: int,
    now: float,
    own: bool,
) -> list[Pair]:
    """The pair at each level from the root down, once the last tenant has `wanted` more of the class.

    `way`: (tenant, weight) from the tenant up to its root; `reach`: class → devices in reach
    of the roots; `own`: whether the tenant has others under it, beside whom its own use is
    one level further down.
    """
    more = [wanted]  # of `accelerator`, as it counts at each level from the tenant up
    for name, _ in way[:-1]:
        more.append(accounts.passes_up((name, accelerator), more[-1]))
    potential: dict[str, float] = {}
    pairs: list[Pair] = []
    for (name, weight), devices in zip(reversed(way), reversed(more), strict=True):
        borrowed = used = 0.0
        below: dict[str, float] = {}
        for one in _classes(accounts, name, accelerator, wanted):
            at = (name, one)
            total = reach(one)
            had = potential.get(one, 0.0) if pairs else float(total)
            quota, counted = accounts.quota.get(at, 0), accounts.held[at][1] + (devices if one == accelerator else 0)
            if counted > quota:
                borrowed = max(borrowed, (counted - quota) / max(had, 1.0))
            uses = accounts.faded(at, now) + (wanted if one == accelerator else 0)
            used = max(used, uses / max(total, 1))
            terms = accounts.terms.get(at)
            below[one] = min(quota + (inf if terms is None else terms.borrow), accounts.keeps(at) + had)
        pairs.append((borrowed / weight, used / weight))
        potential = below
    if own:
        name, weight = way[0]
        borrowed = used = 0.0
        for one in _classes(accounts, name, accelerator, wanted):
            at, extra = (name, one), wanted if one == accelerator else 0
            terms = accounts.terms.get(at)
            over = accounts.held[at][0] + extra - (terms.nominal if terms is not None else 0)
            borrowed = max(borrowed, over / max(potential[one], 1.0))
            used = max(used, (accounts.faded_own(at, now) + extra) / max(reach(one), 1))
        pairs.append((borrowed / weight, used / weight))
    return pairs


def may_reclaim(accounts: Accounts, way: Sequence[str], other: Sequence[str], accelerator: str, wanted: int) -> bool:
    """Whether the first tenant of `way` may take from the first of `other`; both ways go up to a root.

    Every level of `other` below the join must be beyond its quota, and the level of `way`
    just below it must not be, with `wanted` more.
    """
    shared = 0
    while shared < min(len(way), len(other)) and way[-1 - shared] == other[-1 - shared]:
        shared += 1
    for name in other[: len(other) - shared]:
        if accounts.held[name, accelerator][1] <= accounts.quota.get((name, accelerator), 0):
            return False
    if way[0] == other[0] or _own_excess(accounts, other[0], accelerator) <= 0:
        return False
    if shared == len(way):  # `other` stands under the tenant, whose own use is what stands beside it
        return _own_excess(accounts, way[0], accelerator) + wanted <= 0
    side = way[: len(way) - shared]
    more = wanted
    for name in side[:-1]:
        more = accounts.passes_up((name, accelerator), more)
    at = (side[-1], accelerator)
    return accounts.held[at][1] + more <= accounts.quota.get(at, 0)


def _classes(accounts: Accounts, name: str, accelerator: str, wanted: int) -> Iterable[str]:
    known = accounts.classes.get(name, ())
    return (*known, accelerator) if wanted and accelerator not in known else known


def _own_excess(accounts: Accounts, name: str, accelerator: str) -> int:
    at = (name, accelerator)
    terms = accounts.terms.get(at)
    return accounts.held[at][0] - (terms.nominal if terms is not None else 0)
