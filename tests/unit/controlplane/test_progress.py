from __future__ import annotations

import io
import time

import pytest
from rich.console import Console

from local.controlplane import progress as module
from local.controlplane.progress import Progress


@pytest.fixture
def console(monkeypatch: pytest.MonkeyPatch) -> Console:
    monkeypatch.setattr(module, "_FIRST_SECONDS", 0.3)
    monkeypatch.setattr(module, "_HEARTBEAT_SECONDS", 0.3)
    return Console(file=io.StringIO(), width=100)


def text(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def wait_for(console: Console, lines: int) -> None:
    deadline = time.monotonic() + 20
    while text(console).count("\n") < lines:
        assert time.monotonic() < deadline, text(console)
        time.sleep(0.05)


def test_without_a_terminal_a_long_step_is_named_again_and_again(console: Console) -> None:
    with Progress(console) as shown, shown.step("building etcd"):
        wait_for(console, 3)
    assert text(console).count("building etcd …") >= 3


def test_the_innermost_step_is_the_one_that_is_named(console: Console) -> None:
    with Progress(console) as shown, shown.step("control plane"), shown.step("1/6 etcd"):
        wait_for(console, 1)
    assert "1/6 etcd" in text(console)
    assert "control plane …" not in text(console)


def test_one_progress_may_be_entered_by_what_is_called(console: Console) -> None:
    shown = Progress(console)
    with shown:
        with shown, shown.step("inner"):
            wait_for(console, 1)
        with shown.step("after"):
            wait_for(console, 3)
    assert "after …" in text(console)
