"""Hierarchical quota and shares worked out from scratch at each question, as slowly and plainly as can be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf

from scheduler import ClassQuota, TenantState

ROOT = ""


@dataclass
class Oracle:
    tenants: dict[str, TenantState] = field(default_factory=dict)
    usage: dict[tuple[str, str], int] = field(default_factory=dict)
    capacity: dict[str, int] = field(default_factory=dict)

    def with_use(self, tenant: str, accelerator: str, more: int) -> Oracle:
        usage = dict(self.usage)
        usage[tenant, accelerator] = usage.get((tenant, accelerator), 0) + more
        return Oracle(self.tenants, usage, self.capacity)

    def used(self, name: str, accelerator: str) -> int:
        return self.usage.get((name, accelerator), 0)

    def terms(self, name: str, accelerator: str) -> ClassQuota | None:
        return self.tenants[name].quota.get(accelerator) if name in self.tenants else None

    def nominal(self, name: str, accelerator: str) -> int:
        terms = self.terms(name, accelerator)
        return terms.nominal if terms else 0

    # The forest

    def cycle(self, name: str) -> set[str]:
        """The members of the cycle that the tenant is in; empty when it is in none."""
        seen, at = set(), name
        while at in self.tenants and at not in seen:
            seen.add(at)
            at = self.tenants[at].parent
            if at == name:
                return seen
        return set()

    def parent(self, name: str) -> str:
        if name not in self.tenants or self.tenants[name].parent not in self.tenants:
            return ROOT
        members = self.cycle(name)
        return ROOT if members and min(members) == name else self.tenants[name].parent

    def ancestry(self, name: str) -> list[str]:
        return [name, *self.ancestry(self.parent(name))] if name != ROOT else []

    def children(self, name: str) -> list[str]:
        known = set(self.tenants) | {tenant for tenant, _ in self.usage}
        return sorted(one for one in known if self.parent(one) == name)

    # Sums

    def quota(self, name: str, accelerator: str) -> int:
        own = self.nominal(name, accelerator)
        return own + sum(self.quota(one, accelerator) - self.keeps(one, accelerator) for one in self.children(name))

    def keeps(self, name: str, accelerator: str) -> int:
        terms = self.terms(name, accelerator)
        return max(0, self.quota(name, accelerator) - terms.lend) if terms and terms.lend is not None else 0

    def counted(self, name: str, accelerator: str) -> int:
        return self.used(name, accelerator) + sum(
            max(0, self.counted(one, accelerator) - self.keeps(one, accelerator)) for one in self.children(name)
        )

    def used_below(self, name: str, accelerator: str) -> int:
        return self.used(name, accelerator) + sum(self.used_below(one, accelerator) for one in self.children(name))

    def nominals(self, accelerator: str) -> int:
        return sum(self.nominal(name, accelerator) for name in self.tenants)

    # Questions

    def allowed(self, name: str, accelerator: str, wanted: int) -> bool:
        if wanted == 0:
            return True
        terms = self.terms(name, accelerator)
        if terms is None or self.used(name, accelerator) + wanted > terms.nominal + terms.borrow:
            return False
        after = self.with_use(name, accelerator, wanted)
        for one in self.ancestry(name):
            limits = self.terms(one, accelerator)
            borrow = limits.borrow if limits else inf
            now = after.counted(one, accelerator)
            if now > self.counted(one, accelerator) and now > self.quota(one, accelerator) + borrow:
                return False
        nominals, lent = self.nominals(accelerator), self.quota(ROOT, accelerator)
        if accelerator not in self.capacity or lent == nominals:
            return True
        now = after.counted(ROOT, accelerator)
        spare = max(0, self.capacity[accelerator] - nominals)
        return now == self.counted(ROOT, accelerator) or now <= lent + spare

    def available(self, name: str, accelerator: str) -> int:
        wanted = 0
        while self.allowed(name, accelerator, wanted + 1):
            wanted += 1
        return wanted

    def may_reclaim(self, name: str, other: str, accelerator: str, wanted: int) -> bool:
        mine, theirs = self.ancestry(name), self.ancestry(other)
        if name == other or self.used(other, accelerator) <= self.nominal(other, accelerator):
            return False
        if any(self.counted(one, accelerator) <= self.quota(one, accelerator) for one in theirs if one not in mine):
            return False
        side, after = [one for one in mine if one not in theirs], self.with_use(name, accelerator, wanted)
        for one in side:
            terms = self.terms(one, accelerator)
            if terms and after.counted(one, accelerator) > self.quota(one, accelerator) + terms.borrow:
                return False
        if not side:
            return self.used(name, accelerator) + wanted <= self.nominal(name, accelerator)
        return self.with_use(name, accelerator, wanted).counted(side[-1], accelerator) <= self.quota(
            side[-1], accelerator
        )

    def potential(self, name: str, accelerator: str) -> float:
        """Devices that could be had of this tenant if nobody used any."""
        if name == ROOT:
            return self.reach(accelerator)
        terms = self.terms(name, accelerator)
        borrow = terms.borrow if terms else inf
        above = self.keeps(name, accelerator) + self.potential(self.parent(name), accelerator)
        return min(self.quota(name, accelerator) + borrow, above)

    def reach(self, accelerator: str) -> int:
        return max(self.capacity.get(accelerator, 0), self.nominals(accelerator))

    def pair(self, name: str, faded: Mapping[tuple[str, str], float], classes: tuple[str, ...]) -> tuple[float, float]:
        borrowed = used = 0.0
        for one in classes:
            over = self.counted(name, one) - self.quota(name, one)
            borrowed = max(borrowed, over / max(self.potential(self.parent(name), one), 1))
            used = max(used, self._faded(name, one, faded) / max(self.reach(one), 1))
        weight = self.tenants[name].weight if name in self.tenants else 1
        return borrowed / weight, used / weight

    def _faded(self, name: str, accelerator: str, faded: Mapping[tuple[str, str], float]) -> float:
        own = faded.get((name, accelerator), self.used(name, accelerator))
        return own + sum(self._faded(one, accelerator, faded) for one in self.children(name))

    def path(self, name: str, accelerator: str, wanted: int, classes: tuple[str, ...]) -> tuple[float, ...]:
        after = self.with_use(name, accelerator, wanted)
        values = [0.0 if after.used(name, accelerator) <= self.nominal(name, accelerator) else 1.0]
        for one in reversed(self.ancestry(name)):
            values.extend(after.pair(one, {}, classes))
        if any(self.parent(one) == name for one in self.tenants):
            borrowed = used = 0.0
            for one in classes:
                over = after.used(name, one) - self.nominal(name, one)
                borrowed = max(borrowed, over / max(self.potential(name, one), 1))
                used = max(used, after.used(name, one) / max(self.reach(one), 1))
            values += [borrowed / self.tenants[name].weight, used / self.tenants[name].weight]
        return tuple(values)
