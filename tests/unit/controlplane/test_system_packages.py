"""scripts/system-packages.sh, on machines that are made up by what lies on PATH."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[3] / "scripts" / "system-packages.sh"


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A PATH with everything the script looks for; apt-get only writes down what it is asked."""
    folder = tmp_path / "bin"
    folder.mkdir()
    bash = shutil.which("bash")
    assert bash is not None
    (folder / "bash").symlink_to(bash)
    log = tmp_path / "apt.log"
    for name, body in {
        "apt-get": f'echo "$*" >> {log}',
        "id": "echo 0",
        "git": ":",
        "make": ":",
        "softhsm2-util": ":",
        "postgres": ":",
        "prometheus": ":",
        "python3": ":",
    }.items():
        program = folder / name
        program.write_text(f"#!{bash}\n{body}\n")
        program.chmod(0o755)
    return folder


def run(machine: Path) -> tuple[int, str, str]:
    done = subprocess.run(
        ["bash", str(SCRIPT)], env={"PATH": str(machine)}, capture_output=True, text=True, check=False, timeout=30
    )
    log = machine.parent / "apt.log"
    return done.returncode, done.stdout + done.stderr, log.read_text() if log.exists() else ""


def test_nothing_is_done_or_said_where_nothing_is_missing(machine: Path) -> None:
    assert run(machine) == (0, "", "")


def test_what_is_missing_is_named_with_its_purpose_and_installed(machine: Path) -> None:
    (machine / "git").unlink()
    status, said, asked = run(machine)
    assert status == 0
    assert "git is missing: checks" in said
    assert asked.splitlines() == ["update -qq", "install -y -qq --no-install-recommends git"]


def test_without_root_and_sudo_the_command_to_run_is_said(machine: Path) -> None:
    (machine / "make").unlink()
    (machine / "id").write_text((machine / "id").read_text().replace("0", "1000"))
    status, said, asked = run(machine)
    assert status == 1
    assert "please run as root: apt-get install make" in said
    assert asked == ""


def test_sudo_is_used_where_it_is_there(machine: Path) -> None:
    (machine / "make").unlink()
    (machine / "id").write_text((machine / "id").read_text().replace("0", "1000"))
    sudo = machine / "sudo"
    sudo.write_text((machine / "git").read_text().replace(":", '"$@"'))
    sudo.chmod(0o755)
    status, said, asked = run(machine)
    assert status == 0
    assert "with sudo" in said
    assert "install -y -qq --no-install-recommends make" in asked
