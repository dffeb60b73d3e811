"""Ties a child process to its parent: `preexec_fn=tied_to(os.getpid())`."""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)  # loaded before any fork: dlopen after fork is not safe


def tied_to(parent: int) -> Callable[[], None]:
    """Runs in the child before exec: the kernel kills it when `parent` dies, also if that has happened already.

    The kernel means the thread that forked, so fork from one that lasts.
    """

    def tie() -> None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)

    return tie
