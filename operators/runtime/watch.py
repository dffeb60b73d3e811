"""Follows one kind by list and watch, and hands every event straight to its store.

For the kinds that change hundreds of times a second. kopf's own path (a queue, a batching
delay, a task and several copies an object) costs about ten times the event itself; what
it offers beyond watching is not used here. Other kinds stay with kopf.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
from typing import Any

from operators.runtime.cluster import ApiFault, Cluster
from operators.runtime.store import Store

log = logging.getLogger(__name__)
_SERVER_SECONDS = 600  # the API server ends a watch after so long; then it goes on where it was
_SILENCE = 120.0  # bookmarks come every minute: a connection that brings nothing for two is dead
_AT_ONCE = 50  # events between two turns of the event loop


class Expired(Exception):
    """The resourceVersion is too old to go on from: everything must be listed anew."""


class Watch:
    """One kind, followed until cancelled."""

    def __init__(self, cluster: Cluster, store: Store, label_selector: str = "") -> None:
        self.kind = store.resource.kind
        self._cluster = cluster
        self._store = store
        self._selector = label_selector
        self._since = ""  # resourceVersion up to which everything is known; empty: list first

    async def run(self) -> None:
        """List, then follow; again from where it was when the connection ends, from a list when that is too old."""
        delay = 0.1
        while True:
            try:
                if not self._since:
                    await self.list()
                await self._follow()
                delay = 0.1
            except Expired:
                log.info("%s: too old to go on from, listing anew", self._store.resource.plural)
                self._since = ""
            except ApiFault as fault:
                if fault.code == 410:
                    self._since = ""
                log.info("%s: watching again in %.1f s: %s", self._store.resource.plural, delay, fault)
                await asyncio.sleep(delay * random.uniform(0.8, 1.2))  # noqa: S311
                delay = min(delay * 2, 10.0)

    async def list(self) -> None:
        """Take in all objects; what is missing is gone."""
        newest = self._store.newest()
        objects, self._since = await self._cluster.list_at(self._store.resource, label_selector=self._selector)
        self._store.replace(objects, newest)

    async def _follow(self) -> None:
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": self._since,
            "timeoutSeconds": _SERVER_SECONDS,
        }
        if self._selector:
            query["labelSelector"] = self._selector
        taken = 0
        async for lines in self._cluster.stream(self._store.resource.path(), query, _SILENCE):
            for line in lines:
                if line:
                    self._take(json.loads(line))
                    taken += 1
                    if taken % _AT_ONCE == 0:
                        await asyncio.sleep(0)

    def _take(self, event: dict[str, Any]) -> None:
        kind, obj = event["type"], event["object"]
        if kind == "ERROR":
            if obj.get("code") == 410:
                raise Expired
            raise ApiFault(int(obj.get("code") or 0), str(obj.get("reason", "")), str(obj.get("message", "")))
        self._since = obj["metadata"]["resourceVersion"]
        try:
            if kind == "DELETED":
                self._store.forget(obj)
            elif kind != "BOOKMARK":
                self._store.observe(obj)
        except Exception:
            # One object that a listener cannot read must not stop the watching of all others.
            log.exception("%s %s was not taken in whole", self.kind, obj["metadata"].get("name"))
