"""Where and when a blocked workload will start: the earliest known time, else rows to drain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from scheduler.fleet.attributes import NONE
from scheduler.placement.ask import Ask
from scheduler.placement.bestfit import Assignment, Ints
from scheduler.reserving.holds import Held
from scheduler.reserving.reservation import Basis
from scheduler.reserving.timeline import Floats, Release, Timeline
from scheduler.running.question import Question
from scheduler.running.room import NEVER, PoolRoom, summed


@dataclass(frozen=True, slots=True)
class Spot:
    """Where an ask goes, and when. `still_held`: part of the rows (0 to 1 each, summed up) that must be freed yet."""

    pool: str
    assignment: Assignment
    start: float | None
    basis: Basis
    still_held: float


def reserve(
    ask: Ask,
    timeline: Timeline,
    free: Ints,
    others: Sequence[Held] = (),
    started: Sequence[Release] = (),
    previous: Held | None = None,
) -> Spot | None:
    """Where and when the ask fits in the timeline's pool, given the reservations made before it.

    `free`: the room now, shape (ready rows, columns), no hold taken off. `started`: what has been
    given room since the timeline was made. `previous`: what this
    ask had in this pool; rows to drain are kept from plan to plan, since what has been
    drained would be lost otherwise. None when it would not even fit with all gone that runs.
    """
    supply = timeline.room.supply
    question = Question.of(ask, supply, timeline.room.device)
    if not question.answerable or not free.shape[0]:
        return None
    free = free.copy()
    for one in others:
        free[one.rows] -= one.amounts
    further = [Release(one.reservation.workload, one.rows, one.amounts, one.end) for one in others if one.end < np.inf]
    further.extend(started)
    room, ends = timeline.with_further(further)
    left = free[:, question.columns]
    return _known(question, room, ends, left, timeline, further) or _drained(question, room, ends, left, previous)


def _known(
    question: Question, room: PoolRoom, ends: Floats, free: Ints, timeline: Timeline, further: Sequence[Release]
) -> Spot | None:
    """The earliest start that the ends of running work promise."""
    finite = np.isfinite(ends)
    times = np.unique(ends[finite])
    rank = np.full(ends.size, NEVER, dtype=np.int64)
    rank[finite] = np.searchsorted(times, ends[finite])
    depth = room.earliest(question, free, rank, times.size)
    names = room.supply.level(question.ask.shape.required_topology)[1] if question.domains > 1 else [""]
    possible = np.flatnonzero(depth <= times.size).tolist()
    while possible:
        domain = min(possible, key=lambda code: (int(depth[code]), names[code]))
        rows = np.flatnonzero(question.domain == domain)
        gone = np.flatnonzero((rank < depth[domain]) & (question.domain[room.row] == domain))
        local = np.searchsorted(rows, room.row[gone])
        then = free[rows] + summed(local, room.amounts[np.ix_(gone, question.columns)], rows.size)
        placed = question.place(then, rows)
        if placed is not None:
            if not depth[domain]:
                return Spot(room.supply.pool.name, placed, timeline.now, Basis("free"), 0.0)
            start = float(times[depth[domain] - 1])
            mine = np.unique(np.array([row for _, row, _ in placed], dtype=np.int64))
            last = _last(mine, start, timeline, further) or _last(rows, start, timeline, further)
            return Spot(room.supply.pool.name, placed, start, Basis("ends", last), 0.0)
        # Each of several pod sets has room by itself, but not yet all together.
        depth[domain] += 1
        if depth[domain] > times.size:
            possible.remove(domain)
    return None


def _last(rows: Ints, start: float, timeline: Timeline, further: Sequence[Release]) -> str:
    """The first by key of those on these rows that end then."""
    keys = {one.workload for one in further if one.end == start and np.isin(one.rows, rows).any()}
    return min(keys | {timeline.last_to_end(rows, start)} - {""}, default="")


def _drained(question: Question, room: PoolRoom, ends: Floats, free: Ints, previous: Held | None) -> Spot | None:
    """The rows of which the smallest part is still held by work of which nobody knows when it ends."""
    rows_all = free.shape[0]
    amounts = room.amounts[:, question.columns]
    known = np.isfinite(ends)
    then = free + summed(room.row[known], amounts[known], rows_all)
    empty = then + summed(room.row[~known], amounts[~known], rows_all)
    # The part of each row that is still to be freed, by its scarcest resource.
    part = ((empty - then) / np.maximum(empty, 1)).max(axis=1)
    placed = _as_before(question, empty, previous)
    if placed is None:
        caps = question.caps(empty)
        good, held = np.flatnonzero(question.fitting(caps)).tolist(), _still_held(question, caps, part)
        names = room.supply.level(question.ask.shape.required_topology)[1] if question.domains > 1 else [""]
        for domain in sorted(good, key=lambda code: (float(held[code]), names[code])):
            rows = np.flatnonzero(question.domain == domain)
            placed = _fewest(question, empty, rows[np.argsort(part[rows], kind="stable")])
            if placed is not None:
                break
    if placed is None:
        return None
    score = float(part[np.unique([row for _, row, _ in placed])].sum())
    return Spot(room.supply.pool.name, placed, None, Basis("drains", missing=_missing(question, free, placed)), score)


def _still_held(question: Question, caps: Sequence[Ints], part: Floats) -> Floats:
    """For each domain, the parts still held of the rows that suffice, those with the least first."""
    order = np.lexsort((part, question.domain))
    order = order[question.domain[order] != NONE]
    domain = question.domain[order]
    starts = np.searchsorted(domain, domain)
    needed = np.zeros(order.size, dtype=np.bool_)
    for pod, cap in zip(question.ask.pods, caps, strict=True):
        before = np.cumsum(cap[order]) - cap[order]
        needed |= before - before[starts] < pod.count
    held: Floats = np.bincount(domain[needed], weights=part[order[needed]], minlength=question.domains).astype(
        np.float64
    )
    return held


def _as_before(question: Question, empty: Ints, previous: Held | None) -> Assignment | None:
    if previous is None or previous.reservation.start is not None:
        return None
    rows = previous.rows[previous.rows < empty.shape[0]]
    domains = question.domain[rows]
    if rows.size == 0 or (domains == NONE).any() or np.unique(domains).size > 1:
        return None
    return question.place(empty[rows], rows)


def _fewest(question: Question, empty: Ints, rows: Ints) -> Assignment | None:
    """On the first of `rows` that suffice once they are empty."""
    total = [np.cumsum(caps) for caps in question.caps(empty[rows], rows)]
    many = 1 + max(int(np.searchsorted(caps, pod.count)) for caps, pod in zip(total, question.ask.pods, strict=True))
    while many <= rows.size:
        # `place` takes rows in the order of the pool.
        first = np.sort(rows[:many])
        placed = question.place(empty[first], first)
        if placed is not None:
            return placed
        many += max(1, many // 4)
    return question.place(empty[np.sort(rows)], np.sort(rows))


def _missing(question: Question, free: Ints, placed: Assignment) -> int:
    """How many of the pods placed do not fit there yet."""
    left, missing = free.copy(), 0
    for index, row, count in placed:
        request = question.requests[index]
        asked = request > 0
        fits = max(0, min(count, int((left[row, asked] // request[asked]).min(initial=count))))
        left[row] -= request * fits
        missing += count - fits
    return missing
