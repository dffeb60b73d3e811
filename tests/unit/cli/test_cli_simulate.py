"""`kekkai simulate`: figures from a trace, the same by processes as alone, and errors that say what to do."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from api.cli.app import app
from crds.errors import InvalidInput, Unavailable

ROWS = """timestamp,duration,num_gpus,gpu_time,cluster
2026-01-01 00:00:00,600.0,8,4800.0,a
2026-01-01 00:10:00,600.0,4,2400.0,b
2026-01-01 00:10:00,1200.0,4,4800.0,a
2026-01-01 05:00:00,60.0,1,60.0,c
"""
POOL = "name=lab,accelerator=V100,max=2,price=3.6"


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    path = tmp_path / "trace.csv"
    path.write_text(ROWS)
    return path


def run(*words: str) -> str:
    return CliRunner().invoke(app, ["simulate", *words], catch_exceptions=False).output


def test_the_figures_of_a_small_trace(trace: Path) -> None:
    words = ["--trace", str(trace), "--pool", POOL, "--hours", "1", "--boot", "60", "--checkpoint", "0", "-o", "json"]
    (found,) = json.loads(run(*words))
    assert (found["pool"], found["jobs"], found["ended"], found["quota"], found["seed"]) == ("lab", 3, 3, "fair", 0)
    assert found["mean_wait"] == pytest.approx(60.0)  # each for a machine: the first is busy until the second is ready
    assert found["device_hours"] == pytest.approx((8 * 600 + 4 * 600 + 4 * 1200) / 3600)
    assert 1 <= found["peak_nodes"] <= 2
    assert found["cost"] == pytest.approx(found["standing_hours"] / 8 * 3.6)
    assert 0 < found["use"] <= 1


def test_many_what_ifs_in_processes_are_what_each_is_alone(trace: Path) -> None:
    words = ["--trace", str(trace), "--pool", POOL, "--pool", "max=4", "--policy", "fair", "--policy", "open"]
    many = json.loads(run(*words, "--seeds", "2", "--workers", "2", "-o", "json"))
    assert [(one["pool"], one["quota"], one["seed"]) for one in many] == [
        (pool, quota, seed) for pool in ("lab", "pool") for quota in ("fair", "open") for seed in (0, 1)
    ]
    (alone,) = json.loads(run("--trace", str(trace), "--pool", "max=4", "--policy", "open", "-o", "json"))
    assert many[6] == alone


def test_a_table_for_people_and_a_note_of_what_can_never_start(trace: Path) -> None:
    result = CliRunner().invoke(app, ["simulate", "--trace", str(trace), "--pool", "max=1,devices=4"])
    assert "1 of 4 jobs ask for more than the 4 devices" in result.output
    assert "3/4" in result.output
    assert "completion" in result.output


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["--pool", "gpus=8"], "not a field of a pool"),
        (["--pool", "max=many"], "many"),
        (["--pool", "max=0"], "is no pool"),
        (["--pool", POOL, "--from", "soon"], "is not a time"),
        (["--pool", POOL, "--from", "2027-01-01"], "no job was submitted"),
    ],
)
def test_bad_words_name_the_option_and_the_fix(trace: Path, words: list[str], part: str) -> None:
    with pytest.raises(InvalidInput, match=part) as caught:
        run("--trace", str(trace), *words)
    assert caught.value.problem.where.startswith("--")
    assert caught.value.problem.fix


@pytest.mark.parametrize(
    ("text", "where"),
    [("a,b\n1,2\n", "line 1"), (ROWS + "never,1,1,1,a\n", "line 6"), (ROWS + "2026-01-01,0,1,1,a\n", "line 6")],
)
def test_a_bad_trace_names_the_line(tmp_path: Path, text: str, where: str) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(InvalidInput) as caught:
        run("--trace", str(path), "--pool", POOL)
    assert caught.value.problem.where == where


@pytest.mark.skipif(importlib.util.find_spec("ray") is not None, reason="Ray is installed")
def test_without_ray_the_extra_is_named(trace: Path) -> None:
    with pytest.raises(Unavailable, match=r"kekkai\[ray\]"):
        run("--trace", str(trace), "--pool", POOL, "--ray")
