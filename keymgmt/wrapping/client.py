"""The service's side of the worker: starts it, feeds it, restarts it, replaces it when it grows old.

One thread owns the process and the socket. Callers get futures. A request past its deadline
means a hung HSM: the worker is killed, everything outstanding fails, a new one starts.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import selectors
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crds.errors import KekkaiError, Unavailable
from keymgmt.config import Hsm
from keymgmt.wrapping.channel import Decoder, WorkerRefused, encode

logger = logging.getLogger(__name__)
IN_FLIGHT = 32  # bounds what lies in the socket's buffer, so that sending never blocks for long
# Safe to repeat when the worker died underway: they change nothing in the token.
REPEATABLE = frozenset(
    {
        *("release", "encrypt", "decrypt", "data-key", "sign", "public-key"),
        *("sign-es256", "sign-ed25519", "open-secret", "health", "wrapping-keys"),
    }
)
_START_SECONDS = 60.0


class WorkerUnavailable(Unavailable):
    """The worker process is starting, hung or gone; the caller should retry."""

    reason = "WorkerUnavailable"


@dataclass(slots=True)
class _Call:
    operation: str
    arguments: dict[str, Any]
    deadline: float
    future: Future[dict[str, Any]]
    attempts: int = 0


@dataclass(slots=True)
class _Process:
    popen: subprocess.Popen[bytes]
    connection: socket.socket
    born: float
    decoder: Decoder = field(default_factory=Decoder)
    outstanding: dict[int, _Call] = field(default_factory=dict)
    hello: dict[str, Any] | None = None


class WorkerClient:
    """Use `start_soon` once, then `wait_started`, then `submit` or `call` from any thread, then `close`."""

    def __init__(self, hsm: Hsm, data_dir: Path) -> None:
        self._hsm, self._data_dir = hsm, data_dir
        self._lock = threading.Lock()
        self._inbox: deque[_Call] = deque()
        self._wake_receiver, self._wake_sender = socket.socketpair()
        self._wake_receiver.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._wake_receiver, selectors.EVENT_READ)
        self._current: _Process | None = None
        self._successor: _Process | None = None
        self._retiring: list[_Process] = []
        self._numbers = 0
        self._failures = 0
        self._next_start = 0.0
        self._closing = False
        self._start_error: KekkaiError | None = None
        self._first: Future[dict[str, Any]] = Future()
        self.restarts = 0
        self._thread = threading.Thread(target=self._run, name="hsm-worker-client", daemon=True)

    def start_soon(self) -> None:
        """Begin starting the worker."""
        self._thread.start()

    def wait_started(self) -> dict[str, Any]:
        """The worker's hello. Raises the error that kept it from starting."""
        return self._first.result(timeout=_START_SECONDS)

    @property
    def hello(self) -> dict[str, Any]:
        """What the present worker said of itself; empty while none is ready."""
        current = self._current
        return (current.hello or {}) if current else {}

    @property
    def ready(self) -> bool:
        """Whether a worker would take a request now."""
        return bool(self.hello)

    def submit(self, operation: str, arguments: dict[str, Any], timeout: float | None = None) -> Future[dict[str, Any]]:
        """Queue an operation. The future raises KekkaiError; it never lasts beyond the timeout by much."""
        future: Future[dict[str, Any]] = Future()
        deadline = time.monotonic() + (timeout or self._hsm.request_timeout_seconds)
        with self._lock:
            if self._closing:
                raise WorkerUnavailable("the service is stopping")
            self._inbox.append(_Call(operation, arguments, deadline, future))
        self._wake()
        return future

    def call(self, operation: str, arguments: dict[str, Any], timeout: float | None = None) -> dict[str, Any]:
        """As `submit`, and wait."""
        return self.submit(operation, arguments, timeout).result()

    def close(self) -> None:
        """End the worker and fail what is outstanding."""
        with self._lock:
            self._closing = True
        self._wake()
        if self._thread.is_alive():
            self._thread.join(timeout=10)

    # -- everything below runs in the one thread -------------------------------------------

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError, OSError):
            self._wake_sender.send(b"!")

    def _run(self) -> None:
        try:
            while not self._closing:
                self._keep_alive()
                self._send_waiting()
                for key, _ in self._selector.select(timeout=0.25):
                    if key.data is None:
                        with contextlib.suppress(BlockingIOError):
                            self._wake_receiver.recv(4096)
                    else:
                        self._receive(key.data)
                self._expire()
        finally:
            self._shut_down()

    def _keep_alive(self) -> None:
        now = time.monotonic()
        if self._current is None and self._successor is None and now >= self._next_start:
            self._current = self._spawn()
        current = self._current
        if (
            current is not None
            and current.hello
            and self._successor is None
            and now - current.born > self._hsm.worker_lifetime_seconds
            and now >= self._next_start
        ):
            self._successor = self._spawn()
        for process in [p for p in self._retiring if not p.outstanding]:
            self._retiring.remove(process)
            self._end(process)

    def _spawn(self) -> _Process:
        mine, theirs = socket.socketpair()
        command = [sys.executable, "-m", "keymgmt.wrapping.worker", "--fd", str(theirs.fileno())]
        command += ["--parent", str(os.getpid()), "--data-dir", str(self._data_dir)]
        command += ["--hsm", json.dumps(self._hsm.token_settings())]
        popen = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()], close_fds=True)
        theirs.close()
        process = _Process(popen, mine, time.monotonic())
        self._selector.register(mine, selectors.EVENT_READ, process)
        return process

    def _send_waiting(self) -> None:
        process = self._current
        while process is not None and process.hello and len(process.outstanding) < IN_FLIGHT:
            with self._lock:
                if not self._inbox:
                    return
                call = self._inbox.popleft()
            if call.attempts == 0 and not call.future.set_running_or_notify_cancel():
                continue
            self._numbers += 1
            call.attempts += 1
            process.outstanding[self._numbers] = call
            message = {"id": self._numbers, "operation": call.operation, "arguments": call.arguments}
            try:
                process.connection.sendall(encode(message))
            except OSError:
                self._lost(process)
                return

    def _receive(self, process: _Process) -> None:
        try:
            data = process.connection.recv(1 << 16)
            messages = process.decoder.feed(data) if data else None
        except (OSError, ValueError):
            messages = None
        if messages is None:
            self._lost(process)
            return
        for message in messages:
            if message.get("id") == 0:
                self._greeted(process, message)
            elif (call := process.outstanding.pop(message.get("id", -1), None)) is not None:
                if "error" in message:
                    call.future.set_exception(WorkerRefused.from_map(message["error"]))
                else:
                    call.future.set_result(message["result"])

    def _greeted(self, process: _Process, message: dict[str, Any]) -> None:
        if "error" in message:
            self._start_error = WorkerRefused.from_map(message["error"])
            return  # its socket closes next
        process.hello = message["result"]
        self._failures, self._start_error = 0, None
        if process is self._successor:
            if self._current is not None:
                self._retiring.append(self._current)
            self._current, self._successor = process, None
        if not self._first.done():
            self._first.set_result(process.hello or {})

    def _lost(self, process: _Process) -> None:
        """The worker ended or broke the protocol: fail or repeat what it had, start another."""
        if process not in (self._current, self._successor, *self._retiring):
            return
        was_ready = process.hello is not None
        self._end(process, kill=True)
        for call in process.outstanding.values():
            if call.operation in REPEATABLE and call.attempts < 2 and not self._closing:
                with self._lock:
                    self._inbox.appendleft(call)
            else:
                call.future.set_exception(WorkerUnavailable("the HSM worker ended during the request"))
        process.outstanding.clear()
        if process in self._retiring:
            self._retiring.remove(process)
            return
        if process is self._successor:
            self._successor = None
        else:
            self._current = None
        self.restarts += 1
        self._failures += 1
        # A worker that served is replaced at once; one that cannot even start is not hurried.
        self._next_start = time.monotonic() + (
            0 if was_ready and self._failures < 3 else min(5, 2**self._failures / 10)
        )
        logger.warning("the HSM worker ended; starting another", extra={"failures": self._failures})
        if not self._first.done():
            self._first.set_exception(
                self._start_error or WorkerUnavailable("the HSM worker ended before it was ready")
            )

    def _expire(self) -> None:
        now = time.monotonic()
        for process in [p for p in (self._current, *self._retiring) if p is not None]:
            if any(call.deadline < now for call in process.outstanding.values()):
                for call in process.outstanding.values():
                    call.attempts = 9  # what hung once is not tried again
                logger.error("the HSM worker does not answer; ending it")
                self._lost(process)
        starting = [p for p in (self._current, self._successor) if p is not None and p.hello is None]
        for process in starting:
            if now - process.born > _START_SECONDS:
                self._lost(process)
        with self._lock:
            waiting = list(self._inbox)
            self._inbox = deque(call for call in waiting if call.deadline >= now)
        for call in waiting:
            if call.deadline < now:
                call.future.set_exception(
                    self._start_error or WorkerUnavailable("the HSM worker did not answer in time")
                )

    def _end(self, process: _Process, *, kill: bool = False) -> None:
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(process.connection)
        process.connection.close()
        if kill:
            process.popen.kill()
        try:
            process.popen.wait(timeout=5)
        except subprocess.TimeoutExpired:
            process.popen.kill()
            process.popen.wait()

    def _shut_down(self) -> None:
        processes = [p for p in (self._current, self._successor, *self._retiring) if p is not None]
        self._current = self._successor = None
        calls = [call for process in processes for call in process.outstanding.values()]
        for process in processes:
            self._end(process)
        with self._lock:
            calls += self._inbox
            self._inbox.clear()
        for call in calls:
            if not call.future.done():
                call.future.set_exception(WorkerUnavailable("the service is stopping"))
        self._selector.close()
        self._wake_receiver.close()
        self._wake_sender.close()
