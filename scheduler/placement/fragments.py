"""How much a node's free devices are worth to the pods that are still to come.

After "Beware of Fragmentation" (Weng et al., USENIX ATC 2023): of a node's free devices,
what a typical pod cannot use is a fragment. FGD adds up, over typical pods p with
frequency f, the free milli-devices that p cannot use; a pod goes where that sum grows
least. Here the value of a free device of r milli-devices on a node is

    r * P ** GAMMA,   P = sum over p of f_p * usable_p * reach_p

with usable_p: whether p fits on the node and on that device, and reach_p: the part of
the node's devices usable by p that p could take before CPU or memory runs out (which FGD
does not look at). GAMMA = 1 without reach is FGD. With GAMMA near 0 a remainder that few
pods can use is worth nearly as much as one that many can, and one that nobody can use
is worth nothing: under a backlog, the rare pod that fits does come by. Between 0.1 and
0.3 it matters little on the openb lists; 0.15 was taken since it holds as well on lists
re-mixed from them (bench/packing.py) in which CPU is plentiful. Reach is left out where a
mix asks for more CPU or memory per device than the nodes have (`devices_bound`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

MILLI = 1000  # milli-devices of a whole device
UNDECIDED, WHOLE_ONLY, SHARED_ONLY = range(3)  # modes of a node; undecided while all of its devices are free
GAMMA = 0.15
COVER = 0.95  # the part of all pods seen that the typical shapes cover, as in FGD


@dataclass(frozen=True, slots=True)
class PodShape:
    """One pod. `milli` of each of `devices` devices: 1000 is a whole one, less a share of one."""

    cpu: int
    memory: int
    devices: int = 0
    milli: int = 0
    kinds: frozenset[str] = frozenset()  # accelerator classes that suit; any when empty

    def __post_init__(self) -> None:
        if self.devices > 1 and self.milli != MILLI:
            raise ValueError("shares of several devices are not supported")
        if not 0 <= self.milli <= MILLI or min(self.cpu, self.memory, self.devices) < 0:
            raise ValueError("amounts are out of range")
        if (self.devices == 0) != (self.milli == 0):
            raise ValueError("devices and milli go together")

    @property
    def share(self) -> bool:
        """Whether it asks for a part of a device."""
        return 0 < self.milli < MILLI

    @property
    def order(self) -> tuple[int, int, int, int, tuple[str, ...]]:
        """A key by which shapes have one order: that of their sizes."""
        return self.milli, self.devices, self.cpu, self.memory, tuple(sorted(self.kinds))


def typical(seen: Mapping[PodShape, int], cover: float = COVER, most: int | None = None) -> dict[PodShape, float]:
    """The most frequent shapes that cover this part of what was seen, with frequencies that sum to 1.

    No more than `most` of them, which bounds what a score costs. Equal counts are taken in the
    order of the shapes' sizes, so that the order of `seen` decides nothing.
    """
    total, covered, chosen = sum(seen.values()), 0, {}
    for shape, count in sorted(seen.items(), key=lambda one: (-one[1], one[0].order))[:most]:
        if covered >= cover * total:
            break
        chosen[shape] = count
        covered += count
    return {shape: count / covered for shape, count in chosen.items()}


def devices_bound(mix: Mapping[PodShape, float], cpu: int, memory: int, milli: int) -> bool:
    """Whether devices run out first when nodes of these totals are filled with this mix, and not CPU or memory.

    Where devices are the scarce thing, a node whose CPU is used up strands them, which `reach`
    counts. Where CPU is, devices are left over whatever is done, and saving CPU beside each of
    them only keeps pods out.
    """
    asked = sum(part * shape.devices * shape.milli for shape, part in mix.items())
    return not (
        asked * cpu < milli * sum(part * shape.cpu for shape, part in mix.items())
        or asked * memory < milli * sum(part * shape.memory for shape, part in mix.items())
    )


class Worth:
    """The value of nodes' free devices, for one mix of typical pods."""

    def __init__(
        self,
        mix: Mapping[PodShape, float],
        kinds: Sequence[str],
        gamma: float = GAMMA,
        reach: bool = True,
        modes: bool = False,
    ) -> None:
        """`kinds`: the accelerator classes by the code that nodes carry. `gamma` 1 without `reach` is FGD's.

        With `modes` a node takes either whole devices or shares, and its code is three times that of its class,
        plus UNDECIDED, WHOLE_ONLY or SHARED_ONLY.
        """
        # Sorted by size: pods that ask for equally much of a device fit on the same devices.
        pods = sorted(((s, part) for s, part in mix.items() if s.devices), key=lambda pod: pod[0].order)
        self._gamma, self._reach = gamma, reach
        part = np.array([part for _, part in pods])
        self._cpu = np.array([max(s.cpu, 1) for s, _ in pods], dtype=np.float64)
        self._memory = np.array([max(s.memory, 1) for s, _ in pods], dtype=np.float64)
        self._devices = np.array([s.devices for s, _ in pods], dtype=np.int64)
        milli = np.array([s.milli for s, _ in pods], dtype=np.int64)
        self._asked = (self._devices * milli).astype(np.float64)
        suits = np.array([[not s.kinds or kind in s.kinds for s, _ in pods] for kind in kinds], dtype=np.bool_)
        suits = suits.reshape(len(kinds), len(pods))
        if modes:
            share = milli < MILLI
            suits = np.repeat(suits, 3, axis=0)
            suits[WHOLE_ONLY::3] &= ~share
            suits[SHARED_ONLY::3] &= share
        self._part = suits * part  # by code and pod
        sizes, self._starts, self._size_of = np.unique(milli, return_index=True, return_inverse=True)
        self._bins = sizes.size + 1
        # Free milli-devices → how many of the sizes fit.
        self._fitting = np.searchsorted(sizes, np.arange(MILLI + 1), side="right")

    def of(self, cpu: Ints, memory: Ints, free: Ints, kind: Ints) -> Floats:
        """Value of each node, in milli-devices. Shapes: (n,), (n,), (n, devices), (n,) → (n,)."""
        nodes, bins = cpu.size, self._bins
        if bins == 1:
            return np.zeros(nodes)
        # Devices of a node that take equally many sizes are one: their number and their free milli-devices by bin.
        at = (self._fitting[free] + bins * np.arange(nodes)[:, None]).ravel()
        number = np.bincount(at, minlength=nodes * bins).reshape(nodes, bins)
        room = np.bincount(at, weights=free.ravel(), minlength=nodes * bins).reshape(nodes, bins)
        most = np.floor(np.minimum(cpu[:, None] / self._cpu, memory[:, None] / self._memory))
        weight = self._part[kind]
        weight *= most >= 1
        weight *= number[:, :0:-1].cumsum(axis=1)[:, ::-1].take(self._size_of, axis=1) >= self._devices
        if self._reach:
            usable = room[:, :0:-1].cumsum(axis=1)[:, ::-1].take(self._size_of, axis=1)
            most *= self._asked
            most /= np.maximum(usable, 1)
            weight *= np.minimum(most, 1.0)
        # Over the sizes up to each: what a device of that bin can take.
        part = np.add.reduceat(weight, self._starts, axis=1).cumsum(axis=1)
        worth: Floats = (room[:, 1:] * part**self._gamma).sum(axis=1)
        return worth
