"""The supervisor process: `python -m local.controlplane.supervision.daemon --socket S --logs DIR`.

Protocol: one JSON object a line in, one out. Commands: spawn, stop, kill, list, detach, shutdown.
A connection that asked for shutdown stays open until everything has ended.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from local.controlplane.supervision.parent_death import tied_to

_GRACE_SECONDS = 4.0
_STEADY_SECONDS = 10.0  # a process that lived this long restarts at once
_OWNER_SECONDS = 0.5  # how often the owner is looked for
_MAX_LINE = 1 << 20


@dataclass
class Child:
    """One supervised process and what to do when it ends."""

    name: str
    argv: list[str]
    env: dict[str, str]
    restart: bool
    process: asyncio.subprocess.Process | None = None
    restarts: int = 0
    unwanted: asyncio.Event = field(default_factory=asyncio.Event)
    exit_code: int | None = None
    task: asyncio.Task[None] | None = None
    started: float = field(default_factory=time.monotonic)

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.returncode is None

    def state(self) -> dict[str, Any]:
        running = self.running
        return {
            "name": self.name,
            "pid": self.process.pid if running and self.process else None,
            "running": running,
            "restarts": self.restarts,
            "exitCode": self.exit_code,
            "seconds": round(time.monotonic() - self.started, 1) if running else 0,
        }


class Daemon:
    """All children of one supervisor."""

    def __init__(self, logs: Path) -> None:
        self.logs = logs
        self.children: dict[str, Child] = {}
        self.stopping = asyncio.Event()
        self.owned = True

    async def handle(self, request: dict[str, Any]) -> dict[str, Any]:
        """Carry out one command."""
        match request:
            case {"do": "spawn", "name": str(name), "argv": list(argv)}:
                old = self.children.get(name)
                if old is not None and old.task is not None and not old.task.done():
                    return {"error": f"a process named {name} is running already"}
                child = Child(name, argv, request.get("env") or {}, request.get("restart") == "always")
                try:
                    await self._start(child)
                except OSError as error:
                    return {"error": f"{argv[0]} cannot be started: {error.strerror}"}
                self.children[name] = child
                child.task = asyncio.create_task(self._keep(child))
                return child.state()
            case {"do": "stop", "name": str(name)} if name in self.children:
                await self._stop(self.children[name])
                return self.children.pop(name).state()
            case {"do": "kill", "name": str(name), "signal": int(number)} if name in self.children:
                process = self.children[name].process
                if process is None or process.returncode is not None:
                    return {"error": f"{name} is not running"}
                with contextlib.suppress(ProcessLookupError):
                    process.send_signal(number)
                return self.children[name].state()
            case {"do": "list"}:
                return {"processes": [child.state() for child in self.children.values()]}
            case {"do": "detach"}:
                self.owned = False
                return {"ok": True}
            case {"do": "shutdown"}:
                self.stopping.set()
                return {"ok": True}
        return {"error": f"not a command, or no such process: {json.dumps(request)[:200]}"}

    async def _start(self, child: Child) -> None:
        with (self.logs / f"{child.name}.log").open("ab") as log:
            child.process = await asyncio.create_subprocess_exec(
                *child.argv,
                env=os.environ | child.env,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=tied_to(os.getpid()),
            )
        child.started = time.monotonic()

    async def _keep(self, child: Child) -> None:
        delay = 0.1
        while child.process is not None:
            child.exit_code = await child.process.wait()
            if not child.restart:
                return
            steady = time.monotonic() - child.started > _STEADY_SECONDS
            delay = 0.1 if steady else min(delay * 2, 5.0)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(child.unwanted.wait(), delay)
            if child.unwanted.is_set():
                return
            child.restarts += 1
            child.started = time.monotonic()
            with contextlib.suppress(OSError):
                await self._start(child)

    async def _stop(self, child: Child) -> None:
        child.unwanted.set()
        # A restart may be under way at this moment, so look again until its keeper has left.
        while child.task is not None and not child.task.done():
            process = child.process
            if process is None or process.returncode is not None:
                await asyncio.wait({child.task}, timeout=0.05)
                continue
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            try:
                await asyncio.wait_for(process.wait(), _GRACE_SECONDS)
            except TimeoutError:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()

    async def stop_all(self) -> None:
        """The one that was started first, on which the others lean, goes last; the others together."""
        order = list(self.children.values())
        await asyncio.gather(*(self._stop(child) for child in order[1:]))
        for child in order[:1]:
            await self._stop(child)


async def _owner_gone(owner: int) -> None:
    """Return when the process that started this one is no more.

    Its end closes the pipe on standard input at once; the parent is looked for as well because
    a process forked from the owner may hold the pipe's other end open.
    """
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    closed = asyncio.create_task(reader.read())
    while not closed.done() and os.getppid() == owner:
        await asyncio.wait({closed}, timeout=_OWNER_SECONDS)


async def serve(socket: Path, logs: Path, owner: int) -> bool:
    """Run until shutdown is asked for, a signal comes, or the owner (a process id) is gone before it detaches.

    Returns whether it was the latter.
    """
    daemon = Daemon(logs)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, daemon.stopping.set)

    async def session(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                reply = await daemon.handle(json.loads(line))
                writer.write(json.dumps(reply).encode() + b"\n")
                await writer.drain()
        except (ValueError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_unix_server(session, path=str(socket), limit=_MAX_LINE)
    os.chmod(socket, 0o600)
    watch = asyncio.create_task(_owner_gone(owner))
    watch.add_done_callback(lambda _: daemon.stopping.set() if daemon.owned else None)
    await daemon.stopping.wait()
    orphaned = watch.done() and daemon.owned
    server.close()
    await daemon.stop_all()
    return orphaned


def main() -> None:
    """Entry point of the supervisor process."""
    parser = argparse.ArgumentParser(description="Supervises the processes of a local control plane.")
    parser.add_argument("--socket", type=Path, required=True)
    parser.add_argument("--logs", type=Path, required=True)
    parser.add_argument("--owner", type=int, required=True, help="end when this process, the parent, does")
    parser.add_argument("--remove", type=Path, help="folder to remove when the owner is gone")
    given = parser.parse_args()
    given.logs.mkdir(parents=True, exist_ok=True, mode=0o700)
    orphaned = asyncio.run(serve(given.socket, given.logs, given.owner))
    given.socket.unlink(missing_ok=True)
    if orphaned and given.remove:
        shutil.rmtree(given.remove, ignore_errors=True)


if __name__ == "__main__":
    main()
