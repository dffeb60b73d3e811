"""The search in one pool: how far down the order victims must go, domain by domain, then trimmed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from scheduler.placement.bestfit import Assignment, Ints, Mask
from scheduler.preemption.decision import Cost
from scheduler.preemption.trim import Trim, Victims
from scheduler.running.question import Question
from scheduler.running.room import NEVER, PoolRoom, summed

_DOMAINS = 4  # domains that are looked at to the end: those where the fewest kinds of victims suffice


@dataclass(frozen=True, slots=True)
class Found:
    """Items that go, cheapest first, and where the ask goes then."""

    items: Ints
    assignment: Assignment
    cost: Cost


@dataclass(frozen=True, slots=True)
class Quota:
    """Limits that the claimant would exceed: `credit[item, limit]` devices come off each, `over[limit]` must."""

    credit: Ints
    over: Ints


def search(
    room: PoolRoom, question: Question, free: Ints, order: Ints, quota: Quota, cost_of: Callable[[Ints], Cost]
) -> Found | None:
    """The cheapest of the sets found in the most promising domains.

    `free`: shape (ready rows, `question.columns`). `order`: the items that may go, cheapest first.
    """
    end = order.size
    rank_of = np.full(int(max(order.max(initial=-1), room.item.max(initial=-1))) + 1, NEVER, dtype=np.int64)
    rank_of[order] = np.arange(end)
    rank = rank_of[room.item]
    depth = room.earliest(question, free, rank, end)
    for credit, over in zip(quota.credit[order].T, quota.over.tolist(), strict=True):
        depth = np.maximum(depth, int(np.searchsorted(np.cumsum(credit), over)) + 1)
    names = room.supply.level(question.ask.shape.required_topology)[1] if question.domains > 1 else [""]
    promising = sorted(np.flatnonzero(depth <= end).tolist(), key=lambda code: (int(depth[code]), names[code]))
    best: Found | None = None
    for domain in promising[:_DOMAINS]:
        inside = np.flatnonzero((rank < end) & (question.domain[room.row] == domain) & room.useful(question))
        found = _in_domain(room, question, free, domain, rank[inside], inside, order, int(depth[domain]), quota)
        if found is not None:
            cost = cost_of(found[0])
            if best is None or cost < best.cost:
                best = Found(*found, cost)
    return best


def _in_domain(
    room: PoolRoom,
    question: Question,
    free: Ints,
    domain: int,
    rank: Ints,
    entries: Ints,
    order: Ints,
    depth: int,
    quota: Quota,
) -> tuple[Ints, Assignment] | None:
    end, more = order.size, 1
    while True:
        deep = np.flatnonzero(rank < depth)
        deep = deep[_gaining(room, question, free, entries[deep])]
        deep = deep[np.argsort(rank[deep], kind="stable")]
        items = np.zeros(end, dtype=np.bool_)
        items[rank[deep]] = True
        items[:depth] |= (quota.credit[order[:depth]] > 0).any(axis=1)
        picked = np.flatnonzero(items)
        at = np.searchsorted(picked, rank[deep])
        victims = Victims(order[picked], entries[deep], at, quota.credit[order[picked]])
        found = Trim(room, question, free, domain, victims, quota.over).run()
        if found is not None or depth >= end or len(question.ask.pods) == 1:
            return found
        # For several pod sets the depth was a lower bound only.
        depth, more = min(depth + more, end), 2 * more


def _gaining(room: PoolRoom, question: Question, free: Ints, entries: Ints) -> Mask:
    """Those on rows where more pods fit with all of them gone. For one pod set the others are of no use."""
    if len(question.ask.pods) > 1 or entries.size == 0:
        return np.ones(entries.size, dtype=np.bool_)
    rows, local = np.unique(room.row[entries], return_inverse=True)
    gone = free[rows] + summed(local, room.amounts[np.ix_(entries, question.columns)], rows.size)
    gains: Mask = question.caps(gone, rows)[0] > question.caps(free[rows], rows)[0]
    return gains[local]
