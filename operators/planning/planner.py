"""Runs `scheduler.plan` when something changed or its time has come, and lays out what it decided."""

from __future__ import annotations

import asyncio
import gc
import logging
import time
from collections.abc import Iterable, Mapping
from typing import Any

from prometheus_client import Counter, Gauge, Histogram

from operators.planning.decisions import Admitted, Decisions, Moved
from operators.planning.feed import KINDS, Feed
from operators.runtime import Key, Touches, WorkQueue
from scheduler import Memory, Plan, plan
from scheduler.decision import NobodyWaits, Reasons

log = logging.getLogger(__name__)
PLAN: Key = ("", "plan")
_PACE = 0.05  # seconds between plans, at least
_SHARE = 3.0  # a plan that takes long makes the next one wait this many times longer

SECONDS = Histogram("kekkai_plan_seconds", "Time of one planning cycle.")
ADMISSIONS = Counter("kekkai_admissions_total", "Workloads admitted.")
EVICTIONS = Counter("kekkai_evictions_total", "Workloads evicted, by reason.", ["reason"])
REPLACED = Counter("kekkai_nodes_replaced_total", "Nodes replaced within workloads that went on running.")
WAITING = Gauge("kekkai_workloads_waiting", "Workloads that wait.")
HOLDING = Gauge("kekkai_workloads_known", "Workloads in the fleet, the finished ones included.")


class Planner:
    """A controller with one key: the next plan."""

    name = "planner"
    workers = 1

    def __init__(self, feed: Feed, decisions: Decisions) -> None:
        self.feed = feed
        self.decisions = decisions
        self.memory = Memory()
        self._last = 0.0
        self._pause = _PACE
        self._wake_at = 0.0  # of the last plan, by the wall clock
        self._reasons: Reasons = NobodyWaits()
        self._due = True  # something changed since the last plan
        self._settled = False
        self.watches: Mapping[str, Touches] = dict.fromkeys(KINDS, _any)
        decisions.listen("workload-void", lambda name: self._void("Workload", name))
        decisions.listen("machine-void", lambda name: self._void("Machine", name))
        self._queue: WorkQueue[Key] | None = None

    def attach(self, queue: WorkQueue[Key]) -> None:
        self._queue = queue

    def _void(self, kind: str, name: str) -> None:
        """A decision is off the desk without the cluster saying so: what it held may be free again."""
        self.feed.mark(kind, name)
        if self._queue is not None:
            self._queue.add(PLAN)

    async def reconcile(self, key: Key) -> float | None:
        """One cycle, not before the pace allows it."""
        await asyncio.sleep(max(0.0, self._last + self._pause - time.monotonic()))
        self._last = time.monotonic()
        self._due = self.feed.refresh() or self._due
        now = time.time()
        if self._due or (self._wake_at and now >= self._wake_at):
            started = time.monotonic()
            decided, self.memory = plan(self.feed.fleet, self.memory, now)
            self._lay_out(decided, now)
            self._settle()
            self._due = False  # not before it is laid out: a cycle that fails is done again
            self._wake_at = decided.next_wake or 0.0
            self._last = time.monotonic()
            self._pause = max(_PACE, _SHARE * (self._last - started))
            SECONDS.observe(self._last - started)
        pauses = [self._wake_at - now] if self._wake_at else []
        if not self._due:
            # The fleet is as the plan saw it, so that the reasons are about what is.
            again = self.decisions.telling.go(self._reasons)
            if again is not None:
                pauses.append(again)
        return max(0.0, min(pauses)) + 0.01 if pauses else None

    def _settle(self) -> None:
        """After the first plan: what was loaded lives on, and full collections need not walk it each time."""
        if not self._settled:
            gc.collect()
            gc.freeze()
            self._settled = True

    def _lay_out(self, decided: Plan, now: float) -> None:
        """Put the plan on the desk; the fleet counts each decision as done from here on."""
        desk, feed = self.decisions, self.feed
        for admission in decided.admissions:
            workload = feed.fleet.workloads[admission.workload]
            desk.admissions[admission.workload] = Admitted(workload.uid, workload.pod_sets, admission, now)
            desk.telling.forget(admission.workload)
            desk.tell("workload", admission.workload)
            ADMISSIONS.inc()
        for eviction in decided.evictions:
            if eviction.workload not in desk.evictions and eviction.workload not in feed.stopping:
                desk.evictions[eviction.workload] = eviction.reason
                desk.tell("workload", eviction.workload)
                feed.mark("Workload", eviction.workload)
                EVICTIONS.labels(eviction.reason.code).inc()
        for move in decided.moves:
            if move.workload not in desk.evictions and move.workload not in feed.stopping:
                desk.moves[move.workload] = Moved(feed.fleet.workloads[move.workload].uid, move)
                desk.tell("workload", move.workload)
                feed.mark("Workload", move.workload)
                REPLACED.inc(len(move.lost))
        for request in decided.machine_requests:
            if request.name not in desk.requests:
                desk.requests[request.name] = request
                desk.tell("machine", request.name)
        for removal in decided.machine_removals:
            if removal.machine not in desk.removals:
                desk.removals[removal.machine] = removal.reason
                desk.tell("machine", removal.machine)
                feed.mark("Node", *(node for node in _nodes_of(feed, removal.machine)))
        self._reasons = decided.waiting
        desk.telling.planned(bool(decided.admissions))
        feed.mark("Workload", *(one.workload for one in decided.admissions))
        feed.mark("Machine", *(one.name for one in decided.machine_requests))
        feed.mark("Machine", *(one.machine for one in decided.machine_removals))
        self._note_idle(frozenset(decided.idle))
        WAITING.set(len(decided.waiting))
        HOLDING.set(len(feed.fleet.workloads))
        if self._queue is not None and (decided.admissions or decided.machine_requests or decided.machine_removals):
            self._queue.add(PLAN)  # what was just decided changes what the next plan sees

    def _note_idle(self, idle: frozenset[str]) -> None:
        changed = idle ^ self.decisions.idle
        self.decisions.idle = idle
        nodes = self.feed.fleet.nodes
        for pool in {nodes[name].pool for name in changed if name in nodes}:
            self.decisions.tell("pool", pool)


def _nodes_of(feed: Feed, machine: str) -> Iterable[str]:
    state = feed.fleet.machines.get(machine)
    return (state.node,) if state is not None and state.node else ()


def _any(_: Mapping[str, Any]) -> Iterable[Key]:
    return (PLAN,)
