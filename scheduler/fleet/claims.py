"""Who holds which room on which node.

A claim is kept while its node does not exist: a node that comes back finds what is still
held on it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from scheduler.fleet.table import NodeTable

Amounts = Mapping[str, int]


@dataclass(slots=True)
class _Holding:
    claims: Sequence[tuple[str, Amounts]]  # (node, amounts)
    keeps: bool  # whether a node with it counts as used


class Claims:
    """Claims by holder and by node, counted in the table's `used` and `holds`."""

    def __init__(self, table: NodeTable) -> None:
        self.homeless: set[str] = set()  # nodes that do not exist, with something still held on them
        self._table = table
        self._of: dict[str, _Holding] = {}
        self._on: dict[str, dict[str, dict[str, int]]] = defaultdict(dict)  # node → holder → amounts

    def holders(self, node: str) -> list[str]:
        """Who holds room on a node, or on one that is gone."""
        return list(self._on.get(node, ()))

    def hold(self, holder: str, claims: Sequence[tuple[str, Amounts]], keeps: bool = True) -> None:
        """What the holder has from now on, in place of what it had; nothing frees all.

        `keeps`: whether it keeps its nodes from being removed as idle.
        """
        before = self._of.pop(holder, None)
        if before is not None:
            for node, _ in before.claims:
                self._let_go(node, holder, before.keeps)
        if not claims:
            return
        self._of[holder] = _Holding(claims, keeps)
        together: dict[str, dict[str, int]] = {}  # two pod sets of one workload may share a node
        for node, amounts in claims:
            known = together.setdefault(node, {})
            for name, amount in amounts.items():
                known[name] = known.get(name, 0) + amount
        for node, sums in together.items():
            self._on[node][holder] = sums
            if node in self._table.rows:
                self._add(node, sums, 1, keeps)
            else:
                self.homeless.add(node)

    def node_came(self, node: str) -> None:
        """A node is in the table that was not: what is held on it is counted."""
        self.homeless.discard(node)
        for holder, amounts in self._on.get(node, {}).items():
            self._add(node, amounts, 1, self._of[holder].keeps)

    def node_went(self, node: str) -> None:
        """A node has been dropped from the table, with what was counted on it."""
        if node in self._on:
            self.homeless.add(node)

    def _let_go(self, node: str, holder: str, keeps: bool) -> None:
        amounts = self._on[node].pop(holder, None) if node in self._on else None
        if amounts is None:
            return
        if node in self._table.rows:
            self._add(node, amounts, -1, keeps)
        if not self._on[node]:
            del self._on[node]
            self.homeless.discard(node)

    def _add(self, node: str, amounts: Amounts, sign: int, keeps: bool) -> None:
        table = self._table
        columns = [table.column(name) for name in amounts]
        row = table.rows[node]
        table.used[row, columns] += sign * np.array(list(amounts.values()), dtype=np.int64)
        if keeps:
            table.holds[row] += sign
