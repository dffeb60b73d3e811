"""Filling one node of each offering at a time, all offerings at once.

A pattern is how many pods of each group one node takes. Groups are tried in the order of
what they are worth for the room they take; what room weighs differs by variant, so that
one of them finds the mix that uses up all resources together.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scheduler.placement.bestfit import UNBOUNDED, Ints

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(slots=True)
class Problem:
    """Groups × offerings as arrays.

    `request`: (groups, columns); `capacity`: (offerings, columns); `price`: (offerings,) > 0;
    `eligible`, `speed`: (groups, offerings), how much work a pod gets done there beside its best.
    `owner`: (offerings,), which of them share one limit of nodes: those with the same number.
    """

    request: Ints
    capacity: Ints
    price: Floats
    eligible: Mask
    speed: Floats
    owner: Ints

    @property
    def groups(self) -> int:
        return int(self.request.shape[0])

    def fits(self) -> Ints:
        """How many pods of a group alone fit on an empty node: (groups, offerings); 0 where not eligible."""
        kinds, of = np.unique(self.capacity, axis=0, return_inverse=True)
        most = np.full((self.groups, kinds.shape[0]), UNBOUNDED, dtype=np.int64)
        for column in range(self.request.shape[1]):
            some = np.flatnonzero(self.request[:, column])
            if some.size:
                most[some] = np.minimum(most[some], kinds[:, column] // self.request[some, column][:, None])
        return np.where(self.eligible, most[:, of.reshape(-1)], 0)

    def dearest_share(self) -> Floats:
        """The largest share of a node's columns that one pod takes: (groups, offerings)."""
        kinds, of = np.unique(self.capacity, axis=0, return_inverse=True)
        share = np.zeros((self.groups, kinds.shape[0]))
        for column in range(self.request.shape[1]):
            some = np.flatnonzero(self.request[:, column])
            part = self.request[some, column][:, None] / np.maximum(kinds[:, column], 1)
            share[some] = np.maximum(share[some], part)
        return share[:, of.reshape(-1)]


class Filler:
    """Orders of the groups for some offerings, and patterns made by them."""

    def __init__(
        self, problem: Problem, offerings: Ints, weights: Floats, value: Floats, left: Ints, depth: int = 0
    ) -> None:
        """`weights`: (variants, columns), what a full column weighs; `value`: (groups,).

        Groups of which nothing is left are not looked at again. `depth`: only the so many best
        groups of each row are put in order; 0: all.
        """
        self.problem = problem
        self.rows = np.repeat(offerings, weights.shape[0])
        self.value = value
        alive = np.flatnonzero(left)
        unit = weights[None, :, :] / np.maximum(problem.capacity[offerings], 1)[:, None, :]
        load = unit.reshape(-1, problem.request.shape[1]) @ problem.request[alive].T.astype(np.float64)
        worth = (value[alive, None] * problem.speed[alive][:, self.rows]).T
        density = np.where(problem.eligible[alive][:, self.rows].T, worth / np.maximum(load, 1e-12), -1.0)
        if 0 < depth < alive.size:
            best = np.sort(np.argpartition(-density, depth, axis=1)[:, :depth], axis=1)
            density = np.take_along_axis(density, best, axis=1)
            order = np.argsort(-density, axis=1, kind="stable")
            self.order: Ints = alive[np.take_along_axis(best, order, axis=1)]
        else:
            self.order = alive[np.argsort(-density, axis=1, kind="stable")]
        self._divisor = np.maximum(problem.request, 1)
        self._needs = problem.request > 0

    def drop(self, left: Ints) -> None:
        """Take out groups of which nothing is left."""
        alive = left[self.order] > 0
        self.order = self.order[alive].reshape(self.order.shape[0], -1)

    def fill(self, left: Ints, steps: int) -> Floats:
        """The value of what each row takes when the first `steps` groups of its order are tried."""
        problem, rows = self.problem, self.rows
        rest = problem.capacity[rows].copy()
        value = np.zeros(rows.size)
        for step in range(min(steps, self.order.shape[1])):
            group = self.order[:, step]
            fit = np.where(self._needs[group], rest // self._divisor[group], UNBOUNDED).min(axis=1)
            count = np.minimum(fit, left[group]) * problem.eligible[group, rows]
            rest -= count[:, None] * problem.request[group]
            value += count * self.value[group] * problem.speed[group, rows]
        return value

    def whole(self, row: int, left: Ints) -> tuple[Ints, Ints]:
        """The pattern of one row over all groups: (groups, pods of each)."""
        problem, offering = self.problem, int(self.rows[row])
        rest = problem.capacity[offering].copy()
        order = self.order[row]
        order = order[problem.eligible[order, offering] & (left[order] > 0)]
        groups, counts = [], []
        while order.size:
            fit = np.where(self._needs[order], rest // self._divisor[order], UNBOUNDED).min(axis=1)
            fit = np.minimum(fit, left[order])
            first = int(np.argmax(fit > 0))
            if not fit[first]:
                break
            groups.append(int(order[first]))
            counts.append(int(fit[first]))
            rest -= fit[first] * problem.request[order[first]]
            order = order[first + 1 :][fit[first + 1 :] > 0]
        return np.array(groups, dtype=np.int64), np.array(counts, dtype=np.int64)
