"""The control plane itself: real components, real identities, nothing left behind."""

from __future__ import annotations

import http.client
import json
import ssl
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from local.controlplane import ControlPlane
from local.controlplane.pki import Pair

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
def node(control_plane: ControlPlane) -> Iterator[str]:
    capacity = {"cpu": "64", "memory": "512Gi", "pods": "110", GPU: "8"}
    apply(
        control_plane,
        {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {
                "name": "hand-made",
                # The label that confidential runtime classes select, should Kekkai be installed here already.
                "labels": {"kubernetes.io/hostname": "hand-made", "kekkai.dev/confidential": "sev-snp"},
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
    yield "hand-made"
    # The control plane is shared: tests of the operators count nodes.
    control_plane.kubectl("delete", "namespace", "plane-test", "--timeout=60s")
    control_plane.kubectl("delete", "node", "hand-made")


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


def test_nodes_report_where_they_are(control_plane: ControlPlane, node: str) -> None:
    def addresses() -> Any:
        return get(control_plane, "node", node)["status"].get("addresses")

    found = {each["type"]: each["address"] for each in until(addresses)}
    assert found["Hostname"] == node
    assert found["InternalIP"].startswith("100.")


def phase(plane: ControlPlane, name: str) -> Any:
    found = get(plane, "pod", name, "-n", "plane-test")
    return found and found["status"].get("phase")


def pod(name: str, seconds: str | None, restart: str) -> dict[str, Any]:
    annotations = {"kekkai.dev/emulated-run-seconds": seconds} if seconds else {}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "plane-test", "annotations": annotations},
        "spec": {"restartPolicy": restart, "containers": [{"name": "c", "image": "registry.example/x"}]},
    }


def test_pods_end_when_their_annotation_says_so(control_plane: ControlPlane, node: str) -> None:
    apply(control_plane, pod("service", "1", "Always"), pod("bare", None, "Never"), pod("ends", "3", "Never"))
    changes = 0

    def ended() -> bool:
        nonlocal changes  # a change to the pod does not start the wait anew
        changes += 1
        control_plane.kubectl("annotate", "pod", "ends", "-n", "plane-test", f"changes={changes}", "--overwrite")
        return bool(phase(control_plane, "ends") == "Succeeded")

    until(ended, 20)
    assert phase(control_plane, "service") == "Running"
    assert phase(control_plane, "bare") == "Running"
    control_plane.kubectl("delete", "pod", "service", "bare", "ends", "-n", "plane-test")


def test_a_killed_kwok_takes_its_nodes_up_again_at_once(control_plane: ControlPlane, node: str) -> None:
    apply(control_plane, pod("before", "6", "Never"))
    until(lambda: phase(control_plane, "before") == "Running")
    before = control_plane.supervisor.kill("kwok").pid
    until(lambda: control_plane.supervisor.pids().get("kwok", before) != before)
    apply(control_plane, pod("after-kill", "1", "Never"))
    until(lambda: phase(control_plane, "after-kill") == phase(control_plane, "before") == "Succeeded", 30)
    control_plane.kubectl("delete", "pod", "before", "after-kill", "-n", "plane-test")


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


def test_components_have_no_more_rights_than_they_need(control_plane: ControlPlane) -> None:
    kwok = control_plane.data_dir / "kwok.kubeconfig"
    for verb, what, may in (("delete", "pods", True), ("get", "secrets", False), ("create", "pods", False)):
        done = control_plane.kubectl("auth", "can-i", verb, what, "-A", user=kwok, check=False)
        assert (done.returncode == 0) is may, f"{verb} {what}"


def etcd_says(plane: ControlPlane, pair: Pair) -> int:
    context = ssl.create_default_context(cafile=str(plane.data_dir / "pki" / "etcd-ca.crt"))
    context.load_cert_chain(pair.certificate, pair.key)
    connection = http.client.HTTPSConnection("127.0.0.1", plane.layout.etcd_port, timeout=10, context=context)
    try:
        connection.request("GET", "/version")
        return connection.getresponse().status
    finally:
        connection.close()


def test_a_certificate_of_the_cluster_does_not_open_etcd(control_plane: ControlPlane) -> None:
    pki = control_plane.data_dir / "pki"
    assert etcd_says(control_plane, Pair(pki / "etcd-client.crt", pki / "etcd-client.key")) == 200
    alice = control_plane.pki.client("alice-at-etcd", "alice", ("system:masters",))
    with pytest.raises((OSError, http.client.HTTPException)):
        etcd_says(control_plane, alice)


def test_anonymous_requests_are_refused(control_plane: ControlPlane) -> None:
    context = ssl.create_default_context(cafile=str(control_plane.ca_file))
    connection = http.client.HTTPSConnection("127.0.0.1", control_plane.layout.api_port, timeout=10, context=context)
    connection.request("GET", "/api/v1/namespaces")
    assert connection.getresponse().status == 401
    connection.close()


def test_keys_and_kubeconfigs_are_for_their_owner_only(control_plane: ControlPlane) -> None:
    control_plane.kubeconfig_for("mode")
    secret = [*control_plane.data_dir.glob("*.kubeconfig"), *(control_plane.data_dir / "pki").glob("*.key")]
    assert len(secret) > 8
    assert {stat.S_IMODE(path.stat().st_mode) for path in secret} == {0o600}
    assert stat.S_IMODE(control_plane.data_dir.stat().st_mode) == 0o700


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


def test_a_port_that_was_taken_meanwhile_is_replaced_by_another(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import socket

    from local.controlplane import plane as module

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        real, calls = module.free_ports, 0

        def ports(count: int) -> list[int]:
            nonlocal calls
            calls += 1
            found = real(count)
            return [taken.getsockname()[1], *found[1:]] if calls == 1 else found

        monkeypatch.setattr(module, "free_ports", ports)
        with ControlPlane.start(tmp_path / "p", components=()) as started:
            assert started.ready()
        assert calls == 2
    assert not (tmp_path / "p" / "state.json").exists()


def test_what_was_detached_is_found_and_stopped_by_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from local.controlplane import named

    monkeypatch.setenv("KEKKAI_HOME", str(tmp_path))
    program = (
        "from local.controlplane import ControlPlane, named; "
        "ControlPlane.start(named.folder_of('one'), components=(), detached=True)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
    found = named.running("one")
    assert found is not None
    assert found.ready()
    pids = found.supervisor.pids()
    assert set(pids) == {"etcd", "kube-apiserver"}
    assert named.remove("one")
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids.values())
    assert named.names() == []
