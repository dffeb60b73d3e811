"""Labels and topology of nodes as columns of small integers, so that a selector is one comparison.

A column is made when the first selector asks for its label, and kept up to date from then on.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from scheduler.fleet.state import NodeState

Codes = NDArray[np.int32]
NONE = -1  # the node does not have this label, or stands in no domain of this level

# Topology level → the field of NodeState.
LEVELS = {
    "nvlinkDomain": "nvlink_domain",
    "rack": "rack",
    "block": "block",
    "zone": "zone",
    "site": "site",
}


class Column:
    """One label: the code of its value on each row."""

    def __init__(self, rows: int) -> None:
        self.codes: Codes = np.full(rows, NONE, dtype=np.int32)
        self.of: dict[str, int] = {}  # value → code
        self.values: list[str] = []

    def set(self, row: int, value: str | None) -> None:
        if row >= self.codes.size:
            more = np.full(max(row + 1, 2 * self.codes.size) - self.codes.size, NONE, dtype=np.int32)
            self.codes = np.concatenate([self.codes, more])
        if value is None:
            self.codes[row] = NONE
            return
        code = self.of.get(value)
        if code is None:
            code = self.of[value] = len(self.values)
            self.values.append(value)
        self.codes[row] = code


class Attributes:
    """Columns by label key and by topology level."""

    def __init__(self) -> None:
        self._labels: dict[str, Column] = {}
        self._levels: dict[str, Column] = {level: Column(16) for level in LEVELS}

    def update(self, row: int, node: NodeState) -> None:
        """The node of a row is new or has changed."""
        for key, column in self._labels.items():
            column.set(row, node.labels.get(key))
        for level, column in self._levels.items():
            column.set(row, getattr(node, LEVELS[level]) or None)

    def label(self, key: str, nodes: Iterable[tuple[int, NodeState]]) -> Column:
        """The column of a label. `nodes`: (row, node) of all, read when the column is new."""
        column = self._labels.get(key)
        if column is None:
            column = self._labels[key] = Column(16)
            for row, node in nodes:
                column.set(row, node.labels.get(key))
        return column

    def level(self, level: str) -> Column:
        """The column of a topology level. KeyError for a level that does not exist."""
        return self._levels[level]
