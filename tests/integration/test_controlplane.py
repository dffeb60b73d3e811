"""The control plane itself: real components, real identities, nothing left behind."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from local.controlplane import ControlPlane

GPU = "nvidia.com/gpu"


def until(check: Callable[[], Any], seconds: float = 60.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := check()):
        assert time.monotonic() < deadline, "did not come about in time"
        time.sleep(0.1)
    return found


def get(plane: ControlPlane, *what: str) -> Any:
    done = plane.kubectl("get", *what, "-o", "json", check=False)
    return json.loads(done.stdout) if done.returncode == 0 else None


def apply(plane: ControlPlane, *objects: dict[str, Any]) -> None:
    plane.kubectl("apply", "-f", "-", stdin="\n---\n".join(json.dumps(obj) for obj in objects))


@pytest.fixture(scope="module")
def node(control_plane: ControlPlane) -> str:
    capacity = {"cpu": "64", "memory": "512Gi", "pods": "110", GPU: "8"}
    apply(
        control_plane,
        {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {
                "name": "hand-made",
                "labels": {"kubernetes.io/hostname": "hand-made"},
                "annotations": {"kwok.x-k8s.io/node": "fake", "kekkai.dev/emulated-boot-seconds": "1"},
            },
            "status": {"capacity": capacity, "allocatable": capacity},
        },
        {
            "apiVersion": "node.k8s.io/v1",
            "kind": "RuntimeClass",
            "metadata": {"name": "kata-qemu-snp"},
            "handler": "kata-qemu-snp",
        },
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "plane-test"}},
    )
    return "hand-made"


def job(name: str, runtime: str | None = None) -> dict[str, Any]:
    container = {"name": "c", "image": "registry.example/x", "resources": {"limits": {GPU: "2"}}}
    spec: dict[str, Any] = {"restartPolicy": "Never", "containers": [container], "nodeName": None}
    if runtime:
        spec["runtimeClassName"] = runtime
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "namespace": "plane-test"},
        "spec": {"template": {"spec": spec}},
    }


def test_the_real_scheduler_binds_and_the_job_completes(control_plane: ControlPlane, node: str) -> None:
    apply(control_plane, job("plain"))
    found = until(
        lambda: (j := get(control_plane, "job", "plain", "-n", "plane-test")) and j["status"].get("succeeded")
    )
    assert found == 1
    (pod,) = get(control_plane, "pods", "-n", "plane-test", "-l", "job-name=plain")["items"]
    assert pod["spec"]["nodeName"] == node


def test_kwok_leaves_confidential_pods_to_the_emulated_hardware(control_plane: ControlPlane, node: str) -> None:
    apply(control_plane, job("sealed", "kata-qemu-snp"), job("after"))

    def bound() -> Any:
        pods = get(control_plane, "pods", "-n", "plane-test", "-l", "job-name=sealed")["items"]
        return pods and pods[0]["spec"].get("nodeName") and pods[0]

    until(bound)
    until(lambda: get(control_plane, "job", "after", "-n", "plane-test")["status"].get("succeeded"))
    (pod,) = get(control_plane, "pods", "-n", "plane-test", "-l", "job-name=sealed")["items"]
    assert pod["status"]["phase"] == "Pending"
    control_plane.kubectl("delete", "job", "sealed", "-n", "plane-test")
    until(lambda: not get(control_plane, "pods", "-n", "plane-test", "-l", "job-name=sealed")["items"])


def test_rbac_is_on_and_certificates_name_the_user(control_plane: ControlPlane) -> None:
    alice = control_plane.kubeconfig_for("alice", ("team-a",))
    who = json.loads(control_plane.kubectl("auth", "whoami", "-o", "json", user=alice).stdout)
    assert who["status"]["userInfo"]["username"] == "alice"
    assert "team-a" in who["status"]["userInfo"]["groups"]
    refused = control_plane.kubectl("get", "pods", user=alice, check=False)
    assert refused.returncode != 0
    assert 'User "alice" cannot list resource "pods"' in refused.stderr


def test_every_write_is_in_the_audit_log_without_bodies(control_plane: ControlPlane) -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": "default"}}
    apply(control_plane, secret | {"stringData": {"password": "correct-horse-battery"}})

    def entry() -> Any:
        lines = control_plane.audit_log.read_text().splitlines()
        events = (json.loads(line) for line in lines if '"secrets"' in line)
        return [e for e in events if (e.get("objectRef") or {}).get("name") == "s" and e["verb"] in {"create", "patch"}]

    assert until(entry)[0]["user"]["username"] == "kekkai-admin"
    assert "correct-horse-battery" not in control_plane.audit_log.read_text()


def test_a_second_one_runs_beside_it_and_nothing_is_left_after_kill(
    control_plane: ControlPlane, tmp_path: Path
) -> None:
    program = f"""
import time
from pathlib import Path
from local.controlplane import ControlPlane
plane = ControlPlane.start(Path({str(tmp_path / "p")!r}), components=())
print(*plane.supervisor.pids().values(), plane.supervisor._process.pid, flush=True)
time.sleep(600)
"""
    owner = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    pids = [int(word) for word in owner.stdout.readline().split()]
    assert len(pids) == 3
    assert control_plane.ready()
    owner.kill()
    owner.wait(10)
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), 20)
