"""The loop: every bound confidential pod on an emulated node has its guest, and only those.

Level-triggered: whatever happened while the runner was away, the pods as they are now and the
folders under `pods/` say what to do. One task per pod; events only wake or cancel tasks.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from crds.errors import InvalidInput
from local.hardware.runner import pod_status
from local.hardware.runner.guest import GuestFolder, KeyServiceAddress, mount, run_guest
from local.hardware.runner.kube import KubeApi, ServerRefused
from local.hardware.runner.pod_spec import (
    ENDED,
    GuestSpec,
    Pod,
    being_deleted,
    guest_spec,
    is_emulated,
    phase_of,
    restarts_in_place,
    uid_of,
    wants_guest,
)
from local.hardware.runner.pod_status import Outcome
from local.hardware.snp.platform import SnpPlatform

logger = logging.getLogger(__name__)
T = TypeVar("T")
RETRY_SECONDS = (0.2, 0.5, 1.0, 2.0, 5.0)
FIRST_BACK_OFF, LONGEST_BACK_OFF = 10.0, 300.0  # as a kubelet's CrashLoopBackOff
FINALIZE_SECONDS = 10.0
START_ERROR = 128


class Runner:
    """Runs guests for one API server. `max_guests` bounds how many run at once."""

    def __init__(
        self,
        api: KubeApi,
        platform: SnpPlatform,
        keys: KeyServiceAddress,
        *,
        max_guests: int = 8,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._api, self._platform, self._keys = api, platform, keys
        self._slots = asyncio.Semaphore(max_guests)
        self._now = now
        self._pods_dir: Path = platform.data_dir / "pods"
        self._pods_dir.mkdir(mode=0o700, exist_ok=True)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        # Pods whose end was reported. Watch events of before may still come; they must not
        # start them again.
        self._done: set[str] = set()
        self._stopping = False

    async def run(self) -> None:
        """List and watch until cancelled; then stop all guests."""
        attempt = 0
        try:
            while True:
                try:
                    pods, version = await self._api.bound_pods()
                    self._resync(pods)
                    attempt = 0
                    async for kind, pod in self._api.watch_bound_pods(version):
                        self._observe(kind, pod)
                except (ServerRefused, OSError, TimeoutError, ValueError) as error:
                    logger.warning("watching pods failed, listing again: %s", error)
                    await _pause(attempt)
                    attempt += 1
        finally:
            self._stopping = True
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def _resync(self, pods: list[dict[str, Any]]) -> None:
        present = {uid_of(pod) for pod in pods}
        self._done &= present
        for uid in set(self._tasks) - present:
            _cancel(self._tasks[uid])
        for folder in self._pods_dir.iterdir():
            if folder.name not in present and folder.name not in self._tasks:
                GuestFolder(self._pods_dir, folder.name).remove()
        for pod in pods:
            self._observe("MODIFIED", pod)

    def _observe(self, kind: str, pod: Pod) -> None:
        if not wants_guest(pod):
            return
        uid = uid_of(pod)
        task = self._tasks.get(uid)
        if kind == "DELETED":
            self._done.discard(uid)
        if task is not None:
            if kind == "DELETED" or being_deleted(pod):
                _cancel(task)
        elif kind != "DELETED" and (being_deleted(pod) or (phase_of(pod) not in ENDED and uid not in self._done)):
            task = asyncio.create_task(self._tend(pod), name=f"pod-{pod['metadata']['name']}")
            self._tasks[uid] = task
            task.add_done_callback(lambda done: self._forget(uid, done))

    def _forget(self, uid: str, task: asyncio.Task[None]) -> None:
        self._tasks.pop(uid, None)
        if not task.cancelled() and task.exception() is not None:
            logger.error("tending pod %s failed", uid, exc_info=task.exception())

    async def _tend(self, pod: Pod) -> None:
        """One pod from its present state to its end."""
        node = await self._persist(lambda: self._api.node(pod["spec"]["nodeName"]))
        if node is not None and not is_emulated(node):
            return
        folder = GuestFolder(self._pods_dir, uid_of(pod))
        try:
            if node is not None and not being_deleted(pod):
                await self._live(pod, node, folder)
        except asyncio.CancelledError:
            if not self._stopping:  # the pod is being deleted: its guest is gone by now
                await self._finalize(pod, folder)
            raise
        if being_deleted(pod):
            await self._finalize(pod, folder)

    async def _live(self, pod: Pod, node: dict[str, Any], folder: GuestFolder) -> None:
        """Run the guest, as often as the restart policy has it, and report how it ended."""
        restarts = pod_status.restarts_of(pod)
        outcome = None
        if phase_of(pod) == "Running" or folder.start_time():
            outcome = folder.outcome()
            if outcome is None:
                if restarts_in_place(pod):
                    restarts += 1
                else:
                    outcome = pod_status.lost(pod_status.started_of(pod) or folder.start_time())
        while True:
            if outcome is None:
                outcome = await self._guest(pod, node, folder, restarts)
                if outcome is None:
                    return
            if outcome.reason == "DeadlineExceeded" or not restarts_in_place(pod, outcome.exit_code):
                break
            status = pod_status.backing_off(pod, outcome, self._now(), restarts)
            if not await self._report(pod, status):
                return
            await asyncio.sleep(min(FIRST_BACK_OFF * 2**restarts, LONGEST_BACK_OFF))
            restarts, outcome = restarts + 1, None
        await self._report(pod, pod_status.ended(pod, outcome, self._now(), restarts))
        self._done.add(uid_of(pod))
        logger.info("pod %s ended with exit code %d", pod["metadata"]["name"], outcome.exit_code)
        folder.remove()

    async def _guest(self, pod: Pod, node: dict[str, Any], folder: GuestFolder, restarts: int) -> Outcome | None:
        """One run of the guest. None: the pod is gone."""
        async with self._slots:
            prepared = await self._prepare(pod, folder)
            if prepared is None:
                return None
            spec, sealed = prepared
            now = self._now()
            folder.begin(pod_status.timestamp(now))
            if not await self._report(pod, pod_status.running(pod, node, now, restarts)):
                return None
            logger.info("pod %s: guest starts on %s", spec.name, spec.node)
            try:
                return await run_guest(self._platform, self._keys, spec, sealed, folder)
            except OSError as error:
                return Outcome(START_ERROR, "StartError", f"the guest cannot start: {error}", folder.start_time())

    async def _prepare(self, pod: Pod, folder: GuestFolder) -> tuple[GuestSpec, Path] | None:
        """Mount what the guest needs, waiting as a kubelet does for what is not there yet."""
        said, attempt = "", 0
        while True:
            try:
                spec = guest_spec(pod)
                config_map = await self._config_map(spec)
                if config_map is not None:
                    return spec, mount(spec, config_map, folder)
                reason, message = "ContainerCreating", f"ConfigMap {spec.config_map} not found"
            except InvalidInput as error:
                reason, message = "CreateContainerConfigError", str(error)
            if message != said:
                said = message
                if not await self._report(pod, pod_status.waiting(pod, reason, message)):
                    return None
            await _pause(attempt)
            attempt += 1

    async def _config_map(self, spec: GuestSpec) -> dict[str, Any] | None:
        return await self._persist(lambda: self._api.config_map(spec.namespace, spec.config_map))

    async def _report(self, pod: Pod, status: dict[str, Any]) -> bool:
        """Write the pod's status. False: that pod is gone."""
        return await self._persist(lambda: self._api.patch_status(pod, status))

    async def _finalize(self, pod: Pod, folder: GuestFolder) -> None:
        """Confirm the deletion of a pod whose guest does not run; the server may have done so itself."""
        try:
            async with asyncio.timeout(FINALIZE_SECONDS):
                await self._persist(lambda: self._api.finalize(pod))
        except (TimeoutError, ServerRefused) as error:
            logger.warning("deletion of pod %s was not confirmed: %s", pod["metadata"]["name"], error)
        folder.remove()

    async def _persist(self, call: Callable[[], Awaitable[T]]) -> T:
        """Make a call, again and again while the API server is away or overloaded."""
        attempt = 0
        while True:
            try:
                return await call()
            except ServerRefused as error:
                if error.code and error.code != 429 and error.code < 500:
                    raise
                logger.warning("the API server is not available: %s", error)
            await _pause(attempt)
            attempt += 1


async def _pause(attempt: int) -> None:
    await asyncio.sleep(RETRY_SECONDS[min(attempt, len(RETRY_SECONDS) - 1)])


def _cancel(task: asyncio.Task[None]) -> None:
    if not task.cancelling():  # a second cancel would interrupt the tidying up
        task.cancel()
