"""Whose pods the admitted Workloads account for, so that no pod is counted by itself as well."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from operators.planning.family import Family
from operators.planning.ownership import owning_job, runs_elsewhere
from operators.runtime import Store

Object = Mapping[str, Any]


class Coverage:
    """By the uid of the queued object. `recount` is called with pods that may be counted otherwise now."""

    def __init__(self, family: Family, pods: Store, recount: Callable[[Iterable[Object]], None]) -> None:
        self._family = family
        self._pods_of_job = pods.index("job", owning_job)
        self._recount = recount
        self._uid_of: dict[str, str] = {}  # admitted workload → uid of the object whose pods it accounts for
        self._uids: set[str] = set()  # those uids
        self._roots: dict[str, Object] = {}  # those objects, by uid, where they are no Jobs

    def cover(self, key: str, workload: Object | None) -> None:
        """The Workload of that name accounts for the pods of what it governs; None: for nobody's."""
        root = self._family.governed(workload) if workload is not None else None
        uid = self._uid(key, workload, root) if workload is not None else ""
        before = self._uid_of.pop(key, "")
        if uid:
            self._uid_of[key] = uid
        if root is not None and root["kind"] != "Job":
            self._roots[uid] = root
        if before == uid:
            return
        self._uids.discard(before)
        if uid:
            self._uids.add(uid)
        for one in filter(None, (before, uid)):
            known = self._roots.get(one)
            self._recount(self._family.pods(known) if known is not None else self._pods_of_job.get(one))
        self._roots.pop(before, None)

    def touched(self, root: Object) -> None:
        """A queued object that is no Job, or something between it and its pods, has changed."""
        if root["metadata"]["uid"] in self._uids:
            self._recount(self._family.pods(root))  # whose they are may be known only now

    def has(self, pod: Object) -> bool:
        """Whether a Workload accounts for this pod."""
        if self._uids.intersection(owning_job(pod)):
            return True
        root = self._family.root(pod) if self._roots else None
        return root is not None and root["metadata"]["uid"] in self._uids

    def pods(self, key: str, workload: Object, root: Object | None) -> Sequence[Object]:
        """The pods of what a Workload governs (`root`), also when that is gone and they are not yet."""
        if root is not None and root["kind"] != "Job":
            return self._family.pods(root)
        return self._pods_of_job.get(self._uid(key, workload, root))

    def _uid(self, key: str, workload: Object, root: Object | None) -> str:
        # A deleted Job's pods may outlive it for a moment; a shadow remembers whose they are.
        if runs_elsewhere(workload):
            return ""
        if root is not None:
            return str(root["metadata"]["uid"])
        return str((workload["spec"].get("ref") or {}).get("uid") or self._uid_of.get(key, ""))
