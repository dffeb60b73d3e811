"""What quota allows a tenant, and from whom it may take back what is its own. See `accounts` for the sums.

A way is a tenant, its parent, and so on up to a root.
"""

from __future__ import annotations

from collections.abc import Sequence

from scheduler.explain import reasons
from scheduler.explain.reasons import Reason
from scheduler.fleet.state import ClassQuota
from scheduler.queueing import refusals
from scheduler.queueing.accounts import Accounts
from scheduler.queueing.forest import ROOT


def refuse(
    accounts: Accounts, way: Sequence[str], accelerator: str, wanted: int, terms: ClassQuota, lent: int, reach: int
) -> Reason | None:
    """The limit nearest to the tenant that `wanted` devices more would break; None when they break none.

    `terms`: its quota of the class. `lent`: what all roots may use beyond what each keeps;
    `reach`: all devices of the class, of which the rest is kept.
    """
    used, limit = accounts.held[way[0], accelerator][0], terms.nominal + terms.borrow
    if used > limit:
        return refusals.quota_lowered(way[0], accelerator, used, limit)
    if used + wanted > limit:
        return reasons.quota_exceeded(way[0], accelerator, used, wanted, limit)
    more = wanted
    for name in way:
        at = (name, accelerator)
        quota, counted, limits = accounts.quota.get(at, 0), accounts.held[at][1], accounts.terms.get(at)
        if limits is not None and counted + more > quota + limits.borrow:
            limit = quota + limits.borrow
            return refusals.cohort_exceeded(way[0], name, accelerator, counted, more, quota, limit)
        more = accounts.passes_up(at, more)
        if more == 0:
            return None
    counted = accounts.held[ROOT, accelerator][1]
    if counted + more > lent:
        return refusals.nothing_to_borrow(way[0], accelerator, counted, more, lent, reach - lent)
    return None


def available(accounts: Accounts, way: Sequence[str], accelerator: str, terms: ClassQuota, lent: int) -> int:
    """The most devices more for which `refuse` says None."""
    room = lent - accounts.held[ROOT, accelerator][1]
    for name in reversed(way):
        at = (name, accelerator)
        counted, limits = accounts.held[at][1], accounts.terms.get(at)
        room = max(accounts.keeps(at) - counted, 0) + max(room, 0)
        if limits is not None:
            room = min(room, accounts.quota.get(at, 0) + limits.borrow - counted)
    return max(0, min(room, terms.nominal + terms.borrow - accounts.held[way[0], accelerator][0]))


def entitled(accounts: Accounts, way: Sequence[str], accelerator: str, wanted: int) -> bool:
    """Whether the tenant's own work or any level from it up stays within its quota with `wanted` more.

    False when a limit below that level is in the way: what is reclaimed from others does not help there.
    """
    terms, over = accounts.terms.get((way[0], accelerator)), accounts.excess((way[0], accelerator)) + wanted
    if over <= 0 or terms is None or over > terms.borrow:
        return over <= 0
    more = wanted
    for name in way:
        at = (name, accelerator)
        if accounts.held[at][1] + more <= accounts.quota.get(at, 0):
            return True
        if _is_beyond(accounts, name, accelerator, more):
            return False
        more = accounts.passes_up(at, more)
    return False


def _is_beyond(accounts: Accounts, name: str, accelerator: str, more: int) -> bool:
    at = (name, accelerator)
    terms = accounts.terms.get(at)
    return terms is not None and accounts.held[at][1] + more > accounts.quota.get(at, 0) + terms.borrow


def may_reclaim(accounts: Accounts, way: Sequence[str], other: Sequence[str], accelerator: str, wanted: int) -> bool:
    """Whether the first tenant of `way` may take from the first of `other`; both ways go up to a root.

    Every level of `other` below the join must be beyond its quota, and the level of `way`
    just below it must not be, with `wanted` more. Where a limit is in the way, only what
    stands under it helps.
    """
    if way[0] == other[0] or accounts.excess((other[0], accelerator)) <= 0:
        return False
    shared = 0
    while shared < min(len(way), len(other)) and way[-1 - shared] == other[-1 - shared]:
        shared += 1
    for name in other[: len(other) - shared]:
        if accounts.held[name, accelerator][1] <= accounts.quota.get((name, accelerator), 0):
            return False
    if shared == len(way) and accounts.excess((way[0], accelerator)) + wanted > 0:
        return False  # `other` stands under the tenant, whose own use is what stands beside it
    more = wanted
    for at, name in enumerate(way[: len(way) - shared]):
        if _is_beyond(accounts, name, accelerator, more):
            return False
        if at == len(way) - shared - 1:
            return accounts.held[name, accelerator][1] + more <= accounts.quota.get((name, accelerator), 0)
        more = accounts.passes_up((name, accelerator), more)
    return True
