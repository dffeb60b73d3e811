"""What the steps of a Machine's life share: the objects, the provider, and the status being built."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from crds.conditions import find, set_condition
from operators.pools.providers import Instance, Provider
from operators.runtime import Cluster, Stores
from scheduler.objects.fleet_objects import seconds

Object = dict[str, Any]


@dataclass(slots=True)
class Scope:
    """One visit of one Machine. Steps set conditions here; they are written once, at the end."""

    cluster: Cluster
    stores: Stores
    machine: Object
    pool: Object | None
    provider: Provider | None
    node: Object | None
    pods: list[Object]
    starting: int  # machines of the pool that have been launched and are not initialized
    now: datetime = field(default_factory=lambda: datetime.now(UTC))
    conditions: list[dict[str, Any]] = field(default_factory=list)
    provider_id: str = ""
    node_name: str = ""
    instance: Instance | None = None  # what the provider said of it in this visit
    asked: dict[str, float] = field(default_factory=dict)  # what was asked in earlier visits → when, by `ticks`
    ticks: float = field(default_factory=time.monotonic)  # seconds on the process's own clock
    gone: bool = False  # nothing is left of it: its finalizer may go
    doomed: str = ""  # why it has to be replaced

    def __post_init__(self) -> None:
        status = self.machine.get("status") or {}
        self.conditions = [dict(one) for one in status.get("conditions") or ()]
        self.provider_id = status.get("providerID") or ""
        self.node_name = status.get("nodeName") or ""

    @property
    def name(self) -> str:
        return str(self.machine["metadata"]["name"])

    @property
    def token(self) -> str:
        return str(self.machine["spec"]["clientToken"])

    @property
    def going(self) -> bool:
        return bool(self.machine["metadata"].get("deletionTimestamp"))

    @property
    def pool_name(self) -> str:
        return str(self.machine["spec"]["pool"])

    def pause(self, what: str, pace: float) -> float:
        """Seconds until `what` may be asked again; 0 or less: now, and then it counts as asked."""
        left = self.asked.get(what, self.ticks - pace) + pace - self.ticks
        if left <= 0:
            self.asked[what] = self.ticks
        return left

    def age(self) -> float:
        """Seconds since the Machine was written."""
        return self.now.timestamp() - seconds(self.machine["metadata"].get("creationTimestamp"))

    def leaving_for(self) -> float:
        """Seconds since its deletion was asked for."""
        return self.now.timestamp() - seconds(self.machine["metadata"].get("deletionTimestamp"))

    def since(self, kind: str) -> float:
        """Seconds since this condition last flipped; 0 when there is none."""
        found = find(self.conditions, kind)
        return self.now.timestamp() - seconds(found["lastTransitionTime"]) if found is not None else 0.0

    def set(self, kind: str, value: bool | None, reason: str, message: str = "") -> None:
        generation = self.machine["metadata"].get("generation", 0)
        self.conditions = set_condition(self.conditions, kind, value, reason, message, self.now, generation)

    def is_true(self, kind: str) -> bool:
        found = find(self.conditions, kind)
        return found is not None and found["status"] == "True"

    def status(self) -> dict[str, Any]:
        out: dict[str, Any] = {
            "conditions": self.conditions,
            "observedGeneration": self.machine["metadata"].get("generation", 0),
        }
        if self.provider_id:
            out["providerID"] = self.provider_id
        if self.node_name:
            out["nodeName"] = self.node_name
        return out
