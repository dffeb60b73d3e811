"""Visits one Workload: looks, decides (`lifecycle`), writes the status, then acts on the Job and its pods."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from prometheus_client import Counter, Histogram

from crds.conditions import ADMITTED, FINISHED, PODS_READY, READY, find, is_true
from crds.labels import MANAGER_WORKLOADS
from crds.workload import WorkloadStatus
from operators.planning.batch_job import movable
from operators.planning.decisions import Decisions
from operators.planning.family import Family
from operators.planning.ownership import owning_job, runs_elsewhere
from operators.planning.queued_kind import Counts, QueuedKind
from operators.runtime import RESOURCES, ApiFault, Cluster, Key, Stores, Touches, WorkQueue, change_of, patch_status
from operators.workloads import external
from operators.workloads.events import Events
from operators.workloads.lifecycle import QUEUED, Outcome, View, decide
from operators.workloads.namespaces import is_ready
from operators.workloads.pinning import Pin, patch
from scheduler.explain.reasons import NODE_REPLACED
from scheduler.objects.fleet_objects import seconds
from scheduler.objects.shape import Shape

Object = Mapping[str, Any]
log = logging.getLogger(__name__)
_SOFT = 1.0  # seconds that a change which only informs may wait, so that a short Job is not written for it
_SOFT_AGAIN = 3.0  # seconds between two such writings of one Workload
_INFORMING = {PODS_READY, READY}
# The checks are written by their own controllers.
_OWNS = frozenset(field.alias or name for name, field in WorkloadStatus.model_fields.items()) - {"admissionChecks"}

FINISHED_TOTAL = Counter("kekkai_workloads_finished_total", "Workloads that have ended.", ["result"])
ADMISSION_WAIT = Histogram(
    "kekkai_admission_wait_seconds",
    "From creation to admission.",
    buckets=(0.1, 0.5, 1, 2, 5, 10, 30, 60, 300, 900, 3600, 21600),
)


class WorkloadController:
    """The level-triggered loop of admission, running, eviction and end."""

    name = "workloads"
    workers = 32  # requests under way at once: an admission is mostly waiting for the API server

    def __init__(
        self, cluster: Cluster, stores: Stores, decisions: Decisions, events: Events, family: Family | None = None
    ) -> None:
        self.cluster = cluster
        self.stores = stores
        self.decisions = decisions
        self.events = events
        self.family = family if family is not None else Family(stores)
        self.workloads, self.jobs, self.pods = (stores.watch(kind) for kind in ("Workload", "Job", "Pod"))
        self.nodes, self.namespaces = stores.watch("Node"), stores.watch("Namespace")
        self.classes, self.limits = stores.watch("RuntimeClass"), stores.watch("LimitRange")
        self._pods_of_job = self.pods.index("job", owning_job)
        self._on_node = self.workloads.index("node", _nodes_of)
        self._soft_since: dict[Key, float] = {}
        self._soft_written: dict[Key, float] = {}
        self.watches: Mapping[str, Touches] = {
            "Workload": lambda obj: (_key(obj),),
            "Job": self._governing,
            "Pod": self._governing,
            "Namespace": lambda obj: (_key(one) for one in self.workloads.in_namespace(obj["metadata"]["name"])),
        }
        # Only a node that vanishes matters to its Workloads; its heartbeats do not.
        self.nodes.listen(self._node)
        self.family.listen(lambda root: self._add(_split(self.family.workload_of(root))))
        decisions.listen("workload", lambda key: self._add(_split(key)))
        self._queue: WorkQueue[Key] | None = None

    def attach(self, queue: WorkQueue[Key]) -> None:
        self._queue = queue

    def urgent(self, key: Key) -> bool:
        """Admissions, evictions and what holds room go before those that wait, of whom thousands may be new."""
        text, workload = f"{key[0]}/{key[1]}", self.workloads.get(key[1], key[0])
        if text in self.decisions.admissions or text in self.decisions.evictions:
            return True
        holds = workload is not None and (workload.get("status") or {}).get("admission") is not None
        return holds and workload is not None and not is_true(workload, FINISHED)

    def _add(self, key: Key) -> None:
        if self._queue is not None:
            self._queue.add(key)

    def _governing(self, obj: Object) -> Iterable[Key]:
        root = self.family.root(obj)
        return (_split(self.family.workload_of(root)),) if root is not None else ()

    def _node(self, old: Object | None, new: Object | None) -> None:
        if new is None and old is not None:
            for workload in self._on_node.get(old["metadata"]["name"]):
                self._add(_key(workload))

    async def reconcile(self, key: Key) -> float | None:
        workload = self.workloads.get(key[1], key[0])
        if workload is None:
            self._forget(key)
            return None
        if workload["spec"].get("service"):
            return None  # its replicas are queued one by one, as pods; operators.dataflow writes its status
        elsewhere = runs_elsewhere(workload)
        view = self._look(workload, elsewhere)
        outcome = external.decide(view) if elsewhere else decide(view)
        if view.admitted is not None and not _admits(outcome):
            self._drop_admission(key)
        if view.moved is not None and not _moves(outcome):
            self._drop_move(_text(workload))
        pause = await self._write(key, workload, outcome)
        if outcome.suspend is not None and view.job is not None:
            await self._suspend(view, outcome.suspend, outcome.counts)
        await self._pin(outcome.pins)
        await self._delete(outcome.remove)
        await self._delete(outcome.bury, grace_seconds=0)
        return min((due for due in (pause, outcome.again) if due is not None), default=None)

    def _look(self, workload: dict[str, Any], elsewhere: bool) -> View:
        key, namespace = _text(workload), workload["metadata"]["namespace"]
        job = None if elsewhere else self.family.governed(workload)
        kind = self.family.kind_for(workload)
        return View(
            workload=workload,
            job=job,
            kind=kind,
            pods=self._pods_below(workload, job),
            shape=self._shape(workload, job, kind) if job is not None else Shape(),
            namespace_ready=is_ready(self.namespaces.get(namespace)),
            admitted=self.decisions.admissions.get(key),
            eviction=self.decisions.evictions.get(key),
            movable=movable(kind),
            moved=self.decisions.moves.get(key),
            waiting=self.decisions.waiting.get(key, ()),
            position=lambda: self.decisions.position(key),
            node_exists=lambda node: self.nodes.get(node) is not None,
            now=datetime.now(UTC),
            name_taken=job is None and self.jobs.get(workload["metadata"]["name"], namespace) is not None,
        )

    def _pods_below(self, workload: Object, root: Object | None) -> Sequence[Object]:
        if root is not None and root["kind"] != "Job":
            return self.family.pods(root)
        meta = root["metadata"] if root is not None else workload["spec"].get("ref") or {}
        return self._pods_of_job.get(str(meta.get("uid", "")))

    def _shape(self, workload: Object, root: Object, kind: QueuedKind) -> Shape:
        runs = (workload.get("status") or {}).get("admission") is not None
        if not kind.is_suspended(root) if kind.suspendable else runs:
            return Shape()  # its template cannot change, and only a start looks at the shape
        limits = self.limits.in_namespace(root["metadata"]["namespace"])
        return self.family.shape(root, limits, {c["metadata"]["name"]: c for c in self.classes})

    async def _write(self, key: Key, workload: dict[str, Any], outcome: Outcome) -> float | None:
        """Write the status if it differs; what only informs waits a moment. Returns when to come again."""
        change = change_of(workload, outcome.status, _OWNS) if outcome.status is not None else {}
        if outcome.status is None or not change:
            self._soft_since.pop(key, None)
            return None
        if _only_informs(workload, outcome.status):
            if _says_nothing(outcome.status):
                return None
            now = time.monotonic()
            since = self._soft_since.setdefault(key, now)
            due = max(since + _SOFT, self._soft_written.get(key, 0.0) + _SOFT_AGAIN)
            if now < due:
                return due - now
            self._soft_written[key] = now
        await patch_status(self.cluster, self.stores, workload, change, MANAGER_WORKLOADS)
        self._soft_since.pop(key, None)
        self._note(key, workload, outcome)
        return None

    def _note(self, key: Key, workload: Object, outcome: Outcome) -> None:
        """The status is written: take decisions off the desk, count, tell people."""
        text, fresh = _text(workload), self.workloads.get(key[1], key[0]) or workload
        if _admits(outcome):
            self.decisions.admissions.pop(text, None)
            ADMISSION_WAIT.observe(max(0.0, time.time() - seconds(workload["metadata"]["creationTimestamp"])))
        if _moves(outcome):
            self.decisions.moves.pop(text, None)
        if outcome.warning:
            self.decisions.evictions.pop(text, None)
        if is_true(fresh, FINISHED):
            FINISHED_TOTAL.labels("succeeded" if is_true(fresh, READY) else "failed").inc()
            self._soft_written.pop(key, None)
        if outcome.event is not None and not runs_elsewhere(workload):  # else its controller tells its people
            about = self.family.governed(workload)
            known = about is not None and about["kind"] in RESOURCES  # a group by label is no object
            self.events.tell(about if about is not None and known else workload, outcome.event, outcome.warning)

    def _drop_admission(self, key: Key) -> None:
        text = f"{key[0]}/{key[1]}"
        if self.decisions.admissions.pop(text, None) is not None:
            self.decisions.tell("workload-void", text)

    def _drop_move(self, text: str) -> None:
        if self.decisions.moves.pop(text, None) is not None:
            self.decisions.tell("workload-void", text)

    def _forget(self, key: Key) -> None:
        self._soft_since.pop(key, None)
        self._soft_written.pop(key, None)

    async def _suspend(self, view: View, suspend: bool, counts: Counts) -> None:
        """Suspend or start what it governs, if it is still the very version that was looked at."""
        root, kind = view.job, view.kind
        if root is None or kind.end(root, view.pods) is not None:
            return
        change = kind.suspension(root, suspend, counts)
        if change is None:
            return
        meta = root["metadata"]
        change["metadata"] = {**change.get("metadata", {}), "resourceVersion": meta["resourceVersion"]}
        fresh = await self.cluster.merge_patch(
            kind.resource, meta["name"], change, MANAGER_WORKLOADS, meta["namespace"]
        )
        self.stores.observe(fresh)

    async def _pin(self, pins: Iterable[Pin]) -> None:
        async def one(pin: Pin) -> None:
            meta = pin.pod["metadata"]
            async with limit:
                fresh = await self.cluster.json_patch(
                    RESOURCES["Pod"], meta["name"], patch(pin), MANAGER_WORKLOADS, meta["namespace"]
                )
            self.stores.observe(fresh)

        limit = asyncio.Semaphore(16)
        results = await asyncio.gather(*(one(pin) for pin in pins), return_exceptions=True)
        for problem in results:
            # A pod that is gone or changed meanwhile is looked at again; another fault is retried with back-off.
            if isinstance(problem, BaseException) and not (isinstance(problem, ApiFault) and problem.gone):
                raise problem

    async def _delete(self, pods: Iterable[Object], grace_seconds: int | None = None) -> None:
        for pod in pods:
            meta = pod["metadata"]
            await self.cluster.delete(
                RESOURCES["Pod"], meta["name"], meta["namespace"], uid=meta["uid"], grace_seconds=grace_seconds
            )


def _admits(outcome: Outcome) -> bool:
    return outcome.event is not None and outcome.event.code == ADMITTED


def _moves(outcome: Outcome) -> bool:
    return outcome.event is not None and outcome.event.code == NODE_REPLACED


def _only_informs(workload: Object, status: Mapping[str, Any]) -> bool:
    """Whether the new status starts, stops and ends nothing: reasons of a wait, readiness of pods."""
    old = workload.get("status") or {}
    if old.get("admission") != status.get("admission"):
        return False

    def rest(conditions: Iterable[Object] | None) -> dict[str, str]:
        return {
            c["type"]: c["status"] for c in conditions or () if c["type"] not in _INFORMING and c["status"] != "False"
        }

    return rest(old.get("conditions")) == rest(status["conditions"])


def _says_nothing(status: Mapping[str, Any]) -> bool:
    """Whether no reason is known yet: the queue has not looked at it, and a write would only say so."""
    admitted = find(status["conditions"], ADMITTED)
    return admitted is not None and admitted["reason"] == QUEUED


def _nodes_of(workload: Object) -> tuple[str, ...]:
    if is_true(workload, FINISHED):
        return ()
    placements = ((workload.get("status") or {}).get("admission") or {}).get("placements") or ()
    return tuple({one["node"] for one in placements})


def _key(obj: Object) -> Key:
    return obj["metadata"]["namespace"], obj["metadata"]["name"]


def _text(obj: Object) -> str:
    return "/".join(_key(obj))


def _split(text: str) -> Key:
    namespace, _, name = text.partition("/")
    return namespace, name
