"""What the kinds with `spec.suspend` have in common."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from operators.planning.pod_state import succeeded, up_or_done
from operators.planning.queued_kind import Counts, less_the_done
from scheduler.objects.shape import INVALID_SETTING, RUN_BY_ANOTHER, TOO_MANY_SHAPES, Object, Refused

_NAME = re.compile(r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")
MOST_POD_SETS = 16  # spec.podSets of a Workload


class Suspendable:
    """A kind whose controller takes its pods away while `spec.suspend` is true."""

    suspendable = True

    def applies(self, obj: Object) -> bool:
        return True

    def is_suspended(self, obj: Object) -> bool:
        return bool(obj["spec"].get("suspend"))

    def suspension(self, obj: Object, suspend: bool, admitted: Counts) -> dict[str, Any] | None:
        return None if self.is_suspended(obj) == suspend else {"spec": {"suspend": suspend}}

    def needed(self, obj: Object, pods: Sequence[Object], admitted: Counts) -> Counts:
        """All that were admitted, less the pods that have succeeded: those are not made again."""
        return less_the_done(admitted, pods, self.pod_set_of, succeeded)

    def ready(self, obj: Object, pods: Sequence[Object], admitted: Counts) -> bool:
        return up_or_done(pods) >= sum(admitted.values()) > 0

    def pod_set_of(self, pod: Object) -> str:
        raise NotImplementedError


def label(obj: Object, name: str) -> str:
    """The value of a label; "" when it is not there."""
    return str((obj["metadata"].get("labels") or {}).get(name, ""))


def refuse_other_manager(obj: Object, own: str) -> None:
    """`spec.managedBy` of another controller: it would be run without regard to the queue."""
    if obj["spec"].get("managedBy", own) != own:
        raise Refused(RUN_BY_ANOTHER, "spec.managedBy names another controller", "remove spec.managedBy")


def distinct(pod_sets: list[dict[str, Any]], where: str) -> list[dict[str, Any]]:
    """The pod sets, if a Workload can hold them: at most 16, of different names that are DNS labels."""
    names = [one["name"] for one in pod_sets]
    if len(names) > MOST_POD_SETS:
        message = f"{where} has {len(names)} pod templates; a Workload holds {MOST_POD_SETS}"
        raise Refused(TOO_MANY_SHAPES, message, "use fewer")
    for name in names:
        if not _NAME.fullmatch(name):
            raise Refused(INVALID_SETTING, f"{where}: {name!r} is no DNS label", "name it with a-z, 0-9 and -")
    if len(set(names)) < len(names):
        raise Refused(INVALID_SETTING, f"{where}: two pod templates have one name", "give them different names")
    return pod_sets
