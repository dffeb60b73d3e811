"""Machines to come: the fewest of the cheapest pool with which a waiting gang fits whole.

It asks the placement code itself, with machines added that do not exist yet, so that
what is bought is what will be used.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from scheduler.autoscale.slots import domains_of, free_slots
from scheduler.fleet import Fleet, PoolState, WorkloadState
from scheduler.placement.bestfit import Assignment, Ints, Mask
from scheduler.placement.eligibility import shape_refuses
from scheduler.placement.supply import Supply, fit_rows


@dataclass(frozen=True, slots=True)
class Growth:
    """New slots of a pool with which the workload fits, and where it would go."""

    pool: PoolState
    slots: tuple[int, ...]
    assignment: Assignment

    @property
    def cost_micro(self) -> int:
        """Price an hour of the machines added, millionths."""
        return self.pool.price_micro * len(self.slots)


def grow(
    fleet: Fleet, supply: Supply, pool: PoolState, workload: WorkloadState, requests: Sequence[Ints], asked: set[str]
) -> Growth | None:
    """The fewest new machines of this pool that let the workload fit; None when its maximum forbids."""
    have = supply.pools[pool.name]
    base = [have.eligible(pod_set) for pod_set in workload.pod_sets]
    fresh = [not shape_refuses(s, pool.labels, pool.taints, pool.confidential) for s in workload.pod_sets]
    vector = supply.node_vector(pool)
    for group in _groups(pool, workload.required_topology, free_slots(fleet, pool, asked)):
        for many in _attempts(len(group), _at_least(workload, requests, vector, have.free, base)):
            slots = group[:many]
            free = np.concatenate([have.free, np.tile(vector, (many, 1))])
            eligible: list[Mask] = [
                np.concatenate([mask, np.full(many, ok)]) for mask, ok in zip(base, fresh, strict=True)
            ]
            domains = [*have.domains, *(domains_of(pool, slot) for slot in slots)]
            assignment = fit_rows(workload, requests, free, eligible, domains)
            if assignment is not None:
                return Growth(pool, tuple(slots), assignment)
    return None


def _groups(pool: PoolState, level: str, slots: Iterable[int]) -> list[list[int]]:
    """Slots that may be asked for together: all, or those of one domain."""
    if not level:
        return [list(slots)]
    by_domain: dict[str, list[int]] = defaultdict(list)
    for slot in slots:
        by_domain[domains_of(pool, slot)[level]].append(slot)
    return [group for domain, group in by_domain.items() if domain]


def _at_least(
    workload: WorkloadState, requests: Sequence[Ints], vector: Ints, free: Ints, eligible: Sequence[Mask]
) -> int:
    """A lower bound of the machines that are missing, by each resource taken alone."""
    need = sum(
        (request * pod_set.count for request, pod_set in zip(requests, workload.pod_sets, strict=True)),
        start=np.zeros_like(vector),
    )
    usable = np.zeros(free.shape[0], dtype=np.bool_)
    for mask in eligible:
        usable |= mask
    missing = need - np.maximum(free[usable], 0).sum(axis=0)
    offered = vector > 0
    if (missing[~offered] > 0).any():
        return 1 << 30
    bound = -(-missing[offered] // vector[offered])
    return max(1, int(bound.max(initial=1)))


def _attempts(most: int, least: int) -> Iterable[int]:
    """Numbers of machines to try: upwards from the bound, then in growing steps, at last all."""
    step, many = 1, least
    while many <= most:
        yield many
        many += step
        step += 1 if many - least >= 8 else 0
    if least <= most < many and many - step < most:
        yield most
