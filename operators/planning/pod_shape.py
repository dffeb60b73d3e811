"""Kept for its importers: `scheduler.objects.pod_shape`, which the command line reads too."""

from scheduler.objects.pod_shape import (
    POD_SET,
    is_device,
    is_gated,
    pod_set_of,
    refuse_ungated,
    tee_of,
)

__all__ = [
    "POD_SET",
    "is_device",
    "is_gated",
    "pod_set_of",
    "refuse_ungated",
    "tee_of",
]
