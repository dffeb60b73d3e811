"""Places pods one by one on nodes × devices by `scoring`, where whole devices and shares may meet on a node.

For each shape the score of every node is kept, and worked out anew only for nodes that
were touched since the shape was last looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from scheduler.placement.fragments import MILLI, Ints, PodShape, Worth
from scheduler.placement.scoring import NEVER, States, score


@dataclass(frozen=True, slots=True)
class Spot:
    """Where a pod went."""

    row: int
    devices: tuple[int, ...]


@dataclass(slots=True)
class _Scores:
    score: Ints
    device: Ints  # the device of a share
    seen: int  # true up to this position of the log


class Packer:
    """Free CPU, memory and milli-devices of nodes, and placement on them."""

    def __init__(self, cpu: Ints, memory: Ints, free: Ints, kind: Sequence[str], worth: Worth, kinds: Sequence[str]):
        """`free`: milli-devices, shape (nodes, devices), 0 where a node has fewer. The arrays are copied.

        `kinds` are those that `worth` was made with; `kind` is the class of each node.
        """
        self.cpu, self.memory, self.free = cpu.astype(np.int64), memory.astype(np.int64), free.astype(np.int64)
        self._kinds = list(kinds)
        self._kind = np.array([self._kinds.index(one) for one in kind], dtype=np.int64)
        self._worth = worth
        self._scores: dict[PodShape, _Scores] = {}
        self._log: list[int] = []

    def learn(self, worth: Worth) -> None:
        """Go by another mix from now on."""
        self._worth = worth
        self._scores.clear()
        self._log.clear()

    def place(self, shape: PodShape) -> Spot | None:
        """Take the room for one pod; None when it fits nowhere."""
        scores = self._look(shape)
        row = int(scores.score.argmin()) if scores.score.size else -1
        if row < 0 or scores.score[row] == NEVER:
            return None
        if shape.share:
            devices: tuple[int, ...] = (int(scores.device[row]),)
        else:
            devices = tuple(np.flatnonzero(self.free[row] == MILLI)[: shape.devices].tolist())
        spot = Spot(row, devices)
        self._change(shape, spot, -1)
        return spot

    def release(self, shape: PodShape, spot: Spot) -> None:
        """Give the room of a pod back."""
        self._change(shape, spot, 1)

    def _change(self, shape: PodShape, spot: Spot, sign: int) -> None:
        self.cpu[spot.row] += sign * shape.cpu
        self.memory[spot.row] += sign * shape.memory
        self.free[spot.row, list(spot.devices)] += sign * shape.milli
        self._log.append(spot.row)

    def _look(self, shape: PodShape) -> _Scores:
        end = len(self._log)
        scores = self._scores.get(shape)
        if scores is None:
            rows = np.arange(self.cpu.size)
            scores = self._scores[shape] = _Scores(np.zeros_like(rows), np.zeros_like(rows), end)
        elif scores.seen < end:
            rows = np.array(list(set(self._log[scores.seen :])), dtype=np.int64)
        else:
            return scores
        states = States(self.cpu[rows], self.memory[rows], self.free[rows], self._kind[rows])
        scores.score[rows], scores.device[rows] = score(self._worth, shape, states, self._caps(shape, states))
        scores.seen = end
        return scores

    def _caps(self, shape: PodShape, states: States) -> Ints:
        """How many pods of the shape fit."""
        caps = np.minimum(states.cpu // max(shape.cpu, 1), states.memory // max(shape.memory, 1))
        if shape.devices:
            np.minimum(caps, (states.milli // shape.milli).sum(axis=1) // shape.devices, out=caps)
        if shape.kinds:
            caps *= np.array([kind in shape.kinds for kind in self._kinds])[states.kind]
        return caps
