"""Making the worker process a poor place to look for keys: no core dumps, no ptrace, no swap.

Linux only for the last two; what could not be done is reported, not hidden.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_MCL_CURRENT = 1
_MCL_FUTURE = 2


def harden() -> dict[str, str]:
    """Apply all measures to this process. Returns each measure's state: "on", or why it is off."""
    state = {"coreDumps": _no_core()}
    if sys.platform != "linux":
        return {**state, "ptrace": "off: not Linux", "memoryLock": "off: not Linux"}
    libc = ctypes.CDLL(None, use_errno=True)
    dumpable = libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    state["ptrace"] = "on" if dumpable == 0 else f"off: {os.strerror(ctypes.get_errno())}"
    state["memoryLock"] = _lock_memory(libc)
    return state


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when the thread that started it ends; exit if it already has."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def _no_core() -> str:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    return "on"


def _lock_memory(libc: ctypes.CDLL) -> str:
    soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    # Locking future pages under a small limit would make later allocations fail.
    if soft != resource.RLIM_INFINITY and os.geteuid() != 0:
        try:
            resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        except (ValueError, OSError):
            return f"off: the memory-lock limit is {soft} bytes"
    if libc.mlockall(_MCL_CURRENT | _MCL_FUTURE) != 0:
        return f"off: {os.strerror(ctypes.get_errno())}"
    return "on"
