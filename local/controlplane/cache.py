"""The folder of built and downloaded things, outside the repository, and its locks."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path


def cache_root() -> Path:
    """$KEKKAI_CACHE, else `kekkai` in the user's cache folder."""
    if given := os.environ.get("KEKKAI_CACHE"):
        return Path(given).resolve()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kekkai"


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder of the cache against other processes. The kernel lets go when a holder dies."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
