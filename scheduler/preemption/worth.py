"""What it costs to let running work go, and the orders that follow from it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from scheduler.placement.bestfit import Ints
from scheduler.preemption.decision import Cost
from scheduler.preemption.entitlements import Entitlements
from scheduler.running.columns import BASE, EXTRA, Columns

Floats = NDArray[np.float64]


class Worth:
    """Per item (slot * 2 + part) of what runs.

    The order: extra pods of elastic gangs before whole workloads; then lower priority, tenants
    further above their share, less lost work, fewer pods, the younger, and the key.
    """

    def __init__(self, running: Columns, rights: Entitlements, now: float) -> None:
        """`now`: seconds since the epoch."""
        self._running = running
        self._excess = _excess(running, rights)
        kept = np.maximum(running.admitted_at, running.checkpointed_at)
        elapsed: Floats = np.maximum(now - kept, 0.0)
        lost: Floats = running.devices.astype(np.float64) * elapsed[:, None]
        self.lost: Floats = lost.reshape(-1)
        may = np.repeat(running.live & running.preemptible, 2) & (running.pods.reshape(-1) > 0)
        self._items = np.flatnonzero(may)
        self.by_cost = self._sorted(self._cost_keys())
        self._by_size: Ints | None = None

    @property
    def by_size(self) -> Ints:
        """Those with the most devices first, then as by cost: for when few victims may go."""
        if self._by_size is None:
            size = self._running.devices.reshape(-1)[self.by_cost]
            part = self.by_cost % 2 == BASE
            self._by_size = self.by_cost[np.lexsort((np.arange(size.size), -size, part))]
        return self._by_size

    def of(self, items: Ints) -> Cost:
        """What a set costs, as compared between sets; see `Preemption`."""
        if items.size == 0:
            return ()
        running, slot = self._running, items // 2
        return (
            float((items % 2 == BASE).any()),
            float(running.priority[slot].max()),
            -float(self._excess[slot].min()),
            float(self.lost[items].sum()),
            float(running.pods.reshape(-1)[items].sum()),
            -float(running.admitted_at[slot].min()),
        )

    def _cost_keys(self) -> tuple[NDArray[np.generic], ...]:
        # The last is the first to be compared, as numpy has it.
        running, items = self._running, self._items
        slot = items // 2
        return (
            -running.admitted_at[slot],
            running.pods.reshape(-1)[items],
            self.lost[items],
            -self._excess[slot],
            running.priority[slot],
            items % 2 != EXTRA,
        )

    def _sorted(self, keys: tuple[NDArray[np.generic], ...]) -> Ints:
        order = np.lexsort(keys)
        items = self._items[order]
        if items.size < 2:
            return items
        alike = np.ones(items.size - 1, dtype=np.bool_)
        for key in keys:
            alike &= key[order][1:] == key[order][:-1]
        # Runs of equals go by key: slots say in which order they came, which must not matter.
        starts = np.flatnonzero(np.diff(np.concatenate([[False], alike, [False]]).astype(np.int8)) == 1)
        ends = np.flatnonzero(np.diff(np.concatenate([[False], alike, [False]]).astype(np.int8)) == -1)
        for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
            run = items[start : end + 1].tolist()
            items[start : end + 1] = sorted(run, key=lambda item: self._running.key(item // 2))
        return items


def _excess(running: Columns, rights: Entitlements) -> Floats:
    """By slot; 0 in holes."""
    classes = max(len(running.accelerators), 1)
    excess = np.zeros(running.live.size)
    slots = np.flatnonzero(running.live)
    pairs, at = np.unique(running.tenant[slots] * classes + running.accelerator[slots], return_inverse=True)
    values = [
        rights.excess(running.tenants[pair // classes], running.accelerators[pair % classes]) for pair in pairs.tolist()
    ]
    excess[slots] = np.array(values, dtype=np.float64)[at]
    return excess
