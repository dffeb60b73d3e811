"""Nodes × resources as numpy columns, with rows that are reused.

Capacity grows by doubling, so that adding a node costs O(1) amortised, and adding a
resource name costs one column.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


class NodeTable:
    """`allocatable[row, column]`, `used[row, column]` and `holds[row]`; a row that is free has no node."""

    def __init__(self) -> None:
        self.rows: dict[str, int] = {}
        self.columns: dict[str, int] = {}
        self.names: list[str] = []  # of each row; "" when it is free
        self.allocatable: Ints = np.zeros((16, 4), dtype=np.int64)
        self.used: Ints = np.zeros((16, 4), dtype=np.int64)
        self.holds: Ints = np.zeros(16, dtype=np.int64)  # how many hold a node against removal
        self._free: list[int] = []

    def column(self, resource: str) -> int:
        """The column of a resource, made if need be."""
        found = self.columns.get(resource)
        if found is None:
            found = self.columns[resource] = len(self.columns)
            if found >= self.allocatable.shape[1]:
                self.allocatable = _grown(self.allocatable, axis=1)
                self.used = _grown(self.used, axis=1)
        return found

    def vector(self, amounts: Mapping[str, int]) -> Ints:
        """Amounts as a row of the table; resources without a column get one."""
        columns = [self.column(name) for name in amounts]
        row = np.zeros(self.allocatable.shape[1], dtype=np.int64)
        row[columns] = list(amounts.values())
        return row

    def add(self, name: str) -> int:
        """The row of a node, made if need be."""
        row = self.rows.get(name)
        if row is None:
            row = self._free.pop() if self._free else len(self.names)
            if row == len(self.names):
                self.names.append(name)
                if row >= self.allocatable.shape[0]:
                    self.allocatable = _grown(self.allocatable, axis=0)
                    self.used = _grown(self.used, axis=0)
                    self.holds = _grown(self.holds, axis=0)
            else:
                self.names[row] = name
            self.rows[name] = row
        return row

    def drop(self, name: str) -> None:
        """Free the row of a node. What was used on it is forgotten."""
        row = self.rows.pop(name)
        self.names[row] = ""
        self.allocatable[row] = 0
        self.used[row] = 0
        self.holds[row] = 0
        self._free.append(row)

    def free(self, rows: Ints) -> Ints:
        """A copy of what is free on these rows, in the given order. Shape (rows, columns)."""
        free: Ints = self.allocatable[rows] - self.used[rows]
        return free


def _grown(array: Ints, axis: int) -> Ints:
    grown: Ints = np.concatenate([array, np.zeros_like(array)], axis=axis)
    return grown
