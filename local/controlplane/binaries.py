"""Finds each control-plane binary: on the machine, in the cache, downloaded, or built.

Order: `KUBEBUILDER_ASSETS`, PATH (if the version suits), the cache, the official prebuilt
file (only with a pinned checksum), Go from the pinned modules. The cache lies outside the
repository, is keyed by version and by everything that goes into the build, and is safe
under several processes: a file lock a binary, and an atomic rename.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
import hashlib
import http.client
import os
import platform
import re
import shutil
import subprocess
import tempfile
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from crds.errors import KekkaiError
from local.controlplane.cache import cache_root, locked
from local.controlplane.gobuild import FLAGS, build
from local.controlplane.progress import Progress
from local.controlplane.versions import BINARIES, CHECKSUMS, TOOLS, Binary

_VERSION = re.compile(r"v?(\d+\.\d+\.\d+)")
_DOWNLOAD_SECONDS = 10


class BinaryUnavailable(KekkaiError):
    """A control-plane binary can neither be found, downloaded nor built."""

    reason = "BinaryUnavailable"


def resolve(names: Sequence[str] | None = None, progress: Progress | None = None) -> dict[str, Path]:
    """Paths of the named binaries (all when None), getting what is missing."""
    wanted = [binary for binary in BINARIES if names is None or binary.name in names]
    found: dict[str, Path] = {}
    missing: list[Binary] = []
    with concurrent.futures.ThreadPoolExecutor() as pool:  # each is asked for its version: let them start together
        present = list(pool.map(lambda binary: on_machine(binary) or cached(binary), wanted))
    for binary, path in zip(wanted, present, strict=True):
        if path is None:
            missing.append(binary)
        else:
            found[binary.name] = path
    if missing:
        with progress or Progress() as show:
            for number, binary in enumerate(missing, 1):
                found[binary.name] = _obtain(binary, show, f"{number}/{len(missing)}")
    return found


def on_machine(binary: Binary) -> Path | None:
    """The binary from KUBEBUILDER_ASSETS or PATH, if its version suits."""
    places = [os.environ.get("KUBEBUILDER_ASSETS", ""), *os.environ.get("PATH", "").split(os.pathsep)]
    for place in filter(None, places):
        path = Path(place) / binary.name
        if path.is_file() and os.access(path, os.X_OK) and _suits(path, path.stat().st_mtime_ns, binary):
            return path
    return None


@functools.lru_cache(maxsize=256)
def _suits(path: Path, _modified: int, binary: Binary) -> bool:
    try:
        said = subprocess.run([path, *binary.version_args], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    version = _VERSION.search(said.stdout + said.stderr)
    return version is not None and version[1].startswith(binary.series + ".")


def cached(binary: Binary) -> Path | None:
    """The binary in the cache, or None."""
    path = _cache_path(binary)
    return path if path.exists() else None


def _cache_path(binary: Binary) -> Path:
    key = hashlib.sha256()
    for name in ("go.mod", "go.sum", "main.go"):
        file = TOOLS / binary.module / name
        key.update(file.read_bytes() if file.exists() else b"")
    key.update(f"{FLAGS} {binary.package} {binary.ldflags} {_platform()}".encode())
    return cache_root() / "bin" / f"{binary.name}-{binary.version}-{key.hexdigest()[:16]}" / binary.name


def _platform() -> tuple[str, str]:
    machine = platform.machine().lower()
    return platform.system().lower(), {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine)


def _obtain(binary: Binary, progress: Progress, which: str) -> Path:
    target = _cache_path(binary)
    with contextlib.ExitStack() as held:
        with progress.step(f"{which} {binary.name} {binary.version}: waiting for another process that makes it"):
            held.enter_context(locked(target.parent))
        if target.exists():  # another process made it while we waited
            return target
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            fresh = Path(folder) / binary.name
            if not _download(binary, fresh, progress, which):
                with progress.step(f"{which} {binary.name} {binary.version}: building with Go (minutes, once)"):
                    build(binary, fresh, progress)
            fresh.chmod(0o755)
            os.replace(fresh, target)
    return target


def _download(binary: Binary, target: Path, progress: Progress, which: str) -> bool:
    system, machine = _platform()
    url = binary.download.format(os=system, arch=machine)
    checksum = CHECKSUMS.get(url)
    if not checksum:
        return False
    with progress.step(f"{which} {binary.name} {binary.version}: downloading"):
        try:
            with urllib.request.urlopen(url, timeout=_DOWNLOAD_SECONDS) as reply, target.open("wb") as file:  # noqa: S310
                shutil.copyfileobj(reply, file)
        except (OSError, http.client.HTTPException):  # not reachable from here: build instead
            return False
        if hashlib.sha256(target.read_bytes()).hexdigest() != checksum:
            raise BinaryUnavailable(
                f"the download of {binary.name} does not have the pinned checksum",
                where=url,
                fix="do not use it; check the pin in local/controlplane/versions.py",
            )
    return True


def main() -> None:
    """`python -m local.controlplane.binaries`: get all binaries and say where they are."""
    for name, path in resolve().items():
        print(f"  {name:24} {path}")  # noqa: T201


if __name__ == "__main__":
    main()
