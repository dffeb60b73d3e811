"""Shares: how much of the cloud a tenant, with all under it, borrows and uses for its weight.

After Kueue's fair sharing (KEP-1714): the dominant of all classes, divided by the weight,
compared where the ways up of two tenants join. Beyond Kueue, what is used decides between
those that borrow alike, most of all those that borrow nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import inf

from scheduler.queueing.accounts import Accounts, At
from scheduler.queueing.forest import ROOT

Pair = tuple[float, float]  # (borrowed, used), each ÷ weight


class Shares:
    """The shares of one view of the accounts. What was worked out is kept until something under it changes."""

    def __init__(self, accounts: Accounts, weight: Callable[[str], int], reach: Callable[[str], int]) -> None:
        """`weight`: of a tenant; `reach`: class → devices in reach of all roots together."""
        self._accounts, self._weight, self._reach = accounts, weight, reach

    def path(self, tenant: str, accelerator: str, wanted: int, now: float, own: bool) -> list[Pair]:
        """The pair at each level from the root down, once the tenant has `wanted` more of the class.

        `own`: whether the tenant has others under it, beside whom its own use is one level
        further down.
        """
        accounts = self._accounts
        pairs = [self._own(tenant, accelerator, wanted, now)] if own else []
        name, more, known = tenant, wanted, accounts.pairs
        while name != ROOT:
            parent = accounts.parents.get(name, ROOT)
            pair = known[name]
            if pair is None:
                pair = known[name] = self._at_rest(name, parent, now)
            if wanted:
                # All other classes stay as they are, so the largest changes with this one only.
                at, weight = (name, accelerator), self._weight(name)
                over = self._borrowed(accounts.held[at][1] + more - accounts.quota.get(at, 0), parent, accelerator)
                used = self._used(accounts.faded(at, now) + wanted, accelerator)
                pair = max(pair[0], over / weight), max(pair[1], used / weight)
                if parent != ROOT:
                    more = accounts.passes_up(at, more)
            pairs.append(pair)
            name = parent
        if len(pairs) > 1:
            pairs.reverse()
        return pairs

    def _at_rest(self, name: str, parent: str, now: float) -> Pair:
        accounts, borrowed, used = self._accounts, 0.0, 0.0
        for one in accounts.classes.get(name, ()):
            at = (name, one)
            borrowed = max(borrowed, self._borrowed(accounts.held[at][1] - accounts.quota.get(at, 0), parent, one))
            used = max(used, self._used(accounts.faded(at, now), one))
        weight = self._weight(name)
        return borrowed / weight, used / weight

    def _own(self, name: str, accelerator: str, wanted: int, now: float) -> Pair:
        accounts, borrowed, used = self._accounts, 0.0, 0.0
        known: Iterable[str] = accounts.classes.get(name, ())
        for one in (*known, accelerator) if wanted and accelerator not in known else known:
            at, more = (name, one), wanted if one == accelerator else 0
            borrowed = max(borrowed, self._borrowed(accounts.excess(at) + more, name, one))
            used = max(used, self._used(accounts.faded_own(at, now) + more, one))
        return borrowed / self._weight(name), used / self._weight(name)

    def _borrowed(self, over: int, lender: str, accelerator: str) -> float:
        return over / max(self._potential((lender, accelerator)), 1.0) if over > 0 else 0.0

    def _used(self, devices: float, accelerator: str) -> float:
        if not devices:
            return 0.0
        reach = self._accounts.potentials.get((ROOT, accelerator))
        return devices / max(self._potential((ROOT, accelerator)) if reach is None else reach, 1.0)

    def _potential(self, at: At) -> float:
        """Devices of the class that could be had of a tenant if nobody used any."""
        accounts, accelerator = self._accounts, at[1]
        known = accounts.potentials
        below: list[At] = []
        while at not in known:
            if at[0] == ROOT:
                known[at] = float(self._reach(accelerator))
            else:
                below.append(at)
                at = (accounts.parents.get(at[0], ROOT), accelerator)
        found = known[at]
        for one in reversed(below):
            terms = accounts.terms.get(one)
            limit = inf if terms is None else accounts.quota.get(one, 0) + terms.borrow
            found = known[one] = min(limit, accounts.keeps(one) + found)
        return found
