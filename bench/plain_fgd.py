"""FGD as published, as a plain numpy program: every node is scored for every pod.

"Beware of Fragmentation" (Weng et al., USENIX ATC 2023): a pod goes where the sum over
typical pods, by frequency, of the free milli-devices that they cannot use grows least;
scores are whole percents of a sigmoid, a share takes the device with the best score, and
ties go to the first node. Nothing of the scheduler is used here but the shape of a pod.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from scheduler.placement.fragments import PodShape


class PlainFgd:
    """Nodes that fill up. `free`: milli-devices, shape (nodes, devices)."""

    def __init__(
        self,
        cpu: np.ndarray,
        memory: np.ndarray,
        free: np.ndarray,
        kind: Sequence[str],
        mix: Mapping[PodShape, float],
    ) -> None:
        self.kinds = sorted(set(kind))
        self.cpu, self.memory, self.free = cpu.copy(), memory.copy(), free.copy()
        self.kind = np.array([self.kinds.index(one) for one in kind])
        self.part = np.array(list(mix.values()))
        self.t_cpu, self.t_memory = np.array([pod.cpu for pod in mix]), np.array([pod.memory for pod in mix])
        self.t_devices, self.t_milli = np.array([pod.devices for pod in mix]), np.array([pod.milli for pod in mix])
        self.t_suits = np.array([[not pod.kinds or one in pod.kinds for pod in mix] for one in self.kinds])

    def fragment(self, rows: np.ndarray, cpu: np.ndarray, memory: np.ndarray, free: np.ndarray) -> np.ndarray:
        """The fragments of nodes with so much free."""
        fits = (free[:, :, None] >= np.maximum(self.t_milli, 1)) & (self.t_milli > 0)
        can = (cpu[:, None] >= self.t_cpu) & (memory[:, None] >= self.t_memory)
        can &= (fits.sum(1) >= self.t_devices) & (self.t_devices > 0)
        can &= self.t_suits[self.kind[rows]]
        lost = np.where(can, (free[:, :, None] * ~fits).sum(1), free.sum(1)[:, None])
        return (lost * self.part).sum(1)

    def place(self, pod: PodShape) -> bool:
        """Take the room for one pod; False when it fits nowhere."""
        fits = (self.cpu >= pod.cpu) & (self.memory >= pod.memory)
        if pod.kinds:
            fits &= np.array([one in pod.kinds for one in self.kinds])[self.kind]
        if pod.devices:
            fits &= (self.free >= pod.milli).sum(1) >= pod.devices
        rows = np.flatnonzero(fits)
        if rows.size == 0:
            return False
        before = self.fragment(rows, self.cpu[rows], self.memory[rows], self.free[rows])
        cpu, memory = self.cpu[rows] - pod.cpu, self.memory[rows] - pod.memory
        best, device = np.full(rows.size, -1.0), np.zeros(rows.size, dtype=np.int64)
        for one in range(self.free.shape[1]) if pod.share else (0,):
            free = self.free[rows].copy()
            if pod.share:
                possible = free[:, one] >= pod.milli
                free[possible, one] -= pod.milli
            else:
                possible = np.ones(rows.size, dtype=bool)
                whole = free == 1000
                free[whole & (np.cumsum(whole, axis=1) <= pod.devices)] = 0
            grown = before - self.fragment(rows, cpu, memory, free)
            scores = np.where(possible, np.floor(100 / (1 + np.exp(-grown / 1000))), -1.0)
            device[scores > best] = one
            best = np.maximum(best, scores)
        at = int(np.argmax(best))
        row = int(rows[at])
        self.cpu[row] -= pod.cpu
        self.memory[row] -= pod.memory
        if pod.share:
            self.free[row, device[at]] -= pod.milli
        elif pod.devices:
            self.free[row, np.flatnonzero(self.free[row] == 1000)[: pod.devices]] = 0
        return True
