"""The demo's hands: the examples, kubectl as different people, and polling until something holds."""

from __future__ import annotations

import asyncio
import string
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any, TypeVar

from local.controlplane import ControlPlane
from local.stack import Stack
from operators.runtime import RESOURCES, Cluster

EXAMPLES = Path(__file__).resolve().parents[2] / "docs" / "examples"
T = TypeVar("T")


class World:
    """Everything that a step of the scenario may touch."""

    def __init__(self, stack: Stack, cluster: Cluster) -> None:
        self.stack = stack
        self.plane: ControlPlane = stack.plane
        self.cluster = cluster
        self.alice = self.plane.kubeconfig_for("alice")
        self.bob = self.plane.kubeconfig_for("bob")

    async def kubectl(
        self, *args: str, user: Path | None = None, stdin: str | None = None, check: bool = True
    ) -> CompletedProcess[str]:
        """kubectl in a thread, so that the view goes on."""
        return await asyncio.to_thread(self.plane.kubectl, *args, user=user, stdin=stdin, check=check)

    async def apply(
        self, example: str, values: Mapping[str, str] | None = None, user: Path | None = None, check: bool = True
    ) -> CompletedProcess[str]:
        """Apply a file of docs/examples with its ${PLACEHOLDERS} filled in."""
        return await self.kubectl("apply", "-f", "-", user=user, stdin=fill(example, values or {}), check=check)

    async def list(self, kind: str, namespace: str | None = None, selector: str = "") -> list[dict[str, Any]]:
        return await self.cluster.list(RESOURCES[kind], namespace, selector)

    async def get(self, kind: str, name: str, namespace: str | None = None) -> dict[str, Any] | None:
        return await self.cluster.get(RESOURCES[kind], name, namespace)

    async def until(self, what: str, check: Callable[[], Awaitable[T]], seconds: float = 60.0) -> T:
        """Poll until `check` returns something true. Raises TimeoutError saying what did not come about."""
        deadline = time.monotonic() + seconds
        while not (found := await check()):
            if time.monotonic() > deadline:
                raise TimeoutError(f"not within {seconds:.0f} s: {what}")
            await asyncio.sleep(0.3)
        return found


def fill(example: str, values: Mapping[str, str]) -> str:
    """An example with its placeholders filled in. Raises KeyError for one that has no value."""
    return string.Template((EXAMPLES / example).read_text()).substitute(values)


def last_line(done: CompletedProcess[str]) -> str:
    """What kubectl said in the end, on one line."""
    text = (done.stderr if done.returncode else done.stdout).strip()
    return " ".join(text.split())


def message_of(pod: Mapping[str, Any]) -> tuple[int | None, str]:
    """Exit code and termination message of a pod's first container."""
    for status in (pod.get("status") or {}).get("containerStatuses", []):
        ended = (status.get("state") or {}).get("terminated")
        if ended:
            return ended.get("exitCode"), ended.get("message", "")
    return None, ""
