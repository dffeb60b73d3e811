"""Being told of changes in a folder: Linux inotify, as little of it as is needed here."""

from __future__ import annotations

import ctypes
import os
import select
import struct
from collections.abc import Iterator
from pathlib import Path

CREATE, CLOSE_WRITE, ISDIR = 0x100, 0x8, 0x40000000
_EVENT = struct.Struct("iIII")
_libc = ctypes.CDLL(None, use_errno=True)


class Watch:
    """Watches folders; `events` blocks until something happens or `close` was called."""

    def __init__(self) -> None:
        self._fd = _libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "inotify_init1 failed")
        self._wake, self._waker = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._folders: dict[int, Path] = {}

    def add(self, folder: Path, mask: int) -> None:
        """Report `mask` (CREATE, CLOSE_WRITE) in `folder`."""
        number = _libc.inotify_add_watch(self._fd, os.fsencode(folder), mask)
        if number < 0:
            raise OSError(ctypes.get_errno(), f"cannot watch {folder}")
        self._folders[number] = folder

    def events(self) -> Iterator[tuple[Path, int]]:
        """Paths and masks, until closed."""
        while True:
            ready, _, _ = select.select([self._fd, self._wake], [], [])
            if self._wake in ready:
                for descriptor in (self._fd, self._wake, self._waker):
                    os.close(descriptor)
                return
            data = os.read(self._fd, 65536)
            while data:
                number, mask, _, length = _EVENT.unpack_from(data)
                name = data[_EVENT.size : _EVENT.size + length].rstrip(b"\0")
                data = data[_EVENT.size + length :]
                if number in self._folders and name:
                    yield self._folders[number] / os.fsdecode(name), mask

    def close(self) -> None:
        """End `events`; to be called once, from any thread."""
        os.write(self._waker, b"x")
