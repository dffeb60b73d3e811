"""Kubernetes-style conditions: a list keyed by type, one summary (`Ready`), no `phase`.

`set_condition` changes `lastTransitionTime` only when the status flips, so that a
reconcile which finds nothing new produces an equal list and no patch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import Field

from crds.meta import Model

ConditionStatus = Literal["True", "False", "Unknown"]

READY = "Ready"
# Machine
LAUNCHED, REGISTERED, INITIALIZED, DRAINED = "Launched", "Registered", "Initialized", "Drained"
# Workload
ADMITTED, PODS_READY, EVICTED, FINISHED = "Admitted", "PodsReady", "Evicted", "Finished"
DATA_FLOW_SIGNAL, DATA_FLOW_APPLIED = "DataFlowSignal", "DataFlowApplied"
# ProtectedKey
SEALED, POLICY_ACCEPTED = "Sealed", "PolicyAccepted"


class Condition(Model):
    """One observation of an object's state (meta/v1 Condition)."""

    type: str = Field(pattern=r"^[A-Z][A-Za-z0-9]*$", max_length=63, description="CamelCase name.")
    status: ConditionStatus = Field(description="True, False or Unknown.")
    reason: str = Field(
        pattern=r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$",
        max_length=1024,
        description="CamelCase code for programs.",
    )
    message: str = Field(default="", max_length=32768, description="What a person should know.")
    last_transition_time: str = Field(
        json_schema_extra={"format": "date-time"}, description="When the status last flipped (RFC 3339)."
    )
    observed_generation: int = Field(default=0, ge=0, description="The metadata.generation this was computed from.")


def timestamp(now: datetime) -> str:
    """RFC 3339 in UTC with whole seconds, as metav1.Time is written."""
    return now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def find(conditions: Iterable[Mapping[str, Any]] | None, kind: str) -> Mapping[str, Any] | None:
    """The condition of that type, or None."""
    return next((c for c in conditions or () if c.get("type") == kind), None)


def is_true(obj: Mapping[str, Any], kind: str) -> bool:
    """Whether an object (as a plain mapping) reports that condition as True."""
    found = find((obj.get("status") or {}).get("conditions"), kind)
    return found is not None and found.get("status") == "True"


def set_condition(
    conditions: Sequence[Mapping[str, Any]] | None,
    kind: str,
    status: bool | None,
    reason: str,
    message: str,
    now: datetime,
    generation: int = 0,
) -> list[dict[str, Any]]:
    """A new list with that condition set; the old list is left as it is."""
    word: ConditionStatus = "Unknown" if status is None else "True" if status else "False"
    old = find(conditions, kind)
    since = old["lastTransitionTime"] if old is not None and old.get("status") == word else timestamp(now)
    fresh = Condition(
        type=kind,
        status=word,
        reason=reason,
        message=message[:32768],
        last_transition_time=since,
        observed_generation=generation,
    ).wire()
    kept = [dict(c) for c in conditions or () if c.get("type") != kind]
    # Ready first, the others by name: a stable order keeps patches empty when nothing changed.
    return sorted([*kept, fresh], key=lambda c: (c["type"] != READY, c["type"]))
