"""Kept for its importers: `scheduler.objects.job_shape`, which the command line reads too."""

from scheduler.objects.job_shape import (
    POD_SET,
    Shape,
    full_parallelism,
    pods_at_once,
    shape_of,
    shaped,
)

__all__ = [
    "POD_SET",
    "Shape",
    "full_parallelism",
    "pods_at_once",
    "shape_of",
    "shaped",
]
