"""No orphans: whatever dies, what it ran is gone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from local.controlplane.supervision import Supervisor, SupervisorError

SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]


def until(check: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < deadline, "did not come about in time"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[Supervisor]:
    made = Supervisor.start(tmp_path)
    yield made
    made.shutdown()


def test_a_killed_process_comes_again_and_a_stopped_one_does_not(supervisor: Supervisor) -> None:
    first = supervisor.spawn("sleeper", SLEEP).pid
    assert first is not None
    supervisor.kill("sleeper")
    until(lambda: supervisor.pids().get("sleeper", first) != first)
    assert supervisor.processes()[0].restarts == 1
    supervisor.stop("sleeper")
    assert supervisor.processes() == []


def test_what_runs_once_is_not_restarted(supervisor: Supervisor) -> None:
    supervisor.spawn("once", [sys.executable, "-c", "raise SystemExit(3)"], restart="never")
    until(lambda: not supervisor.processes()[0].running)
    assert supervisor.processes()[0].exit_code == 3


def test_a_process_that_does_not_become_ready_is_reported_with_its_log(supervisor: Supervisor) -> None:
    argv = [sys.executable, "-c", "import sys; print('no such port', file=sys.stderr); sys.exit(1)"]
    with pytest.raises(SupervisorError, match="no such port"):
        supervisor.spawn("broken", argv, restart="never", ready=lambda: False, ready_seconds=20)


def test_a_program_that_is_not_there_is_a_clear_error(supervisor: Supervisor) -> None:
    with pytest.raises(SupervisorError, match="cannot be started"):
        supervisor.spawn("ghost", ["/no/such/program"])


def test_shutdown_ends_everything(tmp_path: Path) -> None:
    made = Supervisor.start(tmp_path)
    pids = [made.spawn(f"s{index}", SLEEP).pid or 0 for index in range(3)]
    made.shutdown()
    until(lambda: not any(alive(pid) for pid in pids))
    assert not made.alive()


def test_killing_the_supervisor_kills_what_it_runs(tmp_path: Path) -> None:
    made = Supervisor.start(tmp_path)
    pid = made.spawn("sleeper", SLEEP).pid or 0
    assert made._process is not None
    made._process.kill()
    until(lambda: not alive(pid))
    made.shutdown()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_when_the_owner_dies_nothing_is_left(tmp_path: Path, number: signal.Signals) -> None:
    program = f"""
import sys, time
from pathlib import Path
from local.controlplane.supervision import Supervisor
made = Supervisor.start(Path({str(tmp_path / "t")!r}), temporary=True)
state = made.spawn("sleeper", {SLEEP!r})
print(state.pid, made._process.pid, flush=True)
time.sleep(600)
"""
    # A shell that runs the tests in the background has SIGINT ignored, and children would inherit that.
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    owner = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, preexec_fn=heard)
    assert owner.stdout is not None
    child, daemon = (int(word) for word in owner.stdout.readline().split())
    assert alive(child)
    os.kill(owner.pid, number)
    owner.wait(10)
    until(lambda: not alive(child) and not alive(daemon))
    assert not (tmp_path / "t").exists()


def test_a_detached_supervisor_outlives_its_starter_and_can_be_found(tmp_path: Path) -> None:
    program = (
        "from pathlib import Path; from local.controlplane.supervision import Supervisor; "
        f"made = Supervisor.start(Path({str(tmp_path)!r})); made.spawn('sleeper', {SLEEP!r}); made.detach()"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=30)
    found = Supervisor.attach(tmp_path)
    assert found.alive()
    pid = found.pids()["sleeper"]
    found.shutdown()
    until(lambda: not alive(pid))


def test_shutdown_returns_when_everything_is_gone(tmp_path: Path) -> None:
    program = (
        "from pathlib import Path; from local.controlplane.supervision import Supervisor; "
        f"made = Supervisor.start(Path({str(tmp_path)!r})); made.spawn('sleeper', {SLEEP!r}); made.detach()"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=30)
    found = Supervisor.attach(tmp_path)
    pid = found.pids()["sleeper"]
    found.shutdown()
    assert not alive(pid)


def test_a_supervisor_that_hangs_is_killed_with_what_it_runs(tmp_path: Path) -> None:
    made = Supervisor.start(tmp_path)
    pid = made.spawn("sleeper", SLEEP).pid or 0
    assert made._process is not None
    os.kill(made._process.pid, signal.SIGSTOP)
    Supervisor.attach(tmp_path).shutdown(seconds=1)
    until(lambda: not alive(pid))
    made.shutdown()


def test_the_owner_is_missed_though_a_fork_of_it_holds_the_pipe(tmp_path: Path) -> None:
    program = f"""
import os, time
from pathlib import Path
from local.controlplane.supervision import Supervisor
made = Supervisor.start(Path({str(tmp_path)!r}))
state = made.spawn("sleeper", {SLEEP!r})
fork = os.fork()
if fork == 0:
    time.sleep(600)
print(state.pid, made._process.pid, fork, flush=True)
time.sleep(600)
"""
    owner = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    child, daemon, fork = (int(word) for word in owner.stdout.readline().split())
    try:
        owner.kill()
        owner.wait(10)
        until(lambda: not alive(child) and not alive(daemon))
    finally:
        os.kill(fork, signal.SIGKILL)


def test_a_process_that_keeps_ending_is_reported_before_the_deadline(supervisor: Supervisor) -> None:
    argv = [sys.executable, "-c", "raise SystemExit('address already in use')"]
    with pytest.raises(SupervisorError, match="address already in use"):
        supervisor.spawn("broken", argv, ready=lambda: False, ready_seconds=100)


def test_a_stop_during_a_restart_is_final(supervisor: Supervisor) -> None:
    supervisor.spawn("flapping", [sys.executable, "-c", "raise SystemExit(1)"])
    until(lambda: supervisor.processes()[0].restarts >= 1)
    supervisor.stop("flapping")
    assert supervisor.processes() == []


def test_one_that_ignores_being_asked_is_made_to_end(supervisor: Supervisor) -> None:
    ignoring = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
    )
    pid = supervisor.spawn("deaf", [sys.executable, "-c", ignoring]).pid or 0
    until(lambda: "up" in supervisor.log_end("deaf"))
    supervisor.stop("deaf")
    assert not alive(pid)
