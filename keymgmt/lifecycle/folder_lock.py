"""One key service a data folder, and the name it has among replicas. The kernel frees the lock when we end."""

from __future__ import annotations

import fcntl
import secrets
from pathlib import Path
from typing import TextIO

from crds.errors import Conflict


class AlreadyRunning(Conflict):
    """Another key service uses the data folder."""

    reason = "AlreadyRunning"


def take(data_dir: Path) -> TextIO:
    """Make the folder if need be and lock it; keep the file open while using it. Raises AlreadyRunning."""
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = (data_dir / "lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise AlreadyRunning(
            "another key service uses this data folder",
            where=str(data_dir),
            fix="stop it, or give this one a folder of its own",
        ) from None
    return lock


def replica_name(data_dir: Path) -> str:
    """The name of the replica whose folder this is: the same after a restart. Call while holding the lock."""
    path = data_dir / "replica"
    if not path.exists():
        path.write_text(secrets.token_hex(16))
    return path.read_text().strip()[:64]
