"""Kubernetes Events for people who `kubectl describe` their Job. Bounded: they inform, conditions tell the truth."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from crds.labels import MANAGER_WORKLOADS
from operators.runtime import ApiFault, Cluster
from scheduler import Reason

log = logging.getLogger(__name__)
_RATE, _BURST = 2.0, 50.0  # events a second, and at once
_NOTE_LIMIT = 1024


class Events:
    """Posts events.k8s.io/v1 Events in the background; what is beyond the rate is dropped."""

    def __init__(self, cluster: Cluster, clock: Any = time.monotonic) -> None:
        self._cluster = cluster
        self._clock = clock
        self._tokens, self._filled = _BURST, clock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._last: dict[str, str] = {}  # uid → the last reason told, so that a repeat is not

    def tell(self, regarding: Mapping[str, Any], reason: Reason, warning: bool = False) -> bool:
        """Post one. False when it was dropped."""
        uid = regarding["metadata"]["uid"]
        if self._last.get(uid) == reason.code or not self._take():
            return False
        if len(self._last) > 20_000:
            self._last.clear()
        self._last[uid] = reason.code
        task = asyncio.create_task(self._post(body(regarding, reason, warning, datetime.now(UTC))))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return True

    def _take(self) -> bool:
        now = self._clock()
        self._tokens = min(_BURST, self._tokens + (now - self._filled) * _RATE)
        self._filled = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    async def _post(self, event: dict[str, Any]) -> None:
        try:
            await self._cluster.create(event, MANAGER_WORKLOADS)
        except ApiFault as fault:
            log.debug("an event was not posted: %s", fault)


def body(regarding: Mapping[str, Any], reason: Reason, warning: bool, now: datetime) -> dict[str, Any]:
    """An events.k8s.io/v1 Event."""
    meta = regarding["metadata"]
    note = f"{reason.message}; {reason.nearest}" if reason.nearest else reason.message or reason.code
    mark = hashlib.sha256(f"{meta['uid']}{reason.code}{now.isoformat()}".encode()).hexdigest()[:16]
    return {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": f"{meta['name'][:200]}.{mark}", "namespace": meta["namespace"]},
        "regarding": {
            "apiVersion": regarding["apiVersion"],
            "kind": regarding["kind"],
            "name": meta["name"],
            "namespace": meta["namespace"],
            "uid": meta["uid"],
        },
        "reason": reason.code,
        "note": note[:_NOTE_LIMIT],
        "type": "Warning" if warning else "Normal",
        "action": "Queue",
        "eventTime": now.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "reportingController": "kekkai.dev/workloads",
        "reportingInstance": MANAGER_WORKLOADS,
    }
