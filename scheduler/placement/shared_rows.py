"""Free milli-devices of rows whose devices are given away in shares."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from scheduler.fleet.devices import UNKNOWN
from scheduler.placement.fragments import MILLI, Ints

_NONE = -1


class SharedRows:
    """Rows that are shared-only now. All others have whole devices only, and are not known here."""

    def __init__(self, rows: int, devices: int) -> None:
        """`devices`: the most that a row has."""
        self._at: Ints = np.full(rows, _NONE, dtype=np.int64)  # row → line of `_free`
        self._free: Ints = np.zeros((0, devices), dtype=np.int64)
        self._unused: list[int] = []
        self._total: dict[int, int] = {}  # row → its devices

    def resize(self, rows: int, devices: int) -> None:
        """There are so many rows now, with at most so many devices. Rows that are cut off must not be shared."""
        if rows > self._at.size:
            self._at = np.concatenate([self._at, np.full(rows - self._at.size, _NONE, dtype=np.int64)])
        if devices > self._free.shape[1]:
            more = np.zeros((self._free.shape[0], devices - self._free.shape[1]), dtype=np.int64)
            self._free = np.concatenate([self._free, more], axis=1)

    def __contains__(self, row: int) -> bool:
        return bool(self._at[row] != _NONE)

    def mask(self, rows: Ints) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """Which of them are shared."""
        shared: np.ndarray[tuple[int], np.dtype[np.bool_]] = self._at[rows] != _NONE
        return shared

    def free(self, rows: Ints) -> Ints:
        """Free milli-devices of rows that are shared. Shape (rows, devices)."""
        return self._free[self._at[rows]]

    def state(self, row: int) -> bytes:
        """What a shared row has free, as a key."""
        key: bytes = self._free[self._at[row]].tobytes()
        return key

    def open(self, row: int, devices: int, held: Mapping[int, int]) -> None:
        """The row, with so many devices, is shared from now on. `held`: milli-devices by device.

        Devices of which more is held than there is are full; all are when the device of a share is UNKNOWN.
        """
        line = self._unused.pop() if self._unused else len(self._free)
        if line == len(self._free):
            more = np.zeros((max(16, line), self._free.shape[1]), dtype=np.int64)
            self._free = np.concatenate([self._free, more])
            self._unused.extend(range(len(self._free) - 1, line, -1))
        free = self._free[line]
        free[:] = 0
        free[:devices] = 0 if UNKNOWN in held else MILLI
        for device, milli in held.items():
            if 0 <= device < devices:
                free[device] = max(MILLI - milli, 0)
        self._at[row] = line
        self._total[row] = devices

    def take(self, row: int, device: int, milli: int) -> None:
        """Take a share of a row that is shared."""
        self._free[self._at[row], device] -= milli

    def give_back(self, row: int, device: int, milli: int) -> bool:
        """Give a share back; true when the row has all of its devices free again, and is not shared any more."""
        line = int(self._at[row])
        self._free[line, device] += milli
        if int(self._free[line].sum()) < MILLI * self._total[row]:
            return False
        self._at[row] = _NONE
        self._unused.append(line)
        del self._total[row]
        return True
