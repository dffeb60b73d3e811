"""The foreign controller: it creates each Workload on time, starts what is admitted, reports the end."""

from __future__ import annotations

import asyncio
import heapq
import sys
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from crds.conditions import is_true, timestamp
from kueue_baseline.load import BY_NAME, CLASSES, RUNNER, WORKLOADS, Class, class_of, tenants, workload
from operators.runtime import ApiFault, Cluster, Store


@dataclass
class Foreign:
    """The foreign controller: creates on time, starts what is admitted, reports the end. Single-threaded."""

    cluster: Cluster
    total: int
    started: float = 0.0
    created: dict[tuple[str, str], float] = field(default_factory=dict)  # when the creation was sent
    admitted: dict[tuple[str, str], float] = field(default_factory=dict)
    ended: dict[tuple[str, str], float] = field(default_factory=dict)  # when its Finished was answered
    evictions: int = 0
    retries: int = 0
    store: Store = field(default_factory=lambda: Store(WORKLOADS))
    _running: list[tuple[float, tuple[str, str]]] = field(default_factory=list)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def observe(self, old: dict[str, Any] | None, new: dict[str, Any] | None) -> None:
        """A Workload changed: is it admitted now?"""
        if new is None or (new.get("status") or {}).get("admission") is None:
            return
        key = (new["metadata"]["namespace"], new["metadata"]["name"])
        if is_true(new, "Evicted"):
            if key in self.admitted and not is_true(new, "Finished"):
                self.evictions += 1
                del self.admitted[key]
                self._spawn(self._report(key, "PodsReady", "False", "Stopped"))
        elif key not in self.admitted:
            self.admitted[key] = time.monotonic()
            heapq.heappush(self._running, (self.admitted[key] + class_of(key).runtime, key))

    async def create_all(self, per_queue: float) -> None:
        """Each arrival at its time, or as soon as a connection is free."""
        arrivals = sorted(
            (of.every * index, tenant, of.name, index)
            for tenant in tenants()
            for of in CLASSES
            for index in range(round(of.count * per_queue))
        )
        gate = asyncio.Semaphore(24)

        async def create(tenant: str, of: Class, index: int) -> None:
            body = workload(tenant, of, index)
            self.created[tenant, body["metadata"]["name"]] = time.monotonic()
            try:
                await self._patiently(lambda: self.cluster.create(body, RUNNER))
            finally:
                gate.release()

        for at, tenant, name, index in arrivals:
            wait = self.started + at - time.monotonic()
            if wait > 0:
                await asyncio.sleep(wait)
            await gate.acquire()
            self._spawn(create(tenant, BY_NAME[name], index))

    async def finish_all(self) -> None:
        """Report the end of what has run its time, until all have ended."""
        while len(self.ended) < self.total:
            now = time.monotonic()
            while self._running and self._running[0][0] <= now:
                at, key = heapq.heappop(self._running)
                if key in self.admitted and self.admitted[key] + class_of(key).runtime <= at:  # else: evicted meanwhile
                    self._spawn(self._finish(key))
            await asyncio.sleep(0.01)

    async def _finish(self, key: tuple[str, str]) -> None:
        if await self._report(key, "Finished", "True", "Succeeded"):
            self.ended.setdefault(key, time.monotonic())

    async def _report(self, key: tuple[str, str], kind: str, status: str, reason: str) -> bool:
        """Set a condition; again when somebody else wrote first. False when it was evicted meanwhile."""
        while True:
            found = self.store.get(key[1], key[0])
            assert found is not None
            if kind == "Finished" and is_true(found, "Evicted"):
                return False
            now = timestamp(datetime.now(UTC))
            said = {"type": kind, "status": status, "reason": reason, "lastTransitionTime": now}
            conditions = [one for one in found["status"]["conditions"] if one["type"] != kind]
            meta = {"resourceVersion": found["metadata"]["resourceVersion"]}
            body = {"metadata": meta, "status": {"conditions": [*conditions, said]}}
            try:
                await self._patiently(
                    lambda body=body: self.cluster.merge_patch(WORKLOADS, key[1], body, RUNNER, key[0], "status")
                )
                return True
            except ApiFault as fault:
                if not fault.conflict:
                    raise
                self.retries += 1
                await asyncio.sleep(0.02)

    async def _patiently(self, send: Any) -> None:
        while True:
            try:
                await send()
                return
            except ApiFault as fault:
                if fault.code not in {0, 429, 500, 503, 504}:
                    raise
                self.retries += 1
                await asyncio.sleep(0.2)

    def _spawn(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            print(f"the foreign controller failed: {task.exception()!r}", file=sys.stderr, flush=True)
