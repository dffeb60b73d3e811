"""How much of the cloud a tenant has, for its weight."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from crds.labels import ACCELERATOR
from scheduler.fleet import Fleet
from scheduler.fleet.shape import Shape

Usage = Mapping[tuple[str, str], int]  # (tenant, accelerator) → devices


class Shares:
    """Of all tenants, by usage as it stands when it is asked for."""

    def __init__(self, fleet: Fleet, usage: Usage) -> None:
        self._fleet, self._usage = fleet, usage
        self._wanted: dict[Shape, tuple[int, str]] = {}
        self._total: dict[str, int] = defaultdict(int)
        for pool in fleet.pools.values():
            self._total[pool.accelerator] += pool.maximum * pool.per_node

    def floor(self, name: str) -> tuple[float, float]:
        """What it borrows and uses now: never more than `after` says."""
        tenant = self._fleet.tenants.get(name)
        if tenant is None:
            return 0.0, 0.0
        borrows = uses = 0.0
        for accelerator, quota in tenant.quota.items():
            used = self._usage.get((name, accelerator), 0)
            if used:
                total = max(self._total.get(accelerator, 0), 1)
                uses, borrows = max(uses, used / total), max(borrows, (used - quota.nominal) / total)
        return borrows / tenant.weight, uses / tenant.weight

    def after(self, name: str, shape: Shape) -> tuple[float, float]:
        """(what the tenant would borrow with a workload of the shape, what it uses now), each ÷ weight.

        Each is the largest part of any class's devices. What the workload would add counts
        for the first, so that nobody begins to borrow while another is within its nominal
        quota; where several classes would do, the one where it borrows least.
        """
        tenant = self._fleet.tenants.get(name)
        if tenant is None:
            return 0.0, 0.0  # it is told that its tenant does not exist, and takes nothing
        devices, chosen = self._wants(shape)
        borrows = uses = 0.0
        would = []
        for accelerator, quota in tenant.quota.items():
            used, total = self._usage.get((tenant.name, accelerator), 0), max(self._total.get(accelerator, 0), 1)
            uses = max(uses, used / total)
            borrows = max(borrows, (used - quota.nominal) / total)
            if devices and chosen in {"", accelerator}:
                would.append((used + devices - quota.nominal) / total)
        return max(borrows, min(would, default=0.0), 0.0) / tenant.weight, uses / tenant.weight

    def _wants(self, shape: Shape) -> tuple[int, str]:
        """(devices, the class that it selects; empty when any will do)."""
        wanted = self._wanted.get(shape)
        if wanted is None:
            devices = sum(self._fleet.devices_of(one.requests) * one.count for one in shape.pod_sets)
            classes = [one.node_selector[ACCELERATOR] for one in shape.pod_sets if ACCELERATOR in one.node_selector]
            wanted = self._wanted[shape] = devices, classes[0] if classes else ""
        return wanted
