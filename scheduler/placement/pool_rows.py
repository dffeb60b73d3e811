"""The rows of one pool that a plan may give away: what is free on them, what fits, and where they stand.

For each shape of pod the number that fits on each row is kept, and worked out anew only
for the rows that were touched since.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from scheduler.fleet import PodSet, PoolState
from scheduler.fleet.attributes import NONE, Codes
from scheduler.placement.ask import PodAsk
from scheduler.placement.bestfit import Ints, Mask, capacity
from scheduler.placement.eligibility import shape_refuses
from scheduler.placement.fragments import MILLI
from scheduler.placement.shared_rows import SharedRows


@dataclass(frozen=True, slots=True)
class NewRow:
    """A machine that is to become a node."""

    name: str
    labels: Mapping[str, str]
    domains: Mapping[str, str]  # topology level → domain, "" where there is none


class ReadyRows(Protocol):
    """What is known of the ready nodes of a pool, in the order of its rows."""

    def mask(self, pod_set: PodSet) -> Mask:
        """Which of them suit."""

    def domains(self, level: str) -> tuple[Codes, list[str]]:
        """(code of each node's domain, names by code)."""


@dataclass(slots=True)
class _Room:
    caps: Ints  # how many pods of a shape fit on each row, true up to position `seen` of the log
    seen: int


@dataclass(slots=True)
class _Level:
    codes: Codes
    names: list[str]
    of: dict[str, int]


class PoolRows:
    """Ready nodes first, then machines on their way, then those that this plan asks for.

    A row gives away either whole devices or shares: shares as long as one is held on it.
    While it is shared, no whole device of it counts as free.
    """

    def __init__(
        self,
        pool: PoolState,
        names: Sequence[str],
        free: Ints,
        device: int,
        ready_rows: ReadyRows,
        total: Ints | None = None,
        shared: Mapping[int, Mapping[int, int]] | None = None,
    ) -> None:
        """`free`: shape (names, columns), owned by the supply from here on. `device`: the devices' column.

        `total`: the devices of each row, those in use among them; what is free when absent.
        `shared`: row → device → milli-devices that shares hold. A row where whole devices
        are in use beside shares has nothing free: which devices these are is not known.
        """
        self.pool = pool
        self.names = list(names)
        self.ready = len(names)
        self.free = free
        self.device = device
        self.total = free[:, device].copy() if total is None else total
        self.log: list[int] = []  # rows in the order in which their room changed
        self.shared = SharedRows(self.ready, int(self.total.max(initial=0)))
        self._ready_rows = ready_rows
        self._new: list[NewRow] = []
        self._masks: dict[Hashable, Mask] = {}
        self._rooms: dict[Hashable, _Room] = {}
        self._levels: dict[str, _Level] = {}
        for row, held in sorted((shared or {}).items()):
            whole = int(self.total[row])
            mixed = int(free[row, device]) < whole
            self.shared.open(row, whole, dict.fromkeys(range(whole), MILLI) if mixed else held)
            free[row, device] = 0

    def __len__(self) -> int:
        return len(self.names)

    def add(self, rows: Sequence[NewRow], free: Ints) -> None:
        """Add rows behind the others. `free`: shape (rows, columns)."""
        start, size = len(self.names), len(self.names) + len(rows)
        if size > self.free.shape[0]:
            more = max(size, 2 * self.free.shape[0]) - self.free.shape[0]
            self.free = np.concatenate([self.free, np.zeros((more, self.free.shape[1]), dtype=np.int64)])
            self.total = np.concatenate([self.total, np.zeros(more, dtype=np.int64)])
        self.free[start:size] = free
        self.total[start:size] = np.maximum(free[:, self.device], self.pool.allocatable.get(self.pool.resource, 0))
        self.shared.resize(size, int(self.total[start:size].max(initial=0)))
        self.names.extend(row.name for row in rows)
        self._new.extend(rows)

    def drop_last(self, count: int) -> None:
        """Take away the last rows again. Nothing may be placed on them."""
        size = len(self.names) - count
        del self.names[size:], self._new[size - self.ready :]
        for room in self._rooms.values():
            room.caps = room.caps[:size]
        self._masks = {key: mask[:size] for key, mask in self._masks.items()}
        for level in self._levels.values():
            level.codes = level.codes[:size]

    # Room

    def take(self, pod: PodAsk, row: int, count: int, device: int = 0) -> None:
        """Take the room of `count` pods; of shares one at a time, on this device."""
        self.free[row] -= pod.request * count
        if pod.pod.share:
            if row not in self.shared:
                self.shared.open(row, int(self.total[row]), {})
                self.free[row, self.device] = 0
            self.shared.take(row, device, pod.pod.milli)
        self.log.append(row)

    def untake(self, pod: PodAsk, row: int, count: int, devices: Sequence[int] = ()) -> None:
        """Give room back. `devices`: of the shares."""
        self.free[row] += pod.request * count
        for device in devices:
            if self.shared.give_back(row, device, pod.pod.milli):
                self.free[row, self.device] = self.total[row]
        self.log.append(row)

    def capacity(self, pod: PodAsk, rows: Ints) -> Ints:
        """How many pods of this set have room on these rows, whether or not these suit."""
        caps = capacity(self.free[rows], pod.request)
        if pod.pod.share:
            np.minimum(caps, self._shares(rows, pod.pod.milli), out=caps)
        return caps

    def _shares(self, rows: Ints, milli: int) -> Ints:
        # A row with all devices free may become shared; one with some in use may not.
        total = self.total[rows]
        fit: Ints = np.where(self.free[rows, self.device] == total, total * (MILLI // milli), 0)
        shared = self.shared.mask(rows)
        if shared.any():
            fit[shared] = (self.shared.free(rows[shared]) // milli).sum(axis=1)
        return fit

    def eligible(self, pod: PodAsk) -> Mask:
        """Rows that suit the pods of this set, room aside. Shape (rows,)."""
        mask = self._masks.get(pod.suits)
        if mask is None:
            mask = self._ready_rows.mask(pod.pod_set)
        if mask.size < len(self):
            more = [
                not shape_refuses(pod.pod_set, row.labels, (), self.pool.confidential)
                for row in self._new[mask.size - self.ready :]
            ]
            mask = np.concatenate([mask, np.array(more, dtype=np.bool_)])
        self._masks[pod.suits] = mask
        return mask

    def room(self, pod: PodAsk) -> Ints:
        """How many pods of this set fit on each row. Shape (rows,); not to be changed."""
        size, end = len(self), len(self.log)
        room = self._rooms.get(pod.room)
        if room is None:
            room = self._rooms[pod.room] = _Room(np.zeros(0, dtype=np.int64), end)
        known = room.caps.size
        if end - room.seen > max(known, 64):
            known = 0
        elif end > room.seen:
            rows = np.unique(np.array(self.log[room.seen :], dtype=np.int64))
            rows = rows[rows < known]
            room.caps[rows] = np.where(self.eligible(pod)[rows], self.capacity(pod, rows), 0)
        if known < size:
            more = np.where(self.eligible(pod)[known:], self.capacity(pod, np.arange(known, size)), 0)
            room.caps = np.concatenate([room.caps[:known], more])
        room.seen = end
        return room.caps

    # Topology

    def level(self, level: str) -> tuple[Codes, list[str]]:
        """(code of each row's domain, names by code). NONE where a row stands in no domain."""
        known = self._levels.get(level)
        if known is None:
            codes, names = self._ready_rows.domains(level)
            known = self._levels[level] = _Level(codes, list(names), {name: code for code, name in enumerate(names)})
        if known.codes.size < len(self):
            more = []
            for row in self._new[known.codes.size - self.ready :]:
                domain = row.domains.get(level, "")
                if domain and domain not in known.of:
                    known.of[domain] = len(known.names)
                    known.names.append(domain)
                more.append(known.of[domain] if domain else NONE)
            known.codes = np.concatenate([known.codes, np.array(more, dtype=np.int32)])
        return known.codes, known.names

    def room_by_domain(self, pod: PodAsk, level: str, limit: int, most: int) -> Ints:
        """Room of each domain by its code, a row counted up to `most` pods."""
        codes, names = self.level(level)
        codes = codes[:limit]
        inside = codes != NONE
        counted = np.minimum(self.room(pod)[:limit], most)[inside]
        return np.bincount(codes[inside], weights=counted, minlength=len(names)).astype(np.int64)
