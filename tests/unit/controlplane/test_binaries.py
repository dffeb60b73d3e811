from __future__ import annotations

import hashlib
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from local.controlplane import binaries, gobuild
from local.controlplane.progress import Progress
from local.controlplane.versions import BINARIES, ETCD

ETCD_BINARY = next(binary for binary in BINARIES if binary.name == "etcd")


def fake(folder: Path, version: str) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "etcd"
    path.write_text(f"#!/bin/sh\necho etcd Version: {version}\n")
    path.chmod(0o755)
    return path


@pytest.fixture(autouse=True)
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KEKKAI_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)


def test_assets_go_before_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assets, path = fake(tmp_path / "assets", ETCD), fake(tmp_path / "path", ETCD)
    monkeypatch.setenv("PATH", f"{path.parent}:/usr/bin:/bin")
    assert binaries.on_machine(ETCD_BINARY) == path
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(assets.parent))
    assert binaries.on_machine(ETCD_BINARY) == assets


def test_a_binary_of_another_series_does_not_suit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(fake(tmp_path / "old", "3.4.1").parent))
    assert binaries.on_machine(ETCD_BINARY) is None


def test_what_is_cached_is_used_and_the_key_follows_the_build(monkeypatch: pytest.MonkeyPatch) -> None:
    place = binaries._cache_path(ETCD_BINARY)
    assert binaries.cached(ETCD_BINARY) is None
    place.parent.mkdir(parents=True)
    place.write_text("x")
    assert binaries.cached(ETCD_BINARY) == place
    monkeypatch.setattr("local.controlplane.binaries.TOOLS", Path("/nonexistent"))
    assert binaries._cache_path(ETCD_BINARY) != place


def test_two_processes_build_once(tmp_path: Path) -> None:
    program = """
import os, sys, time
from pathlib import Path
from local.controlplane import binaries
from local.controlplane.versions import BINARIES
def build(binary, target, progress):
    time.sleep(0.3)
    with open(os.environ["BUILDS"], "a") as log:
        log.write("built\\n")
    target.write_text("binary")
binaries.build = build
path = binaries.resolve(["etcd"])["etcd"]
assert path.read_text() == "binary"
"""
    environment = {"BUILDS": str(tmp_path / "builds"), "KEKKAI_CACHE": str(tmp_path / "cache"), "PATH": "/usr/bin:/bin"}
    running = [subprocess.Popen([sys.executable, "-c", program], env=environment) for _ in range(3)]
    assert [process.wait(60) for process in running] == [0, 0, 0]
    assert (tmp_path / "builds").read_text() == "built\n"


def test_a_download_without_a_pinned_checksum_is_not_made(tmp_path: Path) -> None:
    kwok = next(binary for binary in BINARIES if binary.name == "kwok")
    with Progress() as progress:
        assert binaries._download(kwok, tmp_path / "kwok", progress, "1/1") is False
    assert not (tmp_path / "kwok").exists()


def test_a_wrong_checksum_is_an_error_not_a_fallback(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    published = tmp_path / "published"
    published.write_bytes(b"tampered")
    offered = replace(ETCD_BINARY, download=published.as_uri())
    monkeypatch.setitem(binaries.CHECKSUMS, published.as_uri(), "0" * 64)
    with Progress() as progress, pytest.raises(binaries.BinaryUnavailable, match="pinned checksum"):
        binaries._download(offered, tmp_path / "etcd", progress, "1/1")


def test_modules_pin_the_versions_that_are_named() -> None:
    for binary in BINARIES:
        text = (binaries.TOOLS / binary.module / "go.mod").read_text()
        assert f"v{binary.version}" in text
        assert (binaries.TOOLS / binary.module / "go.sum").exists()


def go(folder: Path, version: str) -> Path:
    folder.mkdir(parents=True)
    program = folder / "go"
    program.write_text(f"#!/bin/sh\necho go version go{version} linux/amd64\n")
    program.chmod(0o755)
    return program


def test_go_on_path_is_used_only_if_new_enough(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    installed: list[Path] = []

    def install(home: Path) -> None:
        installed.append(home)
        go(home / "tree" / "go" / "bin", "1.26.6")

    monkeypatch.setattr(gobuild, "_install", install)
    new = go(tmp_path / "new", "1.99.0")
    monkeypatch.setenv("PATH", f"{new.parent}:/usr/bin:/bin")
    assert gobuild.go(Progress()) == str(new)
    monkeypatch.setenv("PATH", f"{go(tmp_path / 'old', '1.19.8').parent}:/usr/bin:/bin")
    first = gobuild.go(Progress())
    assert Path(first).is_relative_to(tmp_path / "cache")
    assert gobuild.go(Progress()) == first
    assert len(installed) == 1


def test_a_failed_build_says_what_to_do_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = tmp_path / "bin" / "go"
    broken.parent.mkdir()
    broken.write_text(
        '#!/bin/sh\n[ "$1" = version ] && echo go version go1.99.0 && exit 0\necho no network >&2; exit 1\n'
    )
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", f"{broken.parent}:/usr/bin:/bin")
    with pytest.raises(gobuild.BuildFailed, match="no network"):
        binaries.resolve(["etcd"])
    assert binaries.cached(ETCD_BINARY) is None
    left = [path.name for path in binaries._cache_path(ETCD_BINARY).parent.iterdir()]
    assert left == [".lock"]


def test_what_cannot_be_downloaded_is_built(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    missing = (tmp_path / "not-there").as_uri()
    monkeypatch.setattr(binaries, "BINARIES", (replace(ETCD_BINARY, download=missing),))
    monkeypatch.setitem(binaries.CHECKSUMS, missing, "0" * 64)
    monkeypatch.setattr(binaries, "build", lambda binary, target, progress: target.write_text("built"))
    assert binaries.resolve(["etcd"])["etcd"].read_text() == "built"


def test_a_download_with_the_pinned_checksum_is_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    published = tmp_path / "published"
    published.write_bytes(b"official")
    url = published.as_uri()
    monkeypatch.setattr(binaries, "BINARIES", (replace(ETCD_BINARY, download=url),))
    monkeypatch.setitem(binaries.CHECKSUMS, url, hashlib.sha256(b"official").hexdigest())
    assert binaries.resolve(["etcd"])["etcd"].read_bytes() == b"official"
