"""Whether all pods of an ask fit on rows with a given free room: placement, asked of plain arrays.

It places as `PoolSupply.place` does, but over an array that the caller makes up, so that
"if these were gone" needs no change of a supply. Shares of devices are not looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from scheduler.fleet.attributes import NONE
from scheduler.placement.ask import Ask
from scheduler.placement.bestfit import Assignment, Ints, Mask, capacity, spread
from scheduler.placement.pool_supply import PoolSupply


@dataclass(frozen=True, slots=True)
class Question:
    """An ask on the ready rows of a pool.

    `masks[i]`: rows that suit pod set i, shape (rows,); `domain`: the row's domain code, 0 for
    all when no topology is required, -1 for rows that stand in none; `columns`: the
    resource columns that matter; `requests`: shape (pod sets, those columns); `device`: the
    position of the devices' column among them, -1 when none asks for devices.
    """

    ask: Ask
    masks: tuple[Mask, ...]
    domain: Ints
    domains: int
    columns: Ints
    requests: Ints
    device: int

    @classmethod
    def of(cls, ask: Ask, supply: PoolSupply, device: int) -> Question:
        """`device`: the devices' column of the pool's resource in the supply."""
        size, level = supply.ready, ask.shape.required_topology
        masks = tuple(supply.eligible(pod)[:size] for pod in ask.pods)
        domain, domains = np.zeros(size, dtype=np.int64), 1
        if level:
            codes, names = supply.level(level)
            domain, domains = codes[:size].astype(np.int64), len(names)
        whole = np.array([pod.request for pod in ask.pods])
        columns = np.flatnonzero(whole.any(axis=0))
        at = np.flatnonzero(columns == device)
        return cls(ask, masks, domain, domains, columns, whole[:, columns], int(at[0]) if at.size else -1)

    @property
    def answerable(self) -> bool:
        """False for shares of devices, whose room is not a column."""
        return all(
            pod.pod_set.milli >= 1000 or not any("/" in name for name in pod.pod_set.requests) for pod in self.ask.pods
        )

    def caps(self, free: Ints, rows: Ints | slice = slice(None)) -> list[Ints]:
        """How many pods of each set fit on each of `rows`, counted up to the set's count.

        `free`: shape (rows, `columns`), in the order of `rows`.
        """
        found = []
        for pod, request, mask in zip(self.ask.pods, self.requests, self.masks, strict=True):
            caps = np.where(mask[rows], capacity(free, request), 0)
            found.append(np.minimum(caps, pod.count, out=caps))
        return found

    def fitting(self, caps: Sequence[Ints]) -> Mask:
        """Domains where each pod set taken alone has room. Shape (domains,). Exact for one pod set."""
        good = np.ones(self.domains, dtype=np.bool_)
        inside = self.domain != NONE
        for pod, cap in zip(self.ask.pods, caps, strict=True):
            if self.domains == 1 and inside.all():
                good &= int(cap.sum()) >= pod.count
                continue
            good &= np.bincount(self.domain[inside], weights=cap[inside], minlength=self.domains) >= pod.count
        return good

    def place(self, free: Ints, rows: Ints) -> Assignment | None:
        """Where all pods go within `rows`; None when no place was found.

        `free`: shape (len(rows), `columns`); it is not changed. Rows in the answer are the pool's.
        """
        for tight in (False, True) if len(self.ask.pods) > 1 else (False,):
            for order in self.ask.orders():
                placed = self._try(order, free.copy(), rows, tight)
                if placed is not None:
                    return sorted(placed)
        return None

    def _try(self, order: Sequence[int], free: Ints, rows: Ints, tight: bool) -> Assignment | None:
        placed: Assignment = []
        for index in order:
            pod, request = self.ask.pods[index], self.requests[index]
            caps = np.where(self.masks[index][rows], capacity(free, request), 0)
            devices = free[:, self.device] if self.device >= 0 else np.zeros(rows.size, dtype=np.int64)
            chosen = spread(caps, pod.count, devices, tight)
            if chosen is None:
                return None
            for at, count in chosen:
                free[at] -= request * count
                placed.append((index, int(rows[at]), count))
        return placed


def part_of(ask: Ask, counts: Sequence[int], device: int, anywhere: bool = False) -> Ask:
    """The same pods in other numbers; sets that are counted 0 are left out.

    `device`: the devices' column of the pool. `anywhere` drops what the shape says about
    topology, for pods whose rows the caller chooses. Indices into the answer's pod sets are
    its own: `indices_of` leads back.
    """
    pods = [
        replace(pod, count=count, pod_set=replace(pod.pod_set, count=count))
        for pod, count in zip(ask.pods, counts, strict=True)
        if count > 0
    ]
    shape = replace(ask.shape, pod_sets=tuple(pod.pod_set for pod in pods))
    if anywhere:
        shape = replace(shape, required_topology="", preferred_topology="")
    return Ask(shape, tuple(pods), sum(int(pod.request[device]) * pod.count for pod in pods))


def indices_of(counts: Sequence[int]) -> list[int]:
    """Pod set of `part_of`'s answer → pod set of the ask that it was made from."""
    return [index for index, count in enumerate(counts) if count > 0]
