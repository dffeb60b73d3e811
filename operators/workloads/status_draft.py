"""The status of a Workload that is to be written, built up from what it was."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from crds.conditions import find, set_condition


@dataclass(slots=True)
class Draft:
    """The status to be, built up from what it was."""

    workload: Mapping[str, Any]
    now: datetime
    conditions: list[dict[str, Any]] = field(default_factory=list)
    admission: Mapping[str, Any] | None = None
    reasons: list[dict[str, str]] = field(default_factory=list)
    requeue: Mapping[str, Any] | None = None
    past_runtime: int | None = None
    position: int | None = None

    def __post_init__(self) -> None:
        status = self.workload.get("status") or {}
        self.conditions = [dict(one) for one in status.get("conditions") or ()]
        self.admission = status.get("admission")
        self.requeue = status.get("requeue")
        self.past_runtime = status.get("pastRuntimeSeconds")

    def set(self, kind: str, value: bool | None, reason: str, message: str = "") -> None:
        generation = self.workload["metadata"].get("generation", 0)
        self.conditions = set_condition(self.conditions, kind, value, reason, message, self.now, generation)

    def keep(self, kind: str) -> None:
        """A condition that stays as it is, or starts as False."""
        old = find(self.conditions, kind)
        if old is None:
            self.set(kind, False, "NotYet")
        else:
            self.set(kind, old["status"] == "True", str(old["reason"]), str(old.get("message", "")))

    def wire(self) -> dict[str, Any]:
        out: dict[str, Any] = {
            "conditions": self.conditions,
            "observedGeneration": self.workload["metadata"].get("generation", 0),
        }
        if self.admission is not None:
            out["admission"] = dict(self.admission)
        if self.reasons:
            out["reasons"] = self.reasons
        rest = {"requeue": self.requeue, "pastRuntimeSeconds": self.past_runtime, "position": self.position}
        return out | {name: value for name, value in rest.items() if value is not None}
