"""What each tenant may use, what it borrows, and whose turn it is: hierarchical fair share.

Tenants form a forest; all roots share one cohort, to which capacity that nobody's nominal
covers belongs as well. Terms are Kueue's for hierarchical cohorts (KEP-79) and fair sharing
(KEP-1714), see `accounts` for the sums and `docs/scheduling.md` for the rules in words.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

from scheduler.explain import reasons
from scheduler.explain.reasons import Reason
from scheduler.fleet.state import TenantState
from scheduler.queueing import limits, refusals
from scheduler.queueing.accounts import Accounts
from scheduler.queueing.decay import DecayedUsage
from scheduler.queueing.fairness import Pair, Shares
from scheduler.queueing.forest import ROOT, Forest

SharePath = tuple[float, ...]  # 0 while within nominal, else 1; then (borrowed, used) at each level from the root down
NO_LIMIT = sys.maxsize


class Entitlements:
    """Quota, use and shares of all tenants. Each change costs the depth of the tenant (times its classes).

    Not thread-safe. `as_scratch` gives a plan a view of its own to charge.
    """

    def __init__(
        self,
        tenants: Iterable[TenantState] = (),
        usage: Mapping[tuple[str, str], int] | None = None,
        capacity: Mapping[str, int] | None = None,
        *,
        half_life: float = 0.0,
        now: float = 0.0,
    ) -> None:
        """`usage`: (tenant, class) → devices. `capacity`: class → devices that its pools may have at most.

        `half_life`: seconds after which past use counts half; 0: only what is held now counts.
        `now`: since when the usage is held.
        """
        self.half_life = half_life
        self._now = now
        self._tenants: dict[str, TenantState] = {}
        self._capacity: dict[str, int] = dict(capacity or {})
        self._forest = Forest()
        self._accounts = Accounts(half_life)
        self._shares = Shares(self._accounts, self.weight, self._reach)
        for tenant in tenants:
            self.upsert_tenant(tenant)
        for (name, accelerator), devices in (usage or {}).items():
            self.charge(name, accelerator, devices, now)

    @property
    def now(self) -> float:
        """Seconds since the epoch: what past use fades to in shares."""
        return self._now

    @now.setter
    def now(self, now: float) -> None:
        if now != self._now and self.half_life:
            self._accounts.pairs.clear()
        self._now = now

    # What there is

    def upsert_tenant(self, tenant: TenantState) -> None:
        """Take in a tenant: its parent, weight and quota. What it uses stays."""
        self._own("upsert_tenant")
        old = self._tenants.get(tenant.name)
        self._tenants[tenant.name] = tenant
        if old is not None and (old.quota, old.parent, old.weight) == (tenant.quota, tenant.parent, tenant.weight):
            return
        before = old.quota if old is not None else {}
        for accelerator in sorted(before.keys() | tenant.quota.keys()):
            terms = tenant.quota.get(accelerator)
            if before.get(accelerator) != terms:
                self._accounts.set_terms(tenant.name, accelerator, terms)
        for name, parent in self._forest.put(tenant.name, tenant.parent):
            self._accounts.move(name, parent)
        self._accounts.restructured()

    def remove_tenant(self, name: str) -> None:
        """The tenant is gone. What it still uses counts as borrowed by a root, until it is given back."""
        self._own("remove_tenant")
        old = self._tenants.pop(name, None)
        if old is None:
            return
        for moved, parent in self._forest.remove(name):
            self._accounts.move(moved, parent)
        for accelerator in sorted(old.quota):
            self._accounts.set_terms(name, accelerator, None)
        self._accounts.forget(name)
        self._accounts.restructured()

    def set_capacity(self, accelerator: str, devices: int | None) -> None:
        """How many devices the pools of a class may have at most; None: unknown, and no limit."""
        self._own("set_capacity")
        if devices is None:
            self._capacity.pop(accelerator, None)
        else:
            self._capacity[accelerator] = devices
        self._accounts.restructured()

    @property
    def tenants(self) -> Mapping[str, TenantState]:
        """By name."""
        return self._tenants

    def problems(self) -> Mapping[str, Reason]:
        """Tenants whose parent does not exist or leads back to themselves, and how they are read."""
        found = {child: refusals.parent_missing(child, parent) for child, parent in self._forest.missing()}
        for cut, members in self._forest.cycles():
            found.update(dict.fromkeys(members, refusals.parent_cycle(cut, members)))
        return dict(sorted(found.items()))

    # Use

    def charge(self, tenant: str, accelerator: str, devices: int, now: float | None = None) -> None:
        """The tenant holds `devices` more, or fewer when negative.

        `now`: when that began, so that what it used until then fades from there; None in
        a plan, where what is charged counts in full. ValueError when it gives back more
        than it holds.
        """
        if devices:
            self._accounts.charge(tenant, accelerator, devices, now)
            if tenant not in self._tenants and self._accounts.over is None:
                self._accounts.forget(tenant)

    def used(self, tenant: str, accelerator: str) -> int:
        """Devices that the tenant's own workloads hold."""
        return self._accounts.held[tenant, accelerator][0]

    def used_below(self, tenant: str, accelerator: str) -> int:
        """Devices that it and all tenants under it hold."""
        return self._accounts.held[tenant, accelerator][2]

    def as_scratch(self, now: float | None = None) -> Entitlements:
        """A view with the same tenants, whose charges do not touch this one. Made at once, whatever the size.

        `now`: the time that past use fades to. While a view is in use, this one must not change.
        """
        view = object.__new__(type(self))
        view._now = self._now if now is None else now
        view.half_life = self.half_life
        view._tenants, view._capacity, view._forest = self._tenants, self._capacity, self._forest
        view._accounts = Accounts(self.half_life, over=self._accounts)
        view._shares = Shares(view._accounts, view.weight, view._reach)
        return view

    def mark(self) -> int:
        """A point in a scratch that `rollback` goes back to; marks may be nested."""
        return self._accounts.mark()

    def rollback(self, mark: int) -> None:
        """Take back what was charged to this scratch since the mark."""
        self._accounts.rollback(mark)

    # May it?

    def refuse(self, tenant: str, accelerator: str, wanted: int) -> Reason | None:
        """None when the tenant may hold `wanted` devices more of the class; else the limit nearest to it.

        Limits, from the tenant up: nominal + borrow of its own, quota + borrow of what it
        stands under, and what the roots together lend. Work without devices is not counted.
        """
        if wanted == 0:
            return None
        rights = self._tenants.get(tenant)
        if rights is None:
            return reasons.tenant_unknown(tenant)
        terms = rights.quota.get(accelerator)
        if terms is None:
            return reasons.class_not_in_quota(tenant, accelerator)
        way, reach = self.ancestry(tenant), self._reach(accelerator)
        return limits.refuse(self._accounts, way, accelerator, wanted, terms, self._lent(accelerator), reach)

    def available(self, tenant: str, accelerator: str) -> int:
        """The most devices for which `refuse` says None; 0 when it may have none."""
        rights = self._tenants.get(tenant)
        if rights is None or accelerator not in rights.quota:
            return 0
        terms, lent = rights.quota[accelerator], self._lent(accelerator)
        return limits.available(self._accounts, self.ancestry(tenant), accelerator, terms, lent)

    def within_nominal(self, tenant: str, accelerator: str, wanted: int) -> bool:
        """Whether the tenant, with `wanted` more, holds no more than its own nominal: then it borrows at no level.

        What others under the same parent have borrowed does not count: up to its nominal,
        a tenant can always get there by reclaiming from somebody.
        """
        return self._accounts.excess((tenant, accelerator)) + wanted <= 0

    def entitled(self, tenant: str, accelerator: str, wanted: int) -> bool:
        """Whether it may have a right to reclaim: with `wanted` more, it or something it stands under is within quota.

        Where this is false, there is nothing to reclaim: `may_reclaim_from` is false whoever is
        asked about, or the tenant is at its own limit.
        """
        return limits.entitled(self._accounts, self.ancestry(tenant), accelerator, wanted)

    def excess(self, tenant: str, accelerator: str) -> int:
        """Devices that the tenant's own workloads hold beyond its nominal."""
        return max(0, self._accounts.excess((tenant, accelerator)))

    def may_reclaim_from(self, tenant: str, other: str, accelerator: str, wanted: int = 0) -> bool:
        """Whether `tenant`, to get `wanted` more, may take devices of the class from workloads of `other`.

        Where their ways up join: the side of `other` holds more than its quota, at every
        level down to itself, and the side of `tenant` would, with `wanted`, hold no more than
        its own. Never true both ways. While a tenant within its nominal finds no room though
        capacity covers all nominals, there is somebody of whom this is true.
        """
        return limits.may_reclaim(self._accounts, self.ancestry(tenant), self.ancestry(other), accelerator, wanted)

    # Whose turn is it?

    def share(self, tenant: str, accelerator: str = "", wanted: int = 0) -> Pair:
        """(share borrowed, share used) of the tenant and all under it, once it has `wanted` more of the class.

        Borrowed: devices beyond the subtree quota ÷ what could be had of the parent; used:
        devices held (or faded, with a half-life) ÷ all of the class. Each for the class where
        it is largest, ÷ weight. With class "" and `wanted`: the class where it would borrow least.
        """
        return min(
            self._pairs(tenant, one, wanted, whole=True)[-1] for one in self._classes(tenant, accelerator, wanted)
        )

    def path(self, tenant: str, accelerator: str = "", wanted: int = 0) -> SharePath:
        """The key by which tenants take turns: the smaller, the sooner.

        Compared level by level from the root, so that it is decided where two tenants' ways
        up join. Whoever stays within its own nominal comes before whoever borrows. A charge
        makes the keys of all tenants under the same root grow, never shrink.
        """
        classes = self._classes(tenant, accelerator, wanted)
        return (
            self._key(tenant, classes[0], wanted)
            if len(classes) == 1
            else min(self._key(tenant, one, wanted) for one in classes)
        )

    def _key(self, tenant: str, accelerator: str, wanted: int) -> SharePath:
        borrows = 1.0 if accelerator and not self.within_nominal(tenant, accelerator, wanted) else 0.0
        pairs = self._pairs(tenant, accelerator, wanted)
        return (borrows, *pairs[0]) if len(pairs) == 1 else (borrows, *chain.from_iterable(pairs))

    def weight(self, tenant: str) -> int:
        """Of the tenant; 1 of one that does not exist."""
        rights = self._tenants.get(tenant)
        return rights.weight if rights is not None else 1

    def ancestry(self, tenant: str) -> tuple[str, ...]:
        """The tenant, its parent as it counts, and so on up to a root."""
        return tuple(self._forest.upwards(tenant))

    # Past use

    def remember(self, tenant: str, stored: Mapping[str, Mapping[str, Any]], now: float) -> None:
        """Take in past use as `remembered` gave it: class → {"milliDevices", "held", "since"}.

        Without a half-life it is ignored. What it held at `since` is taken to have been held
        until `now` (seconds since the epoch), and what these books say from then on: it does
        not matter whether they know of its workloads yet.
        """
        self._own("remember")
        if self.half_life:
            for accelerator in sorted(stored):
                past = DecayedUsage.read(stored[accelerator])
                held = self.used(tenant, accelerator)
                self._accounts.remember((tenant, accelerator), past.changed(now, held, self.half_life))

    def remembered(self, tenant: str) -> dict[str, dict[str, Any]]:
        """What is to last of a tenant's past use, by class; empty without a half-life."""
        history = self._accounts.history
        classes = sorted(self._accounts.classes.get(tenant, ()))
        return {one: history[tenant, one].wire() for one in classes if (tenant, one) in history}

    def decayed(self, tenant: str, accelerator: str) -> float:
        """Devices of the tenant's own past use, faded to `now`; what it holds, without a half-life."""
        return self._accounts.faded_own((tenant, accelerator), self.now)

    def _pairs(self, tenant: str, accelerator: str, wanted: int, whole: bool = False) -> list[Pair]:
        own = not whole and self._forest.has_children(tenant)
        return self._shares.path(tenant, accelerator, wanted, self._now, own)

    def _classes(self, tenant: str, accelerator: str, wanted: int) -> Sequence[str]:
        rights = self._tenants.get(tenant)
        if accelerator or not wanted or rights is None or not rights.quota:
            return (accelerator,)
        return sorted(rights.quota) if len(rights.quota) > 1 else tuple(rights.quota)

    def _reach(self, accelerator: str) -> int:
        """Devices of the class: what its pools may have, and no less than all nominals."""
        return max(self._capacity.get(accelerator, 0), self._accounts.nominal.get(accelerator, 0))

    def _lent(self, accelerator: str) -> int:
        """Devices that all roots together may use beyond what each keeps; no limit while nobody keeps any.

        Without lending limits, what the roots may use is what there is, and placement sees
        that for itself, with better reasons.
        """
        nominal, lent = self._accounts.nominal.get(accelerator, 0), self._accounts.quota.get((ROOT, accelerator), 0)
        if lent == nominal or accelerator not in self._capacity:
            return NO_LIMIT
        return lent + max(0, self._capacity[accelerator] - nominal)

    def _own(self, what: str) -> None:
        if self._accounts.over is not None:
            raise TypeError(f"{what} of a scratch: change the entitlements it was made from")
