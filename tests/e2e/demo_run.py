"""Runs the demo's scenario in a control plane of its own, and looks at what is left."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

from rich.console import Console

from local import stack
from local.controlplane import ControlPlane
from local.demo.expectation import Report
from local.demo.materials import Materials
from local.demo.scenario import Scenario
from local.demo.view import View
from local.demo.world import World
from operators.runtime import Cluster

Disturbance = Callable[[stack.Stack], Coroutine[Any, Any, None]]


async def play(
    stacked: stack.Stack, disturb: Disturbance | None = None, lost_replies: int = 0
) -> tuple[Report, Materials]:
    """The scenario, with something that disturbs it beside it."""
    report = Report()
    async with await Cluster.connect(stacked.plane.admin_kubeconfig) as cluster:
        materials = await asyncio.to_thread(Materials.prepare, stacked)
        with View(report, Console(force_terminal=False, width=200)) as view:
            scenario = Scenario(World(stacked, cluster), materials, report, view, lost_replies=lost_replies)
            beside = asyncio.create_task(disturb(stacked)) if disturb else None
            try:
                await scenario.run()
            finally:
                if beside:
                    beside.cancel()
    return report, materials


def forms(secret: bytes) -> list[bytes]:
    """How key bytes could look in a file: raw, hex in both cases, base64 at each alignment, URL-safe too."""
    found = [secret, secret.hex().encode(), secret.hex().upper().encode()]
    for shift in range(3):
        # The middle of the text is the same whatever stands before and after the secret.
        text = base64.b64encode(b"\0" * shift + secret)
        middle = text[4 * (shift > 0) : len(text) - 4]
        found += [middle, middle.replace(b"+", b"-").replace(b"/", b"_")]
    return found


def files_under(folder: Path, *but: Path) -> Iterator[Path]:
    for path in folder.rglob("*"):
        if path.is_file() and not any(path.is_relative_to(other) for other in but):
            yield path


def memory_of(pid: int) -> Iterator[bytes]:
    """The readable, private memory of a process, region by region."""
    with Path(f"/proc/{pid}/maps").open() as maps, Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for line in maps:
            span, rights, *_ = line.split()
            if not rights.startswith("rw"):
                continue
            start, end = (int(part, 16) for part in span.split("-"))
            try:
                memory.seek(start)
                yield memory.read(end - start)
            except (OSError, ValueError, OverflowError):
                continue


def processes_naming(text: str) -> list[int]:
    """Processes whose command line holds a text."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if text.encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def everything(plane: ControlPlane) -> str:
    """All objects that the API server holds of the kinds where a secret could slip in."""
    kinds = "kekkai,jobs,pods,configmaps,secrets,events,nodes,namespaces,leases"
    return plane.kubectl("get", kinds, "-A", "-o", "yaml").stdout
