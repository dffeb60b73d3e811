"""Which node a pod goes to: the one whose free devices lose the least worth.

A score is one integer a node, the lowest wins. It orders nodes by, in this order:

1. the worth that is lost (`fragments.Worth`), in ten-thousandths of a milli-device;
2. free milli-devices, the fewest first;
3. how many pods of this shape the node could take, the fewest first (best fit);

and ties go to the first row. Of a node's devices a share goes to the one that loses the
least worth, then to the first. Nothing else decides, so that neither the order of a dict
nor that of a set can change a placement.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scheduler.placement.fragments import MILLI, Floats, Ints, PodShape, Worth

NEVER = int(np.iinfo(np.int64).max)  # the score of a node where the pod does not fit
_STEPS = 10_000.0  # of a milli-device
_DEVICES = 1 << 16  # more than a node's milli-devices
_CAPS = 1 << 13  # room for more pods than this is not told apart
_BLOCK = 512  # nodes at a time, which stay in the processor's cache


@dataclass(frozen=True, slots=True)
class States:
    """What nodes have free. Shapes: (n,), (n,), (n, devices), (n,).

    `milli`: free milli-devices of each device; `kind`: the codes that the `Worth` knows nodes by.
    """

    cpu: Ints
    memory: Ints
    milli: Ints
    kind: Ints

    def __getitem__(self, rows: Ints) -> States:
        return States(self.cpu[rows], self.memory[rows], self.milli[rows], self.kind[rows])


def score(
    worth: Worth,
    shape: PodShape,
    states: States,
    caps: Ints,
    then: Ints | None = None,
    value: Floats | None = None,
) -> tuple[Ints, Ints]:
    """(score of each node, the device that a share goes to). Shapes: (n,), (n,).

    `caps`: how many such pods fit on each node, 0 where none does; such nodes score NEVER.
    `then`: the nodes' codes once the pod is there, when they change by it; `value`: what
    the nodes are worth now, when that is known.
    """
    scores = np.full(caps.size, NEVER, dtype=np.int64)
    device = np.zeros(caps.size, dtype=np.int64)
    rows = np.flatnonzero(caps)
    if rows.size == 0:
        return scores, device
    few = states[rows]
    if shape.share:
        at, which = _distinct(few.milli, shape.milli)
        milli = few.milli[at]
        milli[np.arange(at.size), which] -= shape.milli
    else:
        at, which = np.arange(rows.size), None
        milli = few.milli.copy()
        if shape.devices:
            whole = milli == MILLI
            milli[whole & (whole.cumsum(axis=1) <= shape.devices)] = 0
    kind = (few.kind if then is None else then[rows])[at]
    after = States(few.cpu[at] - shape.cpu, few.memory[at] - shape.memory, milli, kind)
    if value is None:
        both = np.split(worth_of(worth, few, after), [rows.size])
    else:
        both = [value[rows], worth_of(worth, after)]
    loss = np.rint((both[0][at] - both[1]) * _STEPS).astype(np.int64)
    if which is not None:
        table = np.full(few.milli.shape, NEVER, dtype=np.int64)
        table[at, which] = loss
        chosen = table.argmin(axis=1)
        loss = table[np.arange(rows.size), chosen]
        device[rows] = chosen
    scores[rows] = (loss * _DEVICES + few.milli.sum(axis=1)) * _CAPS + np.minimum(caps[rows], _CAPS - 1)
    return scores, device


def worth_of(worth: Worth, *states: States) -> Floats:
    """What nodes are worth in these states, one after the other."""
    cpu, memory, milli, kind = (
        np.concatenate([getattr(one, name) for one in states]) for name in ("cpu", "memory", "milli", "kind")
    )
    found = [
        worth.of(cpu[at : at + _BLOCK], memory[at : at + _BLOCK], milli[at : at + _BLOCK], kind[at : at + _BLOCK])
        for at in range(0, cpu.size, _BLOCK)
    ]
    return found[0] if len(found) == 1 else np.concatenate(found)


def _distinct(milli: Ints, share: int) -> tuple[Ints, Ints]:
    """(node, device) of all devices with room for the share; of a node's devices that are alike only the first."""
    devices = milli.shape[1]
    alike = milli[:, :, None] == milli[:, None, :]
    alike &= np.tri(devices, k=-1, dtype=np.bool_)
    at, which = np.nonzero((milli >= share) & ~alike.any(axis=2))
    return at, which
