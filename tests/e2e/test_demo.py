"""The demo holds, and no key material is anywhere but where it belongs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from local import stack
from local.controlplane import ControlPlane
from local.demo.expectation import Report
from local.demo.materials import Materials
from tests.e2e.demo_run import everything, files_under, forms, memory_of, play, processes_naming

pytestmark = pytest.mark.timeout(600)
Run = tuple[stack.Stack, Report, Materials]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    with ControlPlane.start(tmp_path_factory.mktemp("demo")) as plane:
        stacked = stack.start(plane)
        report, materials = asyncio.run(play(stacked))
        yield stacked, report, materials


def test_every_expectation_holds(run: Run) -> None:
    _, report, _ = run
    assert [(row.title, row.got) for row in report.broken] == []
    assert len(report.rows) == 15


def test_no_key_material_in_any_file(run: Run) -> None:
    stacked, _, materials = run
    wanted = forms(materials.key)
    folder = stacked.plane.data_dir
    searched = 0
    for path in files_under(folder, materials.folder):
        data = path.read_bytes()
        searched += 1
        assert not any(form in data for form in wanted), f"key material in {path.relative_to(folder)}"
    assert searched > 20
    assert any(form in materials.key_file.read_bytes() for form in wanted), "the search itself finds nothing"


def test_no_key_material_in_the_cluster(run: Run) -> None:
    stacked, _, materials = run
    text = everything(stacked.plane).encode()
    assert b"aurora-train" in text
    assert not any(form in text for form in forms(materials.key))


def test_no_key_material_in_the_memory_of_operators_and_http_process(run: Run) -> None:
    stacked, _, materials = run
    wanted = forms(materials.key)
    pids = stacked.plane.supervisor.pids()
    for name in ("operators", "key-service", "hardware-runner", "kube-apiserver", "etcd"):
        regions = 0
        for region in memory_of(pids[name]):
            regions += 1
            assert not any(form in region for form in wanted), f"key material in the memory of {name}"
        assert regions > 3


def test_what_is_deleted_leaves_nothing_behind(run: Run) -> None:
    stacked, _, _ = run
    plane = stacked.plane
    for kind in ("protectedkeys", "tenants", "acceleratorpools", "sites"):
        plane.kubectl("delete", kind, "--all", *(["-A"] if kind == "protectedkeys" else []), "--timeout=90s")
    left = plane.kubectl("get", "kekkai,jobs,pods", "-A", "-o", "name").stdout.split()
    assert [name for name in left if "securitybaseline" not in name] == []
    namespaces = plane.kubectl("get", "namespaces", "-l", "kekkai.dev/tenant", "-o", "name").stdout
    assert namespaces == ""
    assert plane.kubectl("get", "nodes", "-o", "name").stdout == ""


def test_nothing_runs_once_it_is_stopped(tmp_path: Path) -> None:
    with ControlPlane.start(tmp_path / "p") as plane:
        stack.start(plane)
        assert processes_naming(str(tmp_path))
    assert processes_naming(str(tmp_path)) == []
