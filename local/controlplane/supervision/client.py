"""Speaks to a supervisor: spawn, stop, kill and list its processes."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from crds.errors import KekkaiError

Restart = Literal["always", "never"]
_HOPELESS_RESTARTS = 4  # while one waits for readiness
_PEER = struct.Struct("3i")  # pid, uid, gid: struct ucred of unix(7)


class SupervisorError(KekkaiError):
    """The supervisor refused, or a process did not come up."""

    reason = "ProcessFailed"


@dataclass(frozen=True, slots=True)
class ProcessState:
    """One supervised process at one moment."""

    name: str
    pid: int | None
    running: bool
    restarts: int
    exit_code: int | None
    seconds: float


class Supervisor:
    """A client. `start` makes a supervisor process, `attach` finds one by its socket."""

    def __init__(self, socket_path: Path, logs: Path, process: subprocess.Popen[bytes] | None = None) -> None:
        self.socket_path = socket_path
        self.logs = logs
        self._process = process

    @classmethod
    def start(cls, folder: Path, temporary: bool = False) -> Supervisor:
        """Start the supervisor. It ends, with all it runs, when this process ends, unless `detach` is called.

        If this process ends without a `shutdown`, a `temporary` folder is removed as well.
        """
        socket_path, logs = folder / "supervisor.sock", folder / "logs"
        logs.mkdir(parents=True, exist_ok=True, mode=0o700)
        socket_path.unlink(missing_ok=True)
        if len(str(socket_path).encode()) > 100:
            raise SupervisorError(
                "the data folder's path is too long for a Unix socket",
                where=str(folder),
                fix="choose a folder whose path has fewer than 80 characters",
            )
        command = [sys.executable, "-m", "local.controlplane.supervision.daemon"]
        command += ["--socket", str(socket_path), "--logs", str(logs), f"--owner={os.getpid()}"]
        command += [f"--remove={folder}"] if temporary else []
        with (logs / "supervisor.log").open("ab") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd=Path(__file__).resolve().parents[3],
            )
        supervisor = cls(socket_path, logs, process)
        try:
            supervisor._wait(lambda: socket_path.exists() and supervisor.alive(), "supervisor", 30.0)
        except BaseException:
            process.kill()
            process.wait()
            raise
        return supervisor

    @classmethod
    def attach(cls, folder: Path) -> Supervisor:
        """The supervisor whose data folder this is; it may have died (see `alive`)."""
        return cls(folder / "supervisor.sock", folder / "logs")

    def detach(self) -> None:
        """From now on it outlives this process."""
        self._command({"do": "detach"})

    def alive(self) -> bool:
        """Whether it answers."""
        try:
            self._ask({"do": "list"})
        except (OSError, ValueError):
            return False
        return True

    def spawn(
        self,
        name: str,
        argv: Sequence[str | Path],
        env: Mapping[str, str] | None = None,
        restart: Restart = "always",
        ready: Callable[[], bool] | None = None,
        ready_seconds: float = 60.0,
    ) -> ProcessState:
        """Start a process. With `ready`, wait until it returns True. Raises SupervisorError with the log's end."""
        request = {
            "do": "spawn",
            "name": name,
            "argv": [str(a) for a in argv],
            "env": dict(env or {}),
            "restart": restart,
        }
        state = self._state(self._command(request))
        if ready is not None:
            self._wait(ready, name, ready_seconds, restart == "never")
        return state

    def wait_ready(self, name: str, ready: Callable[[], bool], seconds: float = 60.0) -> None:
        """Wait until `ready` returns True. Raises SupervisorError with the end of the process's log."""
        self._wait(ready, name, seconds)

    def stop(self, name: str) -> ProcessState:
        """Ask it to end, and make it end; returns when it is gone."""
        return self._state(self._command({"do": "stop", "name": name}))

    def kill(self, name: str, number: int = signal.SIGKILL) -> ProcessState:
        """Send a signal; what has restart="always" comes again."""
        return self._state(self._command({"do": "kill", "name": name, "signal": int(number)}))

    def restart(self, name: str) -> ProcessState:
        """Ask a process with restart="always" to end; it comes again at once."""
        return self.kill(name, signal.SIGTERM)

    def processes(self) -> list[ProcessState]:
        """All processes with their state."""
        return [self._state(item) for item in self._command({"do": "list"})["processes"]]

    def pids(self) -> dict[str, int]:
        """Process ids of what runs now."""
        return {state.name: state.pid for state in self.processes() if state.pid is not None}

    def shutdown(self, seconds: float = 15.0) -> None:
        """End everything; returns when the supervisor and all it ran are gone.

        A supervisor that does not end in time is killed, and the kernel kills its children with it.
        """
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(seconds)
            connection.connect(str(self.socket_path))
            # Whoever listens, as the kernel knows it: a pid from a file may be another process by now.
            pid, _, _ = _PEER.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
            handle = os.pidfd_open(pid)
            try:
                connection.sendall(b'{"do": "shutdown"}\n')
                if not select.select([handle], [], [], seconds)[0]:
                    signal.pidfd_send_signal(handle, signal.SIGKILL)
                    select.select([handle], [], [], seconds)
            finally:
                os.close(handle)
        if self._process is not None:
            if self._process.stdin:
                self._process.stdin.close()
            try:
                self._process.wait(seconds)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def _command(self, request: dict[str, Any]) -> dict[str, Any]:
        try:
            reply = self._ask(request)
        except (OSError, ValueError) as error:
            raise SupervisorError(
                f"the supervisor does not answer: {error}",
                where=str(self.socket_path),
                fix="run `kekkai up`",
            ) from None
        if "error" in reply:
            raise SupervisorError(str(reply["error"]))
        return reply

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(30)
            connection.connect(str(self.socket_path))
            connection.sendall(json.dumps(request).encode() + b"\n")
            with connection.makefile("rb") as file:
                reply: dict[str, Any] = json.loads(file.readline())
                return reply

    def _wait(self, ready: Callable[[], bool], name: str, seconds: float, once: bool = False) -> None:
        deadline = time.monotonic() + seconds
        look, before = 0.0, dict[str, int]()
        while not ready():
            now = time.monotonic()
            failed, why = "", f"is not ready after {seconds:.0f} s"
            if self._process is not None and self._process.poll() is not None:
                failed, why = "supervisor", "ended"
            elif now > deadline:
                failed = name
            elif name != "supervisor" and now >= look:
                failed, why = self._hopeless(name if once else None, before)
                look = now + 0.25
            if failed:
                raise SupervisorError(
                    f"{failed} {why}; the end of its log:\n{self.log_end(failed)}",
                    where=str(self.logs / f"{failed}.log"),
                )
            time.sleep(0.03)

    def _hopeless(self, once: str | None, before: dict[str, int]) -> tuple[str, str]:
        """The process for which waiting has no sense: it keeps ending, or it has ended and runs once.

        `before` remembers the restarts at the first look: those are not held against anyone.
        """
        for process in self.processes():
            times = process.restarts - before.setdefault(process.name, process.restarts)
            if times >= _HOPELESS_RESTARTS:
                return process.name, f"ended {times} times"
            if process.name == once and not process.running:
                return process.name, "ended"
        return "", ""

    def log_end(self, name: str, size: int = 2000) -> str:
        """The last characters of a process's log."""
        path = self.logs / f"{name}.log"
        return path.read_text(errors="replace")[-size:] if path.exists() else ""

    @staticmethod
    def _state(reply: dict[str, Any]) -> ProcessState:
        return ProcessState(
            reply["name"], reply["pid"], reply["running"], reply["restarts"], reply["exitCode"], reply["seconds"]
        )
