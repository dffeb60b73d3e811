from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from crds.errors import Conflict, InvalidInput
from local.controlplane import named


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KEKKAI_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.mark.parametrize("name", ["", "../up", "A", "a" * 33, "-a", "a/b", "a\n"])
def test_a_name_that_could_leave_the_folder_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        named.folder_of(name)
    assert caught.value.problem.where == "--name"


def test_a_name_is_held_by_one_process_at_a_time() -> None:
    program = "from local.controlplane import named\nwith named.held('one'):\n    pass"
    with named.held("one"):
        with pytest.raises(Conflict, match="another command"), named.held("one"):
            pytest.fail("held twice")
        other = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
        assert other.returncode == 1
        assert "another command" in other.stderr
        with named.held("two"):
            pass
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_what_is_left_of_a_dead_one_is_removed(home: Path) -> None:
    (home / "dead" / "pki").mkdir(parents=True)
    assert named.names() == ["dead"]
    assert named.running("dead") is None
    assert named.remove("dead")
    assert named.names() == []
    assert not named.remove("dead")
