"""`kekkai up`, `status`, `down` as a person runs them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from local.controlplane.supervision import Supervisor


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("KEKKAI_HOME", str(tmp_path))
    yield tmp_path
    kekkai("down", "--all")


def kekkai(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "api.cli.app", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)


def until(check: Callable[[], Any], seconds: float = 60.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := check()):
        assert time.monotonic() < deadline, "did not come about in time"
        time.sleep(0.05)
    return found


def test_up_status_down(home: Path) -> None:
    done = kekkai("up", "--bare", "--name", "one")
    assert done.returncode == 0, done.stderr
    assert "export KUBECONFIG=" in done.stdout

    (row,) = json.loads(kekkai("status", "-o", "json").stdout)
    assert (row["name"], row["running"]) == ("one", True)
    assert {process["name"] for process in row["processes"]} == {
        "etcd",
        "kube-apiserver",
        "kube-controller-manager",
        "kube-scheduler",
        "kwok",
    }
    again = kekkai("up", "--bare", "--name", "one")
    assert again.returncode == 1
    assert "is running already" in again.stderr
    assert "kekkai down --name one" in again.stderr

    assert "removed: one" in kekkai("down", "--name", "one").stdout
    assert not any(Path(f"/proc/{process['pid']}").exists() for process in row["processes"])
    assert json.loads(kekkai("status", "-o", "json").stdout) == []
    assert "nothing to remove" in kekkai("down", "--name", "one").stdout


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_up_that_is_interrupted_leaves_no_process(home: Path, number: signal.Signals) -> None:
    command = [sys.executable, "-m", "api.cli.app", "up", "--bare", "--name", "two"]
    # A shell that runs the tests in the background has SIGINT ignored, and children would inherit that.
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    quiet = subprocess.DEVNULL
    started = subprocess.Popen(command, env=os.environ, stdout=quiet, stderr=quiet, preexec_fn=heard)
    supervisor = Supervisor.attach(home / "two")
    pid = until(lambda: supervisor.alive() and supervisor.pids().get("kube-apiserver"))
    started.send_signal(signal.SIGSTOP)  # so that it is still starting while the other command runs
    busy = kekkai("down", "--name", "two")
    assert busy.returncode == 1
    assert "another command" in busy.stderr
    started.send_signal(number)
    started.send_signal(signal.SIGCONT)
    started.wait(60)
    until(lambda: not Path(f"/proc/{pid}").exists() and not supervisor.alive())


def test_a_bad_name_is_refused_with_the_fix(home: Path) -> None:
    done = kekkai("up", "--bare", "--name", "../x")
    assert done.returncode == 1
    assert "lower-case" in done.stderr
