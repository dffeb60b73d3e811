"""Why each pending workload waits, worked out when somebody asks.

Thousands wait for the same reason, and few are asked about in one cycle. The answers are
about the state at the end of the plan, and are to be read before the fleet is changed;
read later they are about what the fleet has become.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from scheduler.cycle.admit import Admitting
from scheduler.cycle.claim import Claiming
from scheduler.cycle.scratch import Scratch
from scheduler.decision import Waiting
from scheduler.explain import reasons
from scheduler.explain.reasons import Reason
from scheduler.fleet import TenantState, WorkloadState
from scheduler.fleet.shape import Shape
from scheduler.reserving import Reservation, Reservations


class Waits:
    """A collection of `Waiting` in the order of keys, one for each pending workload that the plan did not admit."""

    def __init__(self, scratch: Scratch, admitting: Admitting, claiming: Claiming, reservations: Reservations) -> None:
        self._scratch, self._coming, self._evicting = scratch, admitting.coming, claiming.evicting
        self._admitted = frozenset(one.workload for one in admitting.admissions)
        self._reserved = {one.workload: one for one in reservations}
        self._count = len(scratch.fleet.pending) - len(self._admitted)
        self._known: dict[tuple[str, Shape], tuple[Reason, ...]] = {}

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Waiting]:
        for key in sorted(self._scratch.fleet.pending):
            why = self.of(key)
            if why is not None:
                yield Waiting(key, why)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Waits) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def of(self, key: str) -> tuple[Reason, ...] | None:
        """The reasons in order; None when it does not wait (any more)."""
        workload = self._scratch.fleet.pending.get(key)
        if workload is None or key in self._admitted:
            return None
        if key in self._coming:
            return (self._coming[key],)
        tenant = self._scratch.fleet.tenants.get(workload.tenant)
        if tenant is None:
            return (reasons.tenant_unknown(workload.tenant),)
        if tenant.hold:
            return (reasons.on_hold(tenant.name),)
        if not workload.checks_passed:
            return (reasons.check_pending(),)
        if workload.not_before > self._scratch.now:
            return (reasons.put_back(_clock(workload.not_before)),)
        if key in self._evicting:
            return (reasons.evicting(*self._evicting[key]),)
        held = self._reserved.get(key)
        if held is not None and held.basis.kind == "evicts":
            return (_reserved(held),)
        why = self._of_shape(tenant, workload)
        return why if held is None else (*why, _reserved(held))

    def _of_shape(self, tenant: TenantState, workload: WorkloadState) -> tuple[Reason, ...]:
        scratch = self._scratch
        shape = scratch.fleet.shapes[workload.key]
        known = self._known.get((tenant.name, shape))
        if known is not None:
            return known
        pools, tried = scratch.pools_for(scratch.rights(tenant), shape)
        ask = scratch.supply.ask(shape)
        why: dict[Reason, None] = {}  # ordered, each once
        if ask is None or not pools:
            why[reasons.no_pool_fits(tried)] = None
        else:
            for pool in pools:
                refused = scratch.entitlements.refuse(tenant.name, pool.accelerator, ask.devices)
                if refused is not None:
                    why[refused] = None
            for pool in pools:
                if scratch.entitlements.refuse(tenant.name, pool.accelerator, ask.devices) is None and (
                    scratch.is_full(pool, shape) or not scratch.may_have_room(pool, shape, ask)
                ):
                    why[scratch.full(pool, shape, ask)] = None
            if not why:
                why[reasons.not_its_turn(tenant.name)] = None
        self._known[tenant.name, shape] = tuple(why)
        return self._known[tenant.name, shape]


def _reserved(held: Reservation) -> Reason:
    basis = {
        "free": "as soon as it is admitted",
        "ends": f"when {held.basis.workload or 'what runs there'} ends",
        "evicts": f"when {held.basis.workload or 'what runs there'} has stopped",
        "drains": f"no end of what runs there is known; room for {held.basis.missing} pods is missing yet",
    }[held.basis.kind]
    nodes = len({hold.node for hold in held.holds})
    start = _clock(held.start) if held.start is not None and held.basis.kind == "ends" else ""
    return reasons.reserved(held.pool, nodes, start, basis)


def _clock(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
