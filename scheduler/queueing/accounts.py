"""Quota and use summed over subtrees of tenants, kept up to date along one path a change.

For a tenant and a class (after Kueue's hierarchical cohorts, KEP-79):
- its subtree quota is its nominal and what its children lend it,
- it lends its parent all of that, or `lend` of it; the rest is seen by nobody above,
- against a subtree quota counts the tenant's own use and its children's beyond what these keep back.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from scheduler.fleet.state import ClassQuota
from scheduler.queueing.decay import DecayedUsage, left
from scheduler.queueing.forest import ROOT

At = tuple[str, str]  # (tenant or ROOT, accelerator class)
Held = tuple[int, int, int]  # (own devices, those that count against the subtree quota, all of the subtree)
_NOTHING: Held = (0, 0, 0)


class _Books(dict[At, Held]):
    """What is held. Over another's, it holds only what differs, so that it is made at once."""

    def __init__(self, base: Mapping[At, Held] | None = None) -> None:
        super().__init__()
        self._base = base

    def __missing__(self, at: At) -> Held:
        return _NOTHING if self._base is None else self._base[at]


class _Pairs(dict[str, tuple[float, float] | None]):
    """Shares that were worked out; None where there is none that still holds. Over another's, as `_Books`."""

    def __init__(self, base: Mapping[str, tuple[float, float] | None] | None = None) -> None:
        super().__init__()
        self._base = base

    def __missing__(self, tenant: str) -> tuple[float, float] | None:
        return None if self._base is None else self._base[tenant]


class Accounts:
    """The sums. `over`: the same quotas, with uses that may be changed and taken back without touching them."""

    def __init__(self, half_life: float = 0.0, over: Accounts | None = None) -> None:
        self.half_life = half_life  # seconds; 0: past use does not count
        self.over = over
        self.parents: dict[str, str] = {} if over is None else over.parents
        self.terms: dict[At, ClassQuota] = {} if over is None else over.terms
        self.quota: dict[At, int] = {} if over is None else over.quota
        self.nominal: dict[str, int] = {} if over is None else over.nominal  # class → sum over all tenants
        # Where to look at all: those with terms or use, now or before. A scratch may add to it, to no effect elsewhere.
        self.classes: dict[str, set[str]] = defaultdict(set) if over is None else over.classes
        self.held: _Books = _Books(None if over is None else over.held)
        self._gaps: dict[At, tuple[float, float]] = {} if over is None else over._gaps  # see `faded`
        self.history: dict[At, DecayedUsage] = {} if over is None else over.history  # of own devices
        self._undo: list[tuple[At, Held]] = []
        # Kept for `fairness.Shares`. With past use, what was worked out holds at its own time only.
        self.pairs: _Pairs = _Pairs(None if over is None or half_life else over.pairs)
        self.potentials: dict[At, float] = {} if over is None else over.potentials

    # Reading

    def keeps(self, at: At) -> int:
        """How much of its subtree quota the tenant does not lend its parent."""
        terms, quota = self.terms.get(at), self.quota.get(at, 0)
        return 0 if terms is None or terms.lend is None else max(quota - terms.lend, 0)

    def passes_up(self, at: At, devices: int) -> int:
        """How many of `devices` more at this tenant count against its parent's subtree quota."""
        keeps, counted = self.keeps(at), self.held[at][1]
        return max(counted + devices - keeps, 0) - max(counted - keeps, 0)

    def excess(self, at: At) -> int:
        """How far the tenant's own devices are beyond its nominal; negative while they are within."""
        terms = self.terms.get(at)
        return self.held[at][0] - (terms.nominal if terms is not None else 0)

    def faded(self, at: At, now: float) -> float:
        """Devices of the subtree as they count for its share: past use faded, what a plan charges in full.

        Kept as the gap to what is held, since gaps add up over tenants whenever they changed.
        """
        held = float(self.held[at][2])
        if not self._gaps:
            return held
        gap, since = self._gaps.get(at, (0.0, 0.0))
        return max(held + (gap * left(now - since, self.half_life) if gap else 0.0), 0.0)

    def faded_own(self, at: At, now: float) -> float:
        """As `faded`, of the tenant's own devices."""
        used = self.history.get(at)
        gap = used.at(now, self.half_life) - used.current if used is not None else 0.0
        return max(self.held[at][0] + gap, 0.0)

    # Changing

    def charge(self, tenant: str, accelerator: str, devices: int, now: float | None) -> None:
        """`devices` more (or less) of the tenant's own. With `now`, what it used until now begins to fade.

        ValueError when more is given back than is held.
        """
        own, counted, total = self.held[tenant, accelerator]
        if own + devices < 0:
            raise ValueError(f"tenant {tenant} holds {own} {accelerator} and cannot give back {-devices}")
        if now is not None and self.half_life and self.over is None:
            before = self.history.get((tenant, accelerator), DecayedUsage(0.0, 0, now))
            self.remember((tenant, accelerator), before.changed(now, own + devices, self.half_life))
        self._write((tenant, accelerator), (own + devices, counted, total))
        self._add(tenant, accelerator, 0, devices, devices)

    def set_terms(self, tenant: str, accelerator: str, terms: ClassQuota | None) -> None:
        """The tenant's quota of a class is new, has changed or is gone. Then `restructured` must be called."""
        at = (tenant, accelerator)
        before, parent = self._gives(at), self.parents.get(tenant, ROOT)
        old = self.terms.pop(at, None)
        if terms is not None:
            self.terms[at] = terms
        more = (terms.nominal if terms is not None else 0) - (old.nominal if old is not None else 0)
        self.nominal[accelerator] = self.nominal.get(accelerator, 0) + more
        self.quota[at] = self.quota.get(at, 0) + more
        self.classes[tenant].add(accelerator)
        after = self._gives(at)
        self._add(parent, accelerator, after[0] - before[0], after[1] - before[1], 0)

    def move(self, tenant: str, parent: str) -> None:
        """The tenant, with all that stands under it, goes to another parent. Then `restructured` must be called."""
        for sign, into in ((-1, self.parents.get(tenant, ROOT)), (1, parent)):
            self.parents[tenant] = into
            for accelerator in self.classes.get(tenant, ()):
                at = (tenant, accelerator)
                quota, counted = self._gives(at)
                self._add(into, accelerator, sign * quota, sign * counted, sign * self.held[at][2])
                if at in self._gaps:
                    gap, since = self._gaps[at]
                    self._add_gap((into, accelerator), sign * gap, since)

    def forget(self, tenant: str) -> None:
        """Drop a tenant that has neither terms nor children, unless it still holds something."""
        for accelerator in self.classes.get(tenant, ()):
            if self.held[tenant, accelerator] != _NOTHING:
                return
        for accelerator in list(self.classes.get(tenant, ())):
            at = (tenant, accelerator)
            used = self.history.pop(at, None)
            if used is not None:
                self._add_gap(at, used.current - used.value, used.since)
            self._gaps.pop(at, None)
            self.quota.pop(at, None)
            self.held.pop(at, None)
        for index in (self.classes, self.parents, self.pairs):
            index.pop(tenant, None)

    def restructured(self) -> None:
        """Tenants, quotas, weights or capacity have changed: no share that was worked out holds any more."""
        self.pairs.clear()
        self.potentials.clear()

    def remember(self, at: At, used: DecayedUsage) -> None:
        """What the tenant used of the class until now, in place of what was known."""
        old = self.history.get(at)
        if old is not None:
            self._add_gap(at, old.current - old.value, old.since)
        self.history[at] = used
        self._add_gap(at, used.value - used.current, used.since)

    def mark(self) -> int:
        """A point that `rollback` goes back to."""
        return len(self._undo)

    def rollback(self, mark: int) -> None:
        """Take back every charge since the mark."""
        while len(self._undo) > mark:
            at, held = self._undo.pop()
            self.held[at] = held
            self.pairs[at[0]] = None

    def _gives(self, at: At) -> tuple[int, int]:
        keeps = self.keeps(at)
        return self.quota.get(at, 0) - keeps, max(self.held[at][1] - keeps, 0)

    def _add(self, tenant: str, accelerator: str, quota: int, counted: int, total: int) -> None:
        while quota or counted or total:
            at = (tenant, accelerator)
            before = self._gives(at)
            own, old_counted, old_total = self.held[at]
            if counted or total:
                self._write(at, (own, old_counted + counted, old_total + total))
            if quota:
                self.quota[at] = self.quota.get(at, 0) + quota
                self.classes[tenant].add(accelerator)
            if tenant == ROOT:
                return
            after = self._gives(at)
            quota, counted = after[0] - before[0], after[1] - before[1]
            tenant = self.parents.get(tenant, ROOT)

    def _write(self, at: At, held: Held) -> None:
        if self.over is not None:
            self._undo.append((at, self.held[at]))
        self.classes[at[0]].add(at[1])
        self.held[at] = held
        self.pairs[at[0]] = None

    def _add_gap(self, at: At, gap: float, since: float) -> None:
        tenant, accelerator = at
        while True:
            at = (tenant, accelerator)
            self.classes[tenant].add(accelerator)
            self.pairs[tenant] = None
            old, then = self._gaps.get(at, (0.0, since))
            if since >= then:
                self._gaps[at] = (old * left(since - then, self.half_life) + gap, since)
            else:
                self._gaps[at] = (old + gap * left(then - since, self.half_life), then)
            if tenant == ROOT:
                return
            tenant = self.parents.get(tenant, ROOT)
