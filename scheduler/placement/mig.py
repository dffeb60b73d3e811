"""MIG: shares of a device at fixed places.

A GPU instance of a profile takes consecutive memory slices, beginning at a start that the
hardware allows. Sizes and starts are those that `nvidia-smi mig -lgipp` lists, and names
those of the tables in NVIDIA's MIG user guide, "Supported MIG Profiles". Compute slices
need no accounts of their own: no placement of memory slices exceeds them.

Which place is best is judged as for other shares (`fragments`): a free slice is worth
(sum over the typical profiles that can still use it of their frequency) ** GAMMA, and an
instance goes where the free slices lose the least worth. Rule for ties: the node with the
fewest free slices, then the first row; on a node the first device; on a device the first
start.

The state of a device is an integer: bit s is set while memory slice s is in use, bit
`MEDIA_BIT` while an instance has the media extensions, of which a device has one set.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from scheduler.placement.fragments import GAMMA, MILLI, Floats, Ints

MEDIA_BIT = 8
_STATES = 1 << (MEDIA_BIT + 1)
_STEPS = 10_000.0  # losses are compared in parts of a milli-device


@dataclass(frozen=True, slots=True)
class Profile:
    """A kind of GPU instance: `slices` memory slices from one of `starts` on; `media`: with the media extensions."""

    name: str
    slices: int
    starts: tuple[int, ...]
    media: bool = False

    def taken(self, start: int) -> int:
        """The bits of a device's state that an instance at this start sets."""
        return ((1 << self.slices) - 1) << start | (self.media << MEDIA_BIT)


@dataclass(frozen=True, slots=True)
class Model:
    """A device that MIG divides. All of its `slices` memory slices are equally large."""

    name: str
    slices: int
    profiles: Mapping[str, Profile]

    def profile(self, name: str) -> Profile:
        """Raises ValueError, which names those that there are, when the device has no such profile."""
        found = self.profiles.get(name)
        if found is None:
            raise ValueError(f"{self.name} has no MIG profile {name}; it has {', '.join(self.profiles)}")
        return found


def _eight(name: str, one: str, double: str, half: str, full: str) -> Model:
    """A device of seven compute and eight memory slices; its profiles' memory by size."""
    profiles = (
        Profile(f"1g.{one}", 1, (0, 1, 2, 3, 4, 5, 6)),
        Profile(f"1g.{one}+me", 1, (0, 1, 2, 3, 4, 5, 6), media=True),
        Profile(f"1g.{double}", 2, (0, 2, 4, 6)),
        Profile(f"2g.{double}", 2, (0, 2, 4)),
        Profile(f"3g.{half}", 4, (0, 4)),
        Profile(f"4g.{half}", 4, (0,)),
        Profile(f"7g.{full}", 8, (0,)),
    )
    return Model(name, 8, {one.name: one for one in profiles})


def _four(name: str, one: str, double: str, full: str) -> Model:
    """A device of four compute and four memory slices."""
    profiles = (
        Profile(f"1g.{one}", 1, (0, 1, 2, 3)),
        Profile(f"1g.{one}+me", 1, (0, 1, 2, 3), media=True),
        Profile(f"2g.{double}", 2, (0, 2)),
        Profile(f"2g.{double}+me", 2, (0, 2), media=True),
        Profile(f"4g.{full}", 4, (0,)),
    )
    return Model(name, 4, {one.name: one for one in profiles})


MODELS: Mapping[str, Model] = {
    model.name: model
    for model in (
        _eight("A100-40GB", "5gb", "10gb", "20gb", "40gb"),
        _eight("A100-80GB", "10gb", "20gb", "40gb", "80gb"),
        _eight("H100", "10gb", "20gb", "40gb", "80gb"),
        _eight("H200", "18gb", "35gb", "71gb", "141gb"),
        _eight("B200", "23gb", "45gb", "90gb", "180gb"),
        _four("A30", "6gb", "12gb", "24gb"),
    )
}


def starts(profile: Profile, state: int) -> tuple[int, ...]:
    """Where an instance may begin on a device in this state, the first first."""
    return tuple(start for start in profile.starts if not state & profile.taken(start))


@dataclass(frozen=True, slots=True)
class Slot:
    """Where an instance went: the row of its node, the device there, its first memory slice."""

    row: int
    device: int
    start: int


class MigWorth:
    """What devices of one model are worth in each state, for one mix of typical profiles."""

    def __init__(self, model: Model, mix: Mapping[str, float], gamma: float = GAMMA) -> None:
        """`mix`: frequency of each profile by name. Raises ValueError for a profile that the model does not have."""
        self.model = model
        wanted = [(model.profile(name), mix[name]) for name in sorted(mix)]
        self.of: Floats = np.array([self._value(state, wanted, gamma) for state in range(_STATES)])
        self._moves: dict[str, tuple[Ints, Ints]] = {}

    def _value(self, state: int, wanted: list[tuple[Profile, float]], gamma: float) -> float:
        usable = [0.0] * self.model.slices
        for profile, part in wanted:
            reached = 0
            for start in starts(profile, state):
                reached |= profile.taken(start)
            for at in range(self.model.slices):
                usable[at] += part if reached >> at & 1 else 0.0
        each = MILLI / self.model.slices
        return sum((each * float(part**gamma) for part in usable if part > 0), start=0.0)

    def moves(self, profile: Profile) -> tuple[Ints, Ints]:
        """(loss, best start) by state of a device; start -1 where there is no place."""
        known = self._moves.get(profile.name)
        if known is None:
            loss, best = np.zeros(_STATES, dtype=np.int64), np.full(_STATES, -1, dtype=np.int64)
            for state in range(_STATES):
                options = [
                    (round((self.of[state] - self.of[state | profile.taken(start)]) * _STEPS), start)
                    for start in starts(profile, state)
                ]
                if options:
                    loss[state], best[state] = min(options)
            known = self._moves[profile.name] = loss, best
        return known

    def place(self, profile: Profile, states: Ints) -> Slot | None:
        """The best place for one instance; None when there is none. `states`: shape (nodes, devices); not changed."""
        if states.size == 0:
            return None
        loss, best = self.moves(profile)
        never = np.iinfo(np.int64).max
        losses = np.where(best[states] >= 0, loss[states], never)
        least = losses.min(axis=1)
        rows = np.flatnonzero(least == least.min())
        if least[rows[0]] == never:
            return None
        free = (_FREE[self.model.slices][states[rows]]).sum(axis=1)
        row = int(rows[int(free.argmin())])
        device = int(losses[row].argmin())
        return Slot(row, device, int(best[states[row, device]]))


_FREE: Mapping[int, Ints] = {  # slices of a device → free ones by its state
    slices: np.array([slices - (state & ((1 << slices) - 1)).bit_count() for state in range(_STATES)])
    for slices in (4, 8)
}
