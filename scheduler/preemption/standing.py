"""Which running work is guaranteed by its tenant's nominal quota, and which is borrowed.

The rule is in the package's docstring. Items are slot * 2 + part, as in `PoolRoom`.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from scheduler.placement.bestfit import Ints, Mask
from scheduler.preemption.entitlements import Entitlements
from scheduler.running.columns import BASE, EXTRA, Columns


class Standing:
    """Guaranteed or borrowed, item by item, for what runs and what this plan has decided to start."""

    def __init__(self, running: Columns, rights: Entitlements) -> None:
        self._running, self._rights = running, rights
        size = running.live.size
        self.borrowed: Mask = np.zeros(2 * size, dtype=np.bool_)
        self._gone: Mask = np.zeros(2 * size, dtype=np.bool_)
        # By (tenant, class): priority and devices of what starts once victims have gone.
        self._starting: dict[tuple[str, str], list[tuple[int, int]]] = defaultdict(list)
        classes = max(len(running.accelerators), 1)
        counted = running.live & (running.devices.sum(axis=1) > 0)
        self._pair: Ints = np.where(counted, running.tenant * classes + running.accelerator, -1)
        self._by_pair = np.argsort(self._pair, kind="stable")
        self._sorted = self._pair[self._by_pair]
        slots = np.flatnonzero(counted)
        used = np.bincount(
            self._pair[slots],
            weights=running.devices[slots].sum(axis=1),
            minlength=1,
        ).astype(np.int64)
        for pair in np.flatnonzero(used).tolist():
            tenant, accelerator = running.tenants[pair // classes], running.accelerators[pair % classes]
            if used[pair] > rights.nominal(tenant, accelerator):
                self._mark(pair)

    def guaranteed(self, tenant: str, accelerator: str, priority: int, devices: int) -> bool:
        """Whether a workload that starts now with these devices would be guaranteed."""
        running = self._running
        nominal = self._rights.nominal(tenant, accelerator)
        above = sum(held for rank, held in self._starting.get((tenant, accelerator), ()) if rank >= priority)
        pair = self._pair_of(tenant, accelerator)
        if pair >= 0:
            slots = self._slots(pair)
            slots = slots[running.priority[slots] >= priority]
            slots = slots[~self.borrowed[2 * slots] & ~self._gone[2 * slots]]
            above += int(running.devices[slots, BASE].sum())
        return above + devices <= nominal

    def evict(self, items: Ints) -> None:
        """These have been chosen as victims."""
        self._gone[items] = True
        for pair in np.unique(self._pair[items // 2]).tolist():
            if pair >= 0:
                self._mark(pair)

    def start(self, tenant: str, accelerator: str, priority: int, devices: int) -> None:
        """A workload has been promised the victims' room."""
        self._starting[tenant, accelerator].append((priority, devices))
        pair = self._pair_of(tenant, accelerator)
        if pair >= 0:
            self._mark(pair)

    def _pair_of(self, tenant: str, accelerator: str) -> int:
        running = self._running
        if tenant not in running.tenants or accelerator not in running.accelerators:
            return -1
        return running.tenants.index(tenant) * len(running.accelerators) + running.accelerators.index(accelerator)

    def _slots(self, pair: int) -> Ints:
        start, end = np.searchsorted(self._sorted, [pair, pair + 1])
        return self._by_pair[start:end]

    def _mark(self, pair: int) -> None:
        running, classes = self._running, max(len(self._running.accelerators), 1)
        tenant, accelerator = running.tenants[pair // classes], running.accelerators[pair % classes]
        left = self._rights.nominal(tenant, accelerator)
        slots = [slot for slot in self._slots(pair).tolist() if not self._gone[2 * slot + BASE]]
        line = [(-int(running.priority[at]), float(running.admitted_at[at]), running.key(at), at) for at in slots]
        starting = self._starting.get((tenant, accelerator), ())
        # What starts now is the last of its priority.
        line.extend((-rank, np.inf, "", -1 - index) for index, (rank, _) in enumerate(starting))
        line.sort()
        for _, _, _, slot in line:
            devices = int(running.devices[slot, BASE]) if slot >= 0 else starting[-1 - slot][1]
            fits = devices <= left
            left -= devices if fits else 0
            if slot >= 0:
                self.borrowed[2 * slot + BASE] = not fits
        for _, _, _, slot in line:
            if slot >= 0:
                extra = 0 if self._gone[2 * slot + EXTRA] else int(running.devices[slot, EXTRA])
                fits = extra <= left and not self.borrowed[2 * slot + BASE]
                left -= extra if fits else 0
                self.borrowed[2 * slot + EXTRA] = not fits
