"""Kept for its importers: `scheduler.objects.node_shape`, which the command line reads too."""

from scheduler.objects.node_shape import (
    INSTANCE_TYPE,
    REGION,
    Object,
    capacity,
    machine_labels,
    node_labels,
    pool_labels,
    resource_of,
    startup_taint,
)

__all__ = [
    "INSTANCE_TYPE",
    "REGION",
    "Object",
    "capacity",
    "machine_labels",
    "node_labels",
    "pool_labels",
    "resource_of",
    "startup_taint",
]
