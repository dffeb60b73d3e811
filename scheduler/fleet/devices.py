"""Shares of single devices that are held on nodes: milli-devices by node and device.

Sparse: only nodes with a share on them are known. Such a node is shared-only: whole
devices are given away on the others. A node needs no registration, so that one that goes
and comes back finds what is still held on it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

MILLI = 1000  # milli-devices of a whole device
UNKNOWN = -1  # the device of a share that nobody wrote down: none of its node's devices is free then

Share = tuple[str, int, int]  # node, index of the device, milli-devices


class DeviceTable:
    """Who holds which share. `of_node[node][device]` is what is held there, in milli-devices, never 0."""

    def __init__(self) -> None:
        self.of_node: dict[str, dict[int, int]] = {}
        self._held: dict[str, tuple[Share, ...]] = {}

    def hold(self, holder: str, shares: Iterable[Share]) -> None:
        """What the holder has from now on, in place of what it had; nothing frees all. O(what changes).

        Raises ValueError when a share is not within 1..999 milli-devices or its device is below UNKNOWN.
        """
        shares = tuple(shares)
        for node, device, milli in shares:
            if not 0 < milli < MILLI or device < UNKNOWN:
                raise ValueError(
                    f"share of device {device} of node {node}: {milli} milli-devices are not within 1..999"
                )
        for share in self._held.pop(holder, ()):
            self._add(share, -1)
        if shares:
            self._held[holder] = shares
            for share in shares:
                self._add(share, 1)

    def _add(self, share: Share, sign: int) -> None:
        node, device, milli = share
        devices = self.of_node.setdefault(node, {})
        devices[device] = devices.get(device, 0) + sign * milli
        if not devices[device]:
            del devices[device]
        if not devices:
            del self.of_node[node]


def devices_or_unknown(devices: Iterable[int], count: int) -> list[int]:
    """The devices of `count` pods: those that are known, and UNKNOWN for the rest."""
    known = list(devices)[: max(count, 0)]
    return known + [UNKNOWN] * (count - len(known))


def whole_amounts(requests: Mapping[str, int], milli: int, devices: Iterable[str]) -> Mapping[str, int]:
    """What pods hold in whole units: without their devices when they ask for shares of them."""
    if milli >= MILLI:
        return requests
    shared = frozenset(devices)
    return {name: amount for name, amount in requests.items() if name not in shared}


def charged(devices: int, count: int, milli: int) -> int:
    """Devices that `count` pods, each with `milli` of each of `devices` devices, count for: rounded up."""
    return -(-devices * count * milli // MILLI)
