"""Kept for its importers: `scheduler.objects.shape`, which the command line reads too."""

from scheduler.objects.shape import (
    GROUP_INCOMPLETE,
    INVALID_KEYS,
    INVALID_PRIORITY,
    INVALID_RESOURCES,
    INVALID_SETTING,
    NOT_GATED,
    NOTHING_TO_RUN,
    RUN_BY_ANOTHER,
    RUNTIME_CLASS_NOT_FOUND,
    TOO_MANY_SHAPES,
    UNSUPPORTED_PLACEMENT,
    Object,
    Refused,
    Shape,
)

__all__ = [
    "GROUP_INCOMPLETE",
    "INVALID_KEYS",
    "INVALID_PRIORITY",
    "INVALID_RESOURCES",
    "INVALID_SETTING",
    "NOTHING_TO_RUN",
    "NOT_GATED",
    "RUNTIME_CLASS_NOT_FOUND",
    "RUN_BY_ANOTHER",
    "TOO_MANY_SHAPES",
    "UNSUPPORTED_PLACEMENT",
    "Object",
    "Refused",
    "Shape",
]
