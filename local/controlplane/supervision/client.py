"""Speaks to a supervisor: spawn, stop, kill and list its processes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from crds.errors import KekkaiError

Restart = Literal["always", "never"]


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
    def start(cls, folder: Path, detached: bool = False) -> Supervisor:
        """Start the supervisor. Unless detached it ends, with all it runs, when this process ends."""
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
        command += ["--socket", str(socket_path), "--logs", str(logs)]
        with (logs / "supervisor.log").open("ab") as log:
            process = subprocess.Popen(
                command if detached else [*command, "--lifeline"],
                stdin=subprocess.DEVNULL if detached else subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd=Path(__file__).resolve().parents[3],
            )
        supervisor = cls(socket_path, logs, process)
        supervisor._wait(lambda: socket_path.exists() and supervisor.alive(), "supervisor", 15.0)
        return supervisor

    @classmethod
    def attach(cls, folder: Path) -> Supervisor:
        """The supervisor whose data folder this is; it may have died (see `alive`)."""
        return cls(folder / "supervisor.sock", folder / "logs")

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

    def processes(self) -> list[ProcessState]:
        """All processes with their state."""
        return [self._state(item) for item in self._command({"do": "list"})["processes"]]

    def pids(self) -> dict[str, int]:
        """Process ids of what runs now."""
        return {state.name: state.pid for state in self.processes() if state.pid is not None}

    def shutdown(self, seconds: float = 15.0) -> None:
        """End everything; returns when the supervisor is gone."""
        with contextlib.suppress(OSError, ValueError):
            self._ask({"do": "shutdown"})
        if self._process is not None:
            if self._process.stdin:
                self._process.stdin.close()
            try:
                self._process.wait(seconds)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()
            return
        deadline = time.monotonic() + seconds
        while self.alive() and time.monotonic() < deadline:
            time.sleep(0.05)

    def _command(self, request: dict[str, Any]) -> dict[str, Any]:
        try:
            reply = self._ask(request)
        except OSError as error:
            raise SupervisorError(
                f"the supervisor does not answer: {error.strerror or error}",
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
        while not ready():
            dead = self._process is not None and self._process.poll() is not None
            ended = once and not dead and not any(p.name == name and p.running for p in self.processes())
            if dead or ended or time.monotonic() > deadline:
                raise SupervisorError(
                    f"{name} did not become ready in {seconds:.0f} s; the end of its log:\n{self.log_end(name)}",
                    where=str(self.logs / f"{name}.log"),
                )
            time.sleep(0.03)

    def log_end(self, name: str, size: int = 2000) -> str:
        """The last characters of a process's log."""
        path = self.logs / f"{name}.log"
        return path.read_text(errors="replace")[-size:] if path.exists() else ""

    @staticmethod
    def _state(reply: dict[str, Any]) -> ProcessState:
        return ProcessState(
            reply["name"], reply["pid"], reply["running"], reply["restarts"], reply["exitCode"], reply["seconds"]
        )
