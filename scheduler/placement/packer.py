"""Places pods one by one on nodes × devices, where the free devices lose the least worth.

For each shape the loss on every node is kept, and worked out anew only for nodes that
were touched since the shape was last looked at. Rule for ties: losses are compared in
millionths of a milli-device; then the node with the least free devices, then the first
row; on a node, the first device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from scheduler.placement.fragments import MILLI, Floats, Ints, PodShape, Worth

_NEVER = np.inf


@dataclass(frozen=True, slots=True)
class Spot:
    """Where a pod went."""

    row: int
    devices: tuple[int, ...]


@dataclass(slots=True)
class _Losses:
    loss: Floats  # what each node would lose; infinite where the pod does not fit
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
        self._losses: dict[PodShape, _Losses] = {}
        self._log: list[int] = []
        self._now = worth.of(self.cpu, self.memory, self.free, self._kind)

    def learn(self, worth: Worth) -> None:
        """Go by another mix from now on."""
        self._worth = worth
        self._losses.clear()
        self._log.clear()
        self._now = worth.of(self.cpu, self.memory, self.free, self._kind)

    def place(self, shape: PodShape) -> Spot | None:
        """Take the room for one pod; None when it fits nowhere."""
        losses = self._look(shape)
        least = losses.loss.min(initial=_NEVER)
        if least == _NEVER:
            return None
        ties = np.flatnonzero(losses.loss == least)
        row = int(ties[np.argmin(self.free[ties].sum(axis=1))]) if ties.size > 1 else int(ties[0])
        if 0 < shape.milli < MILLI:
            devices: tuple[int, ...] = (int(losses.device[row]),)
        else:
            devices = tuple(np.flatnonzero(self.free[row] == MILLI)[: shape.devices].tolist())
        spot = Spot(row, devices)
        self._change(shape, spot, -1)
        return spot

    def release(self, shape: PodShape, spot: Spot) -> None:
        """Give the room of a pod back."""
        self._change(shape, spot, 1)

    def _change(self, shape: PodShape, spot: Spot, sign: int) -> None:
        row = spot.row
        self.cpu[row] += sign * shape.cpu
        self.memory[row] += sign * shape.memory
        self.free[row, list(spot.devices)] += sign * shape.milli
        one = slice(row, row + 1)
        self._now[row] = self._worth.of(self.cpu[one], self.memory[one], self.free[one], self._kind[one])[0]
        self._log.append(row)

    def _look(self, shape: PodShape) -> _Losses:
        end = len(self._log)
        losses = self._losses.get(shape)
        if losses is None:
            nodes = self.cpu.size
            losses = self._losses[shape] = _Losses(np.full(nodes, _NEVER), np.zeros(nodes, dtype=np.int64), end)
            self._renew(shape, losses, np.arange(nodes))
        elif losses.seen < end:
            self._renew(shape, losses, np.unique(np.array(self._log[losses.seen :], dtype=np.int64)))
        losses.seen = end
        return losses

    def _renew(self, shape: PodShape, losses: _Losses, rows: Ints) -> None:
        losses.loss[rows] = _NEVER
        fits = (self.cpu[rows] >= shape.cpu) & (self.memory[rows] >= shape.memory)
        if shape.kinds:
            suits = np.array([kind in shape.kinds for kind in self._kinds])
            fits &= suits[self._kind[rows]]
        if shape.devices:
            fits &= (self.free[rows] >= shape.milli).sum(axis=1) >= shape.devices
        rows = rows[fits]
        if rows.size == 0:
            return
        if 0 < shape.milli < MILLI:
            self._renew_share(shape, losses, rows)
            return
        after = self.free[rows]
        if shape.devices:
            whole = after == MILLI
            after[whole & (np.cumsum(whole, axis=1) <= shape.devices)] = 0
        losses.loss[rows] = self._loss(shape, rows, after)

    def _renew_share(self, shape: PodShape, losses: _Losses, rows: Ints) -> None:
        # Every device with room is tried, those alike on a node once.
        before = self.free[rows]
        tried = before >= shape.milli
        for one in range(1, before.shape[1]):
            tried[:, one] &= (before[:, :one] != before[:, one : one + 1]).all(axis=1)
        at, device = np.nonzero(tried)
        after = before[at]
        after[np.arange(at.size), device] -= shape.milli
        loss = self._loss(shape, rows[at], after)
        order = np.lexsort((device, loss, at))
        first = order[np.unique(at[order], return_index=True)[1]]
        losses.loss[rows] = loss[first]
        losses.device[rows] = device[first]

    def _loss(self, shape: PodShape, rows: Ints, after: Ints) -> Floats:
        worth = self._worth.of(self.cpu[rows] - shape.cpu, self.memory[rows] - shape.memory, after, self._kind[rows])
        loss: Floats = np.round(self._now[rows] - worth, 6)
        return loss
