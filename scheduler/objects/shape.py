"""What an object asks of the queue, or why it cannot be queued."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from scheduler import Reason

Object = Mapping[str, Any]

NOT_GATED = "NotGated"
UNSUPPORTED_PLACEMENT = "UnsupportedPlacement"
RUNTIME_CLASS_NOT_FOUND = "RuntimeClassNotFound"
INVALID_PRIORITY = "InvalidPriority"
INVALID_RESOURCES = "InvalidResources"
INVALID_KEYS = "InvalidKeys"
INVALID_SETTING = "InvalidSetting"
NOTHING_TO_RUN = "NothingToRun"
RUN_BY_ANOTHER = "RunByAnother"
TOO_MANY_SHAPES = "TooManyShapes"
GROUP_INCOMPLETE = "GroupIncomplete"


@dataclass(frozen=True, slots=True)
class Shape:
    """The part of a Workload's spec that is derived from the object it stands for, in wire form."""

    pod_sets: list[dict[str, Any]] = field(default_factory=list)
    priority: int = 0
    keys: list[dict[str, str]] = field(default_factory=list)
    refusal: Reason | None = None
    settings: dict[str, Any] = field(default_factory=dict)  # further fields of the spec, only those that are given


class Refused(Exception):
    """The object cannot be queued as it is."""

    def __init__(self, code: str, message: str, nearest: str) -> None:
        super().__init__(message)
        self.reason = Reason(code, message, nearest)
