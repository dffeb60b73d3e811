"""The desk between planning and the controllers that write: decided, not yet in the cluster.

What lies here counts as done for the next plan (so nothing is decided twice) and is
taken off when the cluster says so itself, or when its object is gone. It is lost with
the process, and then the next plan decides anew from what was written.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from scheduler import Admission, MachineRequest, PodSet, Reason

Wake = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Admitted:
    """An admission of this very Workload object."""

    uid: str
    pod_sets: tuple[PodSet, ...]  # what it was decided for; if the Workload asks for other pods now, it is void
    admission: Admission
    at: float  # seconds since the epoch


@dataclass(slots=True)
class Decisions:
    """Workloads by `namespace/name`, machines by name."""

    admissions: dict[str, Admitted] = field(default_factory=dict)
    evictions: dict[str, Reason] = field(default_factory=dict)
    waiting: dict[str, tuple[Reason, ...]] = field(default_factory=dict)
    requests: dict[str, MachineRequest] = field(default_factory=dict)
    removals: dict[str, str] = field(default_factory=dict)  # machine → why
    idle: frozenset[str] = frozenset()  # nodes without a use
    _listeners: dict[str, list[Wake]] = field(default_factory=dict)
    _told: dict[str, tuple[tuple[str, ...], float]] = field(default_factory=dict)
    _stale: dict[str, float] = field(default_factory=dict)  # workload → when to tell it of new words (monotonic)

    def listen(self, what: str, wake: Wake) -> None:
        """`what`: workload, workload-void, machine, machine-void, tenant or pool; `wake` gets the name."""
        self._listeners.setdefault(what, []).append(wake)

    def tell(self, what: str, name: str) -> None:
        for wake in self._listeners.get(what, ()):
            wake(name)

    def wait(self, key: str, reasons: tuple[Reason, ...], refresh_seconds: float) -> None:
        """Note why a workload waits; its controller is told when the codes differ, or seldom when only words do."""
        before = self.waiting.get(key)
        if before == reasons:
            return
        self.waiting[key] = reasons
        codes, at = tuple(reason.code for reason in reasons), time.monotonic()
        told, when = self._told.get(key, ((), 0.0))
        if codes != told or at - when >= refresh_seconds:
            self._told[key] = (codes, at)
            self._stale.pop(key, None)
            self.tell("workload", key)
        else:
            self._stale.setdefault(key, when + refresh_seconds)

    def tell_stale(self) -> float | None:
        """Tell those whose words changed and whose time has come; returns seconds until the next one's."""
        now = time.monotonic()
        for key in [key for key, due in self._stale.items() if due <= now]:
            del self._stale[key]
            self._told[key] = (self._told.get(key, ((), 0.0))[0], now)
            self.tell("workload", key)
        return min(self._stale.values()) - now if self._stale else None

    def forget(self, key: str) -> None:
        """The workload is gone or ended: nothing on the desk is about it any more."""
        self.admissions.pop(key, None)
        self.evictions.pop(key, None)
        self.waiting.pop(key, None)
        self._told.pop(key, None)
        self._stale.pop(key, None)
