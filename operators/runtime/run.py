"""Joins the watches, the stores, the work queues and a periodic full resync."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import signal
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import kopf

from operators.runtime.cluster import ApiFault, Cluster
from operators.runtime.controller import Attachable, Controller, Key, Prioritised
from operators.runtime.kopf_setup import settings
from operators.runtime.store import Store, Stores
from operators.runtime.watch import Watch
from operators.runtime.workqueue import WorkQueue

log = logging.getLogger(__name__)
_EARLY_RESYNCS = (3.0, 12.0)  # seconds
HOT = frozenset({"Workload", "Job", "Pod"})
"""Kinds that change with every piece of work; they are watched without kopf (see `Watch`)."""


class Runtime:
    """Runs controllers over one cluster until it is stopped."""

    def __init__(
        self,
        cluster: Cluster,
        stores: Stores,
        controllers: Sequence[Controller],
        kubeconfig: Path | None = None,
        resync_seconds: float = 300.0,
    ) -> None:
        self.cluster = cluster
        self.stores = stores
        self.resync_seconds = resync_seconds
        self._kubeconfig = kubeconfig
        self.queues: dict[str, WorkQueue[Key]] = {}
        self._watches: list[Watch] = []
        self.ready = asyncio.Event()
        for controller in controllers:
            urgent = controller.urgent if isinstance(controller, Prioritised) else _no_hurry
            queue = WorkQueue[Key](controller.name, controller.reconcile, controller.workers, urgent=urgent)
            self.queues[controller.name] = queue
            if isinstance(controller, Attachable):
                controller.attach(queue)
            for kind, touches in controller.watches.items():
                stores.watch(kind).listen(_enqueue(queue, touches))

    async def run(self, stop: asyncio.Event) -> None:
        """List everything once, then follow events; returns soon after `stop` is set."""
        self._watches = [Watch(self.cluster, store) for store in self.stores if store.resource.kind in HOT]
        await self._resync_until_done(stop)
        if stop.is_set():
            return
        self.ready.set()
        tasks = [
            asyncio.create_task(stop.wait(), name="stop"),
            *(asyncio.create_task(queue.run(), name=name) for name, queue in self.queues.items()),
            asyncio.create_task(self._resync_forever(), name="resync"),
            *(asyncio.create_task(watch.run(), name=f"watch of {watch.kind}") for watch in self._watches),
            asyncio.create_task(self._kopf(stop), name="kopf"),
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if stop.is_set():
                return  # kopf, when it stops, cancels what runs beside it
            for task in done:
                if task.get_name() != "stop":
                    # A part that ends by itself is a fault: end the process, so that it is restarted whole.
                    task.result()
                    raise RuntimeError(f"{task.get_name()} ended unexpectedly")
        finally:
            stop.set()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _resync_until_done(self, stop: asyncio.Event) -> None:
        delay = 0.2
        while not stop.is_set():
            try:
                # A watch goes on from its own list without a gap.
                await asyncio.gather(
                    *(self._resync_store(store) for store in self._kopfs()), *(watch.list() for watch in self._watches)
                )
                return
            except ApiFault as fault:
                log.warning("first listing failed, again in %.1f s: %s", delay, fault)
                await asyncio.sleep(delay)
                delay = min(delay * 2, 10.0)

    async def resync(self) -> None:
        """List every watched kind; finds what a watch gap has hidden, deletions above all."""
        await asyncio.gather(*(self._resync_store(store) for store in self.stores))

    def _kopfs(self) -> list[Store]:
        return [store for store in self.stores if store.resource.kind not in HOT]

    async def _resync_store(self, store: Store) -> None:
        newest = store.newest()
        try:
            found = await self.cluster.list(store.resource)
        except ApiFault as fault:
            if not fault.gone:
                raise
            found = []  # its CRD has been removed, and all its objects with it
        store.replace(found, newest)

    async def _resync_forever(self) -> None:
        # What is deleted between the first list and kopf's first watch is told by nobody: look again soon.
        for delay in itertools.chain(_EARLY_RESYNCS, itertools.repeat(self.resync_seconds)):
            await asyncio.sleep(delay)
            try:
                if delay in _EARLY_RESYNCS:
                    await asyncio.gather(*(self._resync_store(store) for store in self._kopfs()))
                else:
                    await self.resync()
            except ApiFault as fault:
                log.warning("resync failed, another one follows: %s", fault)

    async def _kopf(self, stop: asyncio.Event) -> None:
        registry = kopf.OperatorRegistry()
        if self._kubeconfig:
            os.environ["KUBECONFIG"] = str(self._kubeconfig)

        @kopf.on.login(registry=registry)
        def login(**kwargs: Any) -> Any:
            if self._kubeconfig:
                return kopf.login_with_kubeconfig(**kwargs)
            return kopf.login_with_service_account(**kwargs)

        for store in self._kopfs():
            _watch(registry, store)
        await asyncio.sleep(0)  # let the queues start their workers: kopf takes later tasks for its own
        beside = asyncio.all_tasks()
        spawned = await kopf.spawn_tasks(
            registry=registry, settings=settings(), clusterwide=True, standalone=True, stop_flag=stop
        )
        if threading.current_thread() is threading.main_thread():
            # kopf has just taken these for itself; the end is ours to order.
            for name in (signal.SIGTERM, signal.SIGINT):
                asyncio.get_running_loop().add_signal_handler(name, stop.set)
        await kopf.run_tasks(spawned, ignored=beside)


def _watch(registry: kopf.OperatorRegistry, store: Store) -> None:
    resource = store.resource

    async def event(type: str | None, body: Any, **_: Any) -> None:
        obj = dict(body)
        obj.setdefault("apiVersion", resource.api_version)
        obj.setdefault("kind", resource.kind)
        if type == "DELETED":
            store.forget(obj)
        else:
            store.observe(obj)

    kopf.on.event(resource.group or "", resource.version, resource.plural, registry=registry, id=resource.plural)(event)


def _no_hurry(key: Key) -> bool:
    return False


def _enqueue(queue: WorkQueue[Key], touches: Any) -> Any:
    def listener(old: dict[str, Any] | None, new: dict[str, Any] | None) -> None:
        keys = dict.fromkeys(key for obj in (old, new) if obj is not None for key in touches(obj))
        for key in keys:
            queue.add(key)

    return listener
