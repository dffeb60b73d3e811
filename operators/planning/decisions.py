"""The desk between planning and the controllers that write: decided, not yet in the cluster.

What lies here counts as done for the next plan (so nothing is decided twice) and is
taken off when the cluster says so itself, or when its object is gone. It is lost with
the process, and then the next plan decides anew from what was written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from crds.conditions import timestamp
from operators.planning.telling import Telling
from scheduler import Admission, MachineRequest, Move, Placed, PodSet, Reason

Wake = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Admitted:
    """An admission of this very Workload object."""

    uid: str
    pod_sets: tuple[PodSet, ...]  # what it was decided for; if the Workload asks for other pods now, it is void
    admission: Admission
    at: float  # seconds since the epoch

    def wire(self) -> dict[str, Any]:
        """status.admission of the Workload."""
        return {
            "accelerator": self.admission.accelerator,
            "admittedAt": timestamp(datetime.fromtimestamp(self.at, UTC)),
            "placements": placements_wire(self.admission.placements),
        }


def placements_wire(placements: Iterable[Placed]) -> list[dict[str, Any]]:
    """status.admission.placements."""
    out = []
    for one in placements:
        entry: dict[str, Any] = {"podSet": one.pod_set, "node": one.node, "count": one.count}
        if one.devices:
            entry["devices"] = list(one.devices)
        out.append(entry)
    return out


@dataclass(frozen=True, slots=True)
class Moved:
    """A move of this very Workload object: lost pods go elsewhere while the others run."""

    uid: str
    move: Move

    def of(self, workload: Mapping[str, Any]) -> dict[str, Any]:
        """The Workload as it will be once the move is written."""
        status = workload.get("status") or {}
        admission = {**(status.get("admission") or {}), "placements": placements_wire(self.move.placements)}
        return {**workload, "status": {**status, "admission": admission}}


@dataclass(slots=True)
class Decisions:
    """Workloads by `namespace/name`, machines by name."""

    admissions: dict[str, Admitted] = field(default_factory=dict)
    moves: dict[str, Moved] = field(default_factory=dict)
    evictions: dict[str, Reason] = field(default_factory=dict)
    waiting: dict[str, tuple[Reason, ...]] = field(default_factory=dict)
    requests: dict[str, MachineRequest] = field(default_factory=dict)
    removals: dict[str, str] = field(default_factory=dict)  # machine → why
    idle: frozenset[str] = frozenset()  # nodes without a use
    position: Callable[[str], int | None] = lambda key: None  # a workload's place in its tenant's line
    _listeners: dict[str, list[Wake]] = field(default_factory=dict)
    telling: Telling = field(init=False)  # puts reasons into `waiting`

    def __post_init__(self) -> None:
        self.telling = Telling(self.waiting, lambda key: self.tell("workload", key))

    def listen(self, what: str, wake: Wake) -> None:
        """`what`: workload, workload-void, machine, machine-void, tenant or pool; `wake` gets the name."""
        self._listeners.setdefault(what, []).append(wake)

    def tell(self, what: str, name: str) -> None:
        for wake in self._listeners.get(what, ()):
            wake(name)

    def forget(self, key: str) -> None:
        """The workload is gone or ended: nothing on the desk is about it any more."""
        self.admissions.pop(key, None)
        self.evictions.pop(key, None)
        self.moves.pop(key, None)
        self.telling.forget(key)
