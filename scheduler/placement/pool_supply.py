"""The rows of one pool that a plan may give away, and placement on them.

Room is taken and given back in place. For each shape of pod the number that fits on each
row is kept, and worked out anew only for the rows that were touched since.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from scheduler.fleet import PodSet, PoolState
from scheduler.fleet.attributes import NONE, Codes
from scheduler.placement.ask import Ask, PodAsk
from scheduler.placement.bestfit import Assignment, Ints, Mask, capacity, spread
from scheduler.placement.eligibility import shape_refuses

_RANK_CAP = 1 << 20  # room beyond this is not told apart


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


class PoolSupply:
    """Ready nodes first, then machines on their way, then those that this plan asks for."""

    def __init__(self, pool: PoolState, names: Sequence[str], free: Ints, device: int, ready_rows: ReadyRows) -> None:
        """`free`: shape (names, columns), owned by the supply from here on. `device`: the devices' column."""
        self.pool = pool
        self.names = list(names)
        self.ready = len(names)
        self.free = free
        self.takers: Ints = np.zeros(len(names), dtype=np.int64)  # decisions of this plan that use the row
        self._device = device
        self._ready_rows = ready_rows
        self._new: list[NewRow] = []
        self._log: list[int] = []  # rows in the order in which their room changed
        self._masks: dict[Hashable, Mask] = {}
        self._rooms: dict[Hashable, _Room] = {}
        self._levels: dict[str, _Level] = {}

    def __len__(self) -> int:
        return len(self.names)

    def add(self, rows: Sequence[NewRow], free: Ints) -> None:
        """Add rows behind the others. `free`: shape (rows, columns)."""
        start, size = len(self.names), len(self.names) + len(rows)
        if size > self.free.shape[0]:
            more = max(size, 2 * self.free.shape[0]) - self.free.shape[0]
            self.free = np.concatenate([self.free, np.zeros((more, self.free.shape[1]), dtype=np.int64)])
            self.takers = np.concatenate([self.takers, np.zeros(more, dtype=np.int64)])
        self.free[start:size] = free
        self.takers[start:size] = 0
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

    # What fits where

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
        size, end = len(self), len(self._log)
        room = self._rooms.get(pod.room)
        if room is None:
            room = self._rooms[pod.room] = _Room(np.zeros(0, dtype=np.int64), end)
        known = room.caps.size
        if end - room.seen > max(known, 64):
            known = 0
        elif end > room.seen:
            rows = np.unique(np.array(self._log[room.seen :], dtype=np.int64))
            rows = rows[rows < known]
            room.caps[rows] = np.where(self.eligible(pod)[rows], capacity(self.free[rows], pod.request), 0)
        if known < size:
            more = np.where(self.eligible(pod)[known:], capacity(self.free[known:size], pod.request), 0)
            room.caps = np.concatenate([room.caps[:known], more])
        room.seen = end
        return room.caps

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

    # Placement

    def place(self, ask: Ask, limit: int) -> Assignment | None:
        """Place all pods on the first `limit` rows and take the room, honouring topology; or change nothing."""
        placed = self._place_inside(ask, limit) if ask.level else None
        if placed is None and not ask.shape.required_topology:
            placed = self._place(ask, slice(0, limit))
        if placed is not None:
            for _, row, _ in placed:
                self.takers[row] += 1
        return placed

    def give_back(self, ask: Ask, placed: Assignment) -> None:
        """Undo a placement."""
        self._undo(ask, placed)
        for _, row, _ in placed:
            self.takers[row] -= 1

    def adjust(self, rows: Ints, amounts: Ints) -> None:
        """Add `amounts` (rows, columns) to what is free; below 0, nothing fits there. No row may come twice."""
        self.free[rows] += amounts
        self._log.extend(rows.tolist())

    def _place_inside(self, ask: Ask, limit: int) -> Assignment | None:
        # The domain where the least room is left over; ties go to the first by name.
        level = ask.level
        codes, names = self.level(level)
        good = np.ones(len(names), dtype=np.bool_)
        for pod in ask.pods:
            good &= self.room_by_domain(pod, level, limit, pod.count) >= pod.count
        if not good.any():
            return None
        left = self.room_by_domain(ask.pods[0], level, limit, _RANK_CAP)
        for code in sorted(np.flatnonzero(good).tolist(), key=lambda one: (int(left[one]), names[one])):
            placed = self._place(ask, np.flatnonzero(codes[:limit] == code))
            if placed is not None:
                return placed
        return None

    def _place(self, ask: Ask, rows: Ints | slice) -> Assignment | None:
        for pod in ask.pods:
            if int(np.minimum(self.room(pod)[rows], pod.count).sum()) < pod.count:
                return None
        for tight in (False, True) if len(ask.pods) > 1 else (False,):
            for order in ask.orders():
                placed = self._try(ask, order, rows, tight)
                if placed is not None:
                    return sorted(placed)
        return None

    def _try(self, ask: Ask, order: Sequence[int], rows: Ints | slice, tight: bool) -> Assignment | None:
        placed: Assignment = []
        for index in order:
            pod = ask.pods[index]
            chosen = spread(self.room(pod)[rows], pod.count, self.free[rows, self._device], tight)
            if chosen is None:
                self._undo(ask, placed)
                return None
            mine = [(index, at if isinstance(rows, slice) else int(rows[at]), count) for at, count in chosen]
            for _, row, count in mine:
                self.free[row] -= pod.request * count
                self._log.append(row)
            placed.extend(mine)
        return placed

    def _undo(self, ask: Ask, placed: Assignment) -> None:
        for index, row, count in placed:
            self.free[row] += ask.pods[index].request * count
            self._log.append(row)
