"""Starts a control plane with Kekkai on it, runs the scenario, shows the summary."""

from __future__ import annotations

import asyncio
import io
import re
import time
from pathlib import Path

from rich.console import Console

from local import stack
from local.controlplane import ControlPlane, named
from local.controlplane.progress import Progress
from local.demo.expectation import Report
from local.demo.look import Eye
from local.demo.materials import Materials
from local.demo.scenario import Scenario
from local.demo.view import View, summary
from local.demo.world import World
from operators.runtime import Cluster

_PLAIN_WIDTH = 160  # a file or a log has no width of its own


def run(name: str = "demo", keep: bool = False, plain: bool = False, picture: Path | None = None) -> int:
    """The exit status: 0 when every expectation held. `picture`: where to save the summary as SVG."""
    console = Console(force_terminal=False) if plain else Console()
    if not console.is_terminal:
        console = Console(force_terminal=False, width=_PLAIN_WIDTH)
    started = time.monotonic()
    named.remove(name)  # what an earlier demo left up under this name
    with Progress() as progress:
        with progress.step("control plane: etcd, API server, controllers, scheduler, kwok"):
            plane = ControlPlane.start(named.folder_of(name), detached=keep, progress=progress)
        try:
            with progress.step("Kekkai: kinds, policies, key service, operators, emulated hardware"):
                stacked = stack.start(plane)
        except BaseException:
            plane.stop()
            raise
    report = Report()
    try:
        asyncio.run(play(stacked, report, console))
        seconds = time.monotonic() - started
        summary(report, console, seconds)
        if picture:
            _draw(report, seconds, picture)
    finally:
        if keep:
            _invite(plane, console)
        else:
            named.remove(name)
    return 0 if report.ok else 1


async def play(stacked: stack.Stack, report: Report, console: Console) -> None:
    """Run the scenario on a stack that is up."""
    async with await Cluster.connect(stacked.plane.admin_kubeconfig) as cluster:
        world = World(stacked, cluster)
        with View(report, console) as view:
            view.eye = Eye(cluster)
            eye = asyncio.create_task(view.eye.watch())
            try:
                view.say("tenant A's people make a dataset, a key and a custodian, and seal the dataset")
                materials = await asyncio.to_thread(Materials.prepare, stacked)
                await Scenario(world, materials, report, view).run()
            finally:
                eye.cancel()


def _draw(report: Report, seconds: float, picture: Path) -> None:
    canvas = Console(record=True, width=150, file=io.StringIO(), force_terminal=True)
    summary(report, canvas, seconds)
    svg = canvas.export_svg(title="make demo", unique_id="demo")
    # The picture loads nothing from elsewhere: without these rules the reader's own monospace font is used.
    picture.write_text(re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL))


def _invite(plane: ControlPlane, console: Console) -> None:
    data = plane.data_dir / "keys" / "data"
    console.print("It stays up. To look around:", highlight=False)
    for line in (
        f"export KUBECONFIG={plane.admin_kubeconfig}",
        f"{plane.binaries['kubectl']} get kekkai -A",
        f"{plane.binaries['kubectl']} get pods -A -o wide",
        "kekkai why batch-1 -n borealis-batch",
        f"kekkai log verify {data / 'log'} --vkey {data / 'log.vkey'}",
        f"kekkai down --name {plane.data_dir.name}",
    ):
        console.print(f"  {line}", highlight=False, soft_wrap=True)
