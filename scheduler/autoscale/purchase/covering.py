"""Covering all groups with nodes of the least cost.

A pass takes the best pattern for its price again and again. Between passes what a pod is
worth is corrected by what its nodes really cost (sequential value correction, as in
cutting stock), and the nodes that cover least for their price are taken apart and made
anew. The best cover that was seen is kept.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from scheduler.autoscale.purchase.exact import bundle, cheapest
from scheduler.autoscale.purchase.filling import Filler, Floats, Problem
from scheduler.placement.bestfit import Ints

_STEPS = 12  # groups that are looked at on each row before the best is filled up
_NARROW = 12  # rows that are looked at between two looks at all
_ROUNDS = 250  # of taking apart, at most
_RIPPLES = (0.05, 0.1, 0.3)  # of values, as exponents
_EXACT = 40  # patterns that one exact division counts as
_TOGETHER = 12  # nodes that are looked at for one division
_FEW = 40  # groups up to which all of the work is done
_LOOKS = 64  # patterns between two looks at all


@dataclass(slots=True)
class Chosen:
    """`times` nodes of an offering, each with `counts` pods of `groups`."""

    offering: int
    groups: Ints
    counts: Ints
    times: int


@dataclass(slots=True)
class Cover:
    """Nodes, and pods by group that found none."""

    nodes: list[Chosen]
    left: Ints
    cost: float


def cover(problem: Problem, wanted: Ints, limit: Ints, work: int) -> Cover:
    """Cover `wanted` pods of each group. `limit`: nodes by owner; `work`: patterns that may be tried in all."""
    fits = problem.fits()
    possible = fits.max(axis=1, initial=0) > 0
    impossible = np.where(possible, 0, wanted)
    wanted = np.where(possible, wanted, 0)
    value = _first_values(problem, fits)
    best = _cheaper_types(problem, _pass(problem, wanted, limit, value), limit)
    # A pattern over many groups takes longer: the time stays about the same.
    work = min(work, work * _FEW**2 // max(problem.groups, 1) ** 2)
    spent = 0
    rounds = 0
    bound = _bound(problem, wanted)
    while spent < work and rounds < _ROUNDS and best.cost > bound * (1 + 1e-9):
        rounds += 1
        value = _corrected(problem, best, value)
        kept, loose, free = _take_apart(problem, best, limit, value, rounds)
        again = _pass(problem, loose, free, value * _ripple(problem.groups, rounds))
        spent += len(again.nodes) + 1
        again = _cheaper_types(problem, again, free)
        merged = Cover(
            kept + again.nodes, again.left, sum(problem.price[one.offering] * one.times for one in kept) + again.cost
        )
        if (merged.left.sum(), merged.cost) <= (best.left.sum(), best.cost):
            best = merged
    if not best.left.any() and best.cost > bound * (1 + 1e-9):
        best = _divide_anew(problem, best, limit, value, work // _EXACT)
    best.left = best.left + impossible
    return best


def _bound(problem: Problem, wanted: Ints) -> float:
    """No cover costs less: every column taken alone, as if pods could be cut."""
    load = (wanted @ problem.request).astype(np.float64)
    room = np.maximum(problem.capacity, 1e-9)
    cheapest_unit = (problem.price[:, None] / room).min(axis=0, initial=np.inf)
    return float(np.max(np.where(load > 0, load * cheapest_unit, 0.0), initial=0.0))


def _divide_anew(problem: Problem, found: Cover, limit: Ints, value: Floats, turns: int) -> Cover:
    """Some nodes at a time are replaced by the cheapest that hold the same pods, exactly."""
    nodes = [one for node in found.nodes for one in _singles(node)]
    for turn in range(turns):
        rng = np.random.default_rng(5000 + turn)
        rates = [float(one.counts @ value[one.groups]) / problem.price[one.offering] for one in nodes]
        score = np.array(rates) / max(max(rates, default=1.0), 1e-12) + rng.uniform(0, 0.5 if turn else 0, len(nodes))
        order = np.argsort(score, kind="stable").tolist()
        picked = [order[at] for at in bundle([_dense(problem, nodes[at]) for at in order[:_TOGETHER]])]
        if len(picked) < 2:
            continue
        total = sum((_dense(problem, nodes[at]) * nodes[at].times for at in picked), np.zeros(problem.groups, np.int64))
        groups = np.flatnonzero(total)
        free = limit.copy()
        for at, one in enumerate(nodes):
            free[problem.owner[one.offering]] -= 0 if at in picked else one.times
        made = cheapest(problem, groups, total[groups], np.flatnonzero(free[problem.owner] >= len(picked)))
        old = sum(problem.price[nodes[at].offering] for at in picked)
        if made is None or made[0] >= old - 1e-9 or len(made[1]) > len(picked) + 2:
            continue
        fresh = [Chosen(offering, groups[part > 0], part[part > 0], 1) for offering, part in made[1]]
        if any(free[owner] < count for owner, count in Counter(int(problem.owner[o.offering]) for o in fresh).items()):
            continue
        nodes = [one for at, one in enumerate(nodes) if at not in picked] + fresh
    return Cover(nodes, found.left, float(sum(problem.price[one.offering] * one.times for one in nodes)))


def _singles(node: Chosen) -> list[Chosen]:
    """Up to four of equal nodes as nodes by themselves, the rest as before."""
    alone = min(node.times, 4)
    rest = [Chosen(node.offering, node.groups, node.counts, node.times - alone)] if node.times > alone else []
    return [Chosen(node.offering, node.groups, node.counts, 1) for _ in range(alone)] + rest


def _dense(problem: Problem, node: Chosen) -> Ints:
    out = np.zeros(problem.groups, dtype=np.int64)
    # Many equal ones are not divided.
    out[node.groups] = node.counts if node.times == 1 else 1 << 20
    return out


def _first_values(problem: Problem, fits: Ints) -> Floats:
    """What a pod costs at least if nodes could be filled to the brim with its like alone. Shape (groups,)."""
    share = problem.dearest_share()
    least = np.where(fits > 0, problem.price * share / problem.speed, np.inf).min(axis=1, initial=np.inf)
    return np.where(np.isfinite(least), least, 0.0)


def _variants(problem: Problem, wanted: Ints) -> Floats:
    """What columns weigh in the orders of filling: all that bind alike, then each of the tightest more."""
    load = (wanted @ problem.request) / np.maximum(problem.capacity.max(axis=0, initial=1), 1)
    tight = np.argsort(-load, kind="stable")[:3]
    tight = tight[load[tight] > 0.2 * load.max(initial=0.0)]
    base = np.where(load > 0.2 * load.max(initial=0.0), 1.0, 0.1)
    out = [base]
    for column in tight if tight.size > 1 else ():
        for other in (0.3, 0.05):
            one = base * other
            one[column] = 1.0
            out.append(one)
    return np.array(out)


def _pass(problem: Problem, wanted: Ints, limit: Ints, value: Floats) -> Cover:
    left, limit = wanted.copy(), limit.copy()
    nodes: list[Chosen] = []
    cost = 0.0
    weights = _variants(problem, wanted)
    filler, since, mass = None, 0, 0.0
    while left.any():
        now = float(value @ left)
        if filler is None or since >= _LOOKS or now < 0.4 * mass:
            some = _promising(problem, left, limit, value)
            if not some.size:
                break
            filler, since, mass = Filler(problem, some, weights, value, left), 0, now
        ratio = _ratio(problem, filler, filler.fill(left, _STEPS), limit)
        row = int(np.argmax(ratio))
        if ratio[row] <= 0:
            if since == 0:
                break
            filler = None
            continue
        groups, counts = filler.whole(row, left)
        offering = int(filler.rows[row])
        times = int(min((left[groups] // counts).min(), limit[problem.owner[offering]]))
        nodes.append(Chosen(offering, groups, counts, times))
        cost += problem.price[offering] * times
        left[groups] -= counts * times
        limit[problem.owner[offering]] -= times
        since += 1
        if not left[groups].all():
            filler.drop(left)
    return Cover(nodes, left, cost)


def _ratio(problem: Problem, filler: Filler, worth: Floats, limit: Ints) -> Floats:
    return np.where(limit[problem.owner[filler.rows]] > 0, worth / problem.price[filler.rows], 0.0)


def _promising(problem: Problem, left: Ints, limit: Ints, value: Floats) -> Ints:
    """The offerings that cover most for their price now, and for each group the best that takes it."""
    open_ = np.flatnonzero(limit[problem.owner] > 0)
    if open_.size <= _NARROW:
        return open_
    filler = Filler(problem, open_, np.ones((1, problem.request.shape[1])), value, left, _STEPS)
    worth = filler.fill(left, _STEPS)
    ratio = worth / problem.price[open_]
    best = open_[np.argsort(-ratio, kind="stable")[:_NARROW]]
    alive = np.flatnonzero(left)
    # Groups that none of these takes.
    lost = alive[~problem.eligible[np.ix_(alive, best)].any(axis=1)]
    more = []
    while lost.size:
        can = problem.eligible[np.ix_(lost, open_)]
        mine = np.where(can[0], ratio, -1.0)
        at = int(np.argmax(mine))
        if mine[at] < 0:
            lost = lost[1:]
            continue
        more.append(int(open_[at]))
        lost = lost[~can[:, at]]
    return np.unique(np.concatenate([best, np.array(more, dtype=np.int64)]))


def _cheaper_types(problem: Problem, found: Cover, limit: Ints) -> Cover:
    """Each node as the cheapest offering that takes what it holds."""
    if not found.nodes:
        return found
    used = np.zeros_like(limit)
    for one in found.nodes:
        used[problem.owner[one.offering]] += one.times
    order = np.argsort(problem.price, kind="stable")
    for one in found.nodes:
        load = one.counts @ problem.request[one.groups]
        good = (problem.capacity >= load).all(axis=1) & problem.eligible[one.groups].all(axis=0)
        good &= problem.price < problem.price[one.offering]
        good &= (limit - used)[problem.owner] >= one.times
        if (problem.speed[one.groups] < 1.0).any():
            good &= (problem.speed[one.groups] >= problem.speed[one.groups, one.offering][:, None]).all(axis=0)
        cheaper = order[good[order]]
        if cheaper.size:
            used[problem.owner[one.offering]] -= one.times
            one.offering = int(cheaper[0])
            used[problem.owner[one.offering]] += one.times
    found.cost = float(sum(problem.price[one.offering] * one.times for one in found.nodes))
    return found


def _corrected(problem: Problem, found: Cover, value: Floats) -> Floats:
    """Values drawn halfway towards what the nodes that hold a group's pods cost for their worth."""
    total = np.zeros(problem.groups)
    count = np.zeros(problem.groups)
    for one in found.nodes:
        worth = float(one.counts @ value[one.groups])
        scale = problem.price[one.offering] / worth if worth > 0 else 1.0
        total[one.groups] += one.counts * one.times * value[one.groups] * scale
        count[one.groups] += one.counts * one.times
    mean = np.where(count > 0, total / np.maximum(count, 1), value)
    return 0.5 * value + 0.5 * mean


def _ripple(size: int, turn: int) -> Floats:
    """Deterministic differences between rounds, small and large in turn, so that other patterns come first."""
    much = _RIPPLES[turn % len(_RIPPLES)]
    return np.exp(np.random.default_rng(turn).uniform(-much, much, size))


def _take_apart(
    problem: Problem, found: Cover, limit: Ints, value: Floats, turn: int
) -> tuple[list[Chosen], Ints, Ints]:
    """(nodes kept, pods set free, limits that are left). The worst for their price go, and some at random."""
    rng = np.random.default_rng(1000 + turn)
    ratio = np.array([float(one.counts @ value[one.groups]) / problem.price[one.offering] for one in found.nodes])
    share = (0.1, 0.25, 0.5)[turn % 3]
    score = ratio / max(ratio.max(), 1e-12) + rng.uniform(0, 0.3, ratio.size)
    going = np.argsort(score, kind="stable")[: max(4, int(share * ratio.size))]
    gone = set(going.tolist())
    loose = found.left.copy()
    free = limit.copy()
    kept: list[Chosen] = []
    for at, one in enumerate(found.nodes):
        times = one.times if at in gone else 0
        if times > 3 and turn % 2:
            times = max(1, times // 4)  # of many equal ones some stay
        loose[one.groups] += one.counts * times
        if one.times > times:
            kept.append(Chosen(one.offering, one.groups, one.counts, one.times - times))
            free[problem.owner[one.offering]] -= one.times - times
    return kept, loose, free
