"""Kept for its importers: `scheduler.objects.queue_settings`, which the command line reads too."""

from scheduler.objects.queue_settings import (
    LEVELS,
    SETTINGS,
    keys_of,
    pod_set_settings,
    priority_of,
    settings_of,
)

__all__ = [
    "LEVELS",
    "SETTINGS",
    "keys_of",
    "pod_set_settings",
    "priority_of",
    "settings_of",
]
