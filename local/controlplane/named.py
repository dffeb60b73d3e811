"""Named control planes: where their data is, which of them run."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from crds.errors import Conflict, InvalidInput
from local.controlplane.plane import ControlPlane, ControlPlaneError
from local.controlplane.supervision import Supervisor

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,30}[a-z0-9])?")
DEFAULT = "default"


def home() -> Path:
    """The folder of all named control planes: $KEKKAI_HOME, else under the user's state folder."""
    if given := os.environ.get("KEKKAI_HOME"):
        return Path(given)
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "kekkai"


def folder_of(name: str) -> Path:
    """The data folder of a name. Raises InvalidInput for a name that is no DNS label."""
    if not _NAME.fullmatch(name):
        raise InvalidInput(
            f"{name!r} is not a usable name",
            where="--name",
            fix="use lower-case letters, digits and dashes, at most 32",
        )
    return home() / name


def names() -> list[str]:
    """Names that have a data folder."""
    return sorted(path.name for path in home().glob("*") if path.is_dir()) if home().exists() else []


@contextlib.contextmanager
def held(name: str) -> Iterator[None]:
    """Hold the name while a control plane is being started or removed. Raises Conflict if another process does."""
    folder_of(name)  # refuses a bad name
    home().mkdir(parents=True, exist_ok=True, mode=0o700)
    with (home() / f"{name}.lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Conflict(
                f"{name} is being started or stopped by another command",
                where="--name",
                fix="wait for that command, or choose another name",
            ) from None
        yield


def running(name: str) -> ControlPlane | None:
    """The control plane of that name if it runs."""
    try:
        return ControlPlane.attach(folder_of(name))
    except ControlPlaneError:
        return None


def remove(name: str) -> bool:
    """Stop it and delete its data. False when there was nothing."""
    folder = folder_of(name)
    if not folder.exists():
        return False
    Supervisor.attach(folder).shutdown()
    shutil.rmtree(folder, ignore_errors=True)
    return True
