"""What a single pod says of itself."""

from __future__ import annotations

from collections.abc import Iterable

from scheduler.objects.fleet_objects import has_ended
from scheduler.objects.shape import Object


def is_ready(pod: Object) -> bool:
    """The Ready condition."""
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def succeeded(pod: Object) -> bool:
    """Whether its containers have all ended well."""
    return (pod.get("status") or {}).get("phase") == "Succeeded"


def up_or_done(pods: Iterable[Object]) -> int:
    """How many are ready or have succeeded."""
    return sum(1 for pod in pods if (is_ready(pod) and not has_ended(pod)) or succeeded(pod))
