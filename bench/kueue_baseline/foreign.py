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
from kueue_baseline.load import CLASSES, WORKLOADS, Class, class_of, tenants, workload
from kueue_baseline.writer import Writer
from operators.runtime import ApiFault, Store


@dataclass
class Foreign:
    """The foreign controller: creates on time, starts what is admitted, reports the end. Single-threaded."""

    writer: Writer
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
        """As Kueue's generator does: in each queue, each class waits its interval, creates, and waits again."""

        async def create(tenant: str, of: Class) -> None:
            for index in range(round(of.count * per_queue)):
                await asyncio.sleep(of.every)
                body = workload(tenant, of, index)
                self.created[tenant, body["metadata"]["name"]] = time.monotonic()
                await self._patiently(lambda body=body: self.writer.send("POST", WORKLOADS.path(tenant), body))

        async with asyncio.TaskGroup() as group:
            for tenant in tenants():
                for of in CLASSES:
                    group.create_task(create(tenant, of))

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
        path = WORKLOADS.path(key[0], key[1], "status")
        while True:
            found = self.store.get(key[1], key[0])
            assert found is not None
            if kind == "Finished" and is_true(found, "Evicted"):
                return False
            now = timestamp(datetime.now(UTC))
            said = {"type": kind, "status": status, "reason": reason, "lastTransitionTime": now}
            conditions = [one for one in found["status"]["conditions"] if one["type"] != kind]
            seen = found["metadata"]["resourceVersion"]
            body = {"metadata": {"resourceVersion": seen}, "status": {"conditions": [*conditions, said]}}
            try:
                await self._patiently(lambda body=body: self.writer.send("PATCH", path, body))
                return True
            except ApiFault as fault:
                if not fault.conflict:
                    raise
                self.retries += 1
                while (self.store.get(key[1], key[0]) or found)["metadata"]["resourceVersion"] == seen:
                    await asyncio.sleep(0.02)  # the version that was in the way is under way

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
