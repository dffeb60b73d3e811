"""Kept for its importers: `scheduler.objects.pod_requests`, which the command line reads too."""

from scheduler.objects.pod_requests import (
    Amounts,
    Spec,
    exceeds,
    limit_defaults,
    pod_requests,
    read_amounts,
    show_amounts,
)

__all__ = [
    "Amounts",
    "Spec",
    "exceeds",
    "limit_defaults",
    "pod_requests",
    "read_amounts",
    "show_amounts",
]
