"""Whose turn it is by hierarchical fair share."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Iterator, Mapping, Set

from scheduler.fleet.shape import Shape
from scheduler.queueing.entitlements import Entitlements

Key = tuple[float, ...]
FADING_STEP = 60.0  # seconds in which past use is taken as constant, so that what is known of a share stays true
Wants = Callable[[Shape], tuple[int, str]]  # (devices of all pods, the class that is selected; "" for any)


class Floors:
    """Tenants' shares as the fleet stands, each kept until somebody under the same root is charged.

    A plan only adds to use, so these are lower bounds all through it, and are exact for
    all under roots that it has not charged.
    """

    def __init__(self, entitlements: Entitlements) -> None:
        self._entitlements = entitlements
        self._known: dict[str, dict[tuple[str, int, str], Key]] = {}  # root → (tenant, devices, class) → path
        self._roots: dict[str, str] = {}
        self._below: dict[str, set[str]] = {}  # root → tenants
        self._ranks: dict[str, Key] = {}  # tenant → its place in `_ranked`
        self._ranked: list[tuple[Key, str]] = []
        self._stale: set[str] = set()  # roots whose tenants may stand elsewhere by now

    def at(self, now: float) -> float:
        """Let past use fade to this time, or to the step before it. Returns that step, seconds since the epoch."""
        step = now - now % FADING_STEP if self._entitlements.half_life else 0.0
        if step != self._entitlements.now:
            self._entitlements.now = step
            self._known.clear()
            self._stale.update(self._below)
        return step

    def of(self, tenant: str, devices: int = 0, accelerator: str = "") -> Key:
        """The tenant's `path` with so many devices more of the class."""
        root = self._roots.get(tenant) or self.root(tenant)
        known = self._known.get(root)
        if known is None:
            known = self._known[root] = {}
        found = known.get((tenant, devices, accelerator))
        if found is None:
            found = known[tenant, devices, accelerator] = self._entitlements.path(tenant, accelerator, devices)
        return found

    def charged(self, tenant: str) -> None:
        """The tenant's use has changed."""
        root = self.root(tenant)
        self._known.pop(root, None)
        self._stale.add(root)

    def clear(self) -> None:
        """Tenants or capacity have changed."""
        self._known.clear()
        self._roots.clear()
        self._below.clear()
        self._ranks.clear()
        self._ranked.clear()
        self._stale.clear()

    def ranked(self) -> list[tuple[Key, str]]:
        """(path, tenant) of all tenants, the smallest first. Not to be changed."""
        if not self._ranks:
            for tenant in self._entitlements.tenants:
                self._below.setdefault(self.root(tenant), set()).add(tenant)
            self._stale.update(self._below)
        moved = {tenant for root in self._stale for tenant in self._below.get(root, ())}
        self._stale.clear()
        changed = [tenant for tenant in moved if self._ranks.get(tenant) != self.of(tenant)]
        if 8 * len(changed) > len(self._ranks):
            self._ranks.update((tenant, self.of(tenant)) for tenant in changed)
            self._ranked = sorted((key, tenant) for tenant, key in self._ranks.items())
        else:
            for tenant in changed:
                del self._ranked[bisect_left(self._ranked, (self._ranks[tenant], tenant))]
                self._ranks[tenant] = self.of(tenant)
                insort(self._ranked, (self._ranks[tenant], tenant))
        return self._ranked

    def root(self, tenant: str) -> str:
        """The tenant at the top of its tree."""
        found = self._roots.get(tenant)
        if found is None:
            found = self._roots[tenant] = self._entitlements.ancestry(tenant)[-1]
        return found


class FairShare:
    """The tenant with the smaller share goes first; see `Entitlements.path`."""

    def __init__(self, entitlements: Entitlements, floors: Floors, wants: Wants, charged: Set[str]) -> None:
        """`entitlements`: the plan's own view; `charged`: the roots under which it has charged somebody, so far."""
        self._entitlements, self._floors, self._wants, self._charged = entitlements, floors, wants, charged
        self._wanted: dict[Shape, tuple[int, str]] = {}

    def ranked(self, tenants: Mapping[str, object]) -> Iterator[tuple[Key, str]]:
        return (entry for entry in self._floors.ranked() if entry[1] in tenants)

    def floor(self, tenant: str) -> Key:
        return self._floors.of(tenant)

    def after(self, tenant: str, shape: Shape) -> Key:
        wanted = self._wanted.get(shape)
        if wanted is None:
            wanted = self._wanted[shape] = self._wants(shape)
        devices, accelerator = wanted
        if self._floors.root(tenant) in self._charged:
            return self._entitlements.path(tenant, accelerator, devices)
        return self._floors.of(tenant, devices, accelerator)
