"""What a shape asks for, as vectors over the fleet's resource columns."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, permutations

from scheduler.fleet import PodSet
from scheduler.fleet.shape import Shape
from scheduler.placement.bestfit import Ints
from scheduler.placement.fragments import PodShape

_NOTHING = PodShape(0, 0)
_ORDERS = 6  # orders of pod sets that are tried at most


@dataclass(frozen=True, slots=True)
class PodAsk:
    """One pod set: `request` of one pod, and keys under which a supply keeps what it worked out.

    The request of a share of a device has 0 in the devices' column; `pod` says how much of one it is.
    """

    pod_set: PodSet
    count: int
    request: Ints
    suits: Hashable  # equal: the same nodes are eligible
    room: Hashable  # equal: as many fit on each node
    pod: PodShape = _NOTHING  # one pod as the scores see it


@dataclass(frozen=True, slots=True)
class Ask:
    """All pod sets of a shape. They are placed together or not at all."""

    shape: Shape
    pods: tuple[PodAsk, ...]
    devices: int  # of all pods together; shares rounded up, pod set by pod set

    @property
    def level(self) -> str:
        """The topology level that is required or preferred; empty when there is none."""
        return self.shape.required_topology or self.shape.preferred_topology

    def orders(self) -> Iterator[Sequence[int]]:
        """Orders in which the pod sets are placed: the largest pods first, since small ones fill gaps."""
        if len(self.pods) == 1:
            yield (0,)
            return
        largest = sorted(range(len(self.pods)), key=lambda i: (_size(self.pods[i].pod_set), i))
        yield from islice(permutations(largest), _ORDERS)


def _size(pod_set: PodSet) -> tuple[int, int, int]:
    # Devices are what is scarce; CPU and memory come after them.
    requests = pod_set.requests
    devices = sum(amount for name, amount in requests.items() if "/" in name)
    return -devices, -requests.get("cpu", 0), -requests.get("memory", 0)
