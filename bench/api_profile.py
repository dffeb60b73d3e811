"""Where an API server's CPU goes: a profile of a running local control plane, for `go tool pprof -top`.

The API server must have been started with `FLAGS`.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from local.controlplane import ControlPlane

FLAGS = ("--profiling=true",)
SECONDS = 40


async def record(plane: ControlPlane, to: Path) -> asyncio.subprocess.Process:
    """Starts to record, for `SECONDS`; the process ends when the profile is written."""
    kubectl = [str(plane.binaries["kubectl"]), f"--kubeconfig={plane.admin_kubeconfig}", "--request-timeout=0"]
    with to.open("wb") as out:
        return await asyncio.create_subprocess_exec(
            *kubectl, "get", "--raw", f"/debug/pprof/profile?seconds={SECONDS}", stdout=out
        )
