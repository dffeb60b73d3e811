"""The runner of confidential pods on a real control plane, with the real key service and agent."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from keymgmt.attestation import host_data_of, init_data_digest
from keymgmt.guest.sealed_input import seal
from keymgmt.policy import payload_types
from local.controlplane import ControlPlane
from local.hardware.snp.launch import launch_measurement
from local.hardware.snp.platform import SnpPlatform
from tests.integration.keymgmt_harness import Custodians, Service, alive, processes_of

NAMESPACE = "hardware-test"
RESOURCE = "team-a/key/dataset"
TEXT = b"line\n" * 500
INIT_DATA = 'version = "0.1.0"\nalgorithm = "sha256"\n[data]\n'
RBAC = Path(__file__).resolve().parents[2] / "local" / "hardware" / "rbac.yaml"


def until(check: Callable[[], Any], seconds: float = 90.0, what: str = "it") -> Any:
    deadline = time.monotonic() + seconds
    while not (found := check()):
        assert time.monotonic() < deadline, f"{what} did not come about in time"
        time.sleep(0.1)
    return found


class Cluster:
    """A control plane with an emulated node, and the runner as a process that can be killed."""

    def __init__(self, plane: ControlPlane, folder: Path) -> None:
        self.plane, self.folder = plane, folder
        self.kubeconfig = plane.kubeconfig_for("kekkai-runner")
        self.runner: subprocess.Popen[bytes] | None = None
        self.keys: Any = None

    def start(self) -> None:
        with (self.folder / "runner.log").open("ab") as log:
            self.runner = subprocess.Popen(
                [
                    *(sys.executable, "-m", "local.hardware.runner", "--kubeconfig", str(self.kubeconfig)),
                    *("--kbs-url", self.keys.url, "--kbs-ca", str(self.keys.folder / "tls.crt")),
                    *("--data-dir", str(self.folder / "hardware"), "--guest-deadline", "60"),
                ],
                stdout=log,
                stderr=log,
            )

    def kill(self) -> list[int]:
        """kill -9 of the runner; the pids of the guests that it had."""
        assert self.runner is not None
        guests = processes_of(self.runner.pid)
        self.runner.send_signal(signal.SIGKILL)
        self.runner.wait()
        return guests

    def apply(self, *objects: dict[str, Any]) -> None:
        self.plane.kubectl("apply", "-f", "-", stdin="\n---\n".join(json.dumps(one) for one in objects))

    def pod(self, name: str) -> dict[str, Any] | None:
        done = self.plane.kubectl("get", "pod", name, "-n", NAMESPACE, "-o", "json", check=False)
        return json.loads(done.stdout) if done.returncode == 0 else None

    def phase(self, name: str) -> str:
        return ((self.pod(name) or {}).get("status") or {}).get("phase", "")

    def terminated(self, name: str) -> dict[str, Any]:
        """Wait for the pod's end; its first container's terminated state."""
        until(lambda: self.phase(name) in {"Succeeded", "Failed"}, what=f"the end of {name}")
        pod = self.pod(name)
        assert pod is not None
        state: dict[str, Any] = pod["status"]["containerStatuses"][0]["state"]["terminated"]
        return state

    def releases(self) -> int:
        entries = self.keys.ok("GET", "/v1/releases", role="auditor")["entries"]
        return sum(entry["type"] == "release" for entry in entries)


def confidential_pod(name: str, config_map: str = "dataset", **changes: Any) -> dict[str, Any]:
    annotations = {
        "io.katacontainers.config.hypervisor.cc_init_data": base64.b64encode(INIT_DATA.encode()).decode(),
        "io.katacontainers.config.hypervisor.kernel_params": changes.pop("kernel_params", ""),
    }
    spec: dict[str, Any] = {
        "restartPolicy": "Never",
        "runtimeClassName": "kata-qemu-snp",
        "nodeName": "snp-1",
        "automountServiceAccountToken": False,
        "containers": [
            {
                "name": "train",
                "image": "registry.example/train:1",
                "env": [
                    {"name": "KEKKAI_KEY", "value": changes.pop("key", RESOURCE)},
                    {"name": "KEKKAI_SEALED_INPUT", "value": "/sealed/dataset.sealed"},
                ],
                "volumeMounts": [{"name": "sealed", "mountPath": "/sealed"}],
            }
        ],
        "volumes": [{"name": "sealed", "configMap": {"name": config_map}}],
        **changes,
    }
    metadata = {"name": name, "namespace": NAMESPACE, "annotations": annotations}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


@pytest.fixture(scope="module")
def cluster(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    found = Cluster(control_plane, tmp_path_factory.mktemp("runner"))
    platform = SnpPlatform(found.folder / "hardware")
    control_plane.kubectl("apply", "-f", str(RBAC))
    sealed = b"".join(seal(io.BytesIO(TEXT), bytes(range(32)), RESOURCE))
    capacity = {"cpu": "64", "memory": "512Gi", "pods": "110"}
    runtime = {"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass"}
    found.apply(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
        *(
            {**runtime, "metadata": {"name": name}, "handler": name}
            for name in ("kata-qemu-snp", "kata-qemu-snp-debug")
        ),
        {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {
                "name": "snp-1",
                # The label that confidential runtime classes select, should Kekkai be installed here already.
                "labels": {"kubernetes.io/hostname": "snp-1", "kekkai.dev/confidential": "sev-snp"},
                "annotations": {"kwok.x-k8s.io/node": "fake"},
            },
            "status": {"capacity": capacity, "allocatable": capacity},
        },
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "dataset", "namespace": NAMESPACE},
            "binaryData": {"dataset.sealed": base64.b64encode(sealed).decode()},
        },
    )
    account = ("get", "serviceaccount", "default", "-n", NAMESPACE)
    until(lambda: control_plane.kubectl(*account, check=False).returncode == 0, what="the service account")
    trust = {"localTrustRoots": [str(platform.trust_root)]}
    with Service(found.folder / "keys", attestation=trust) as service:
        found.keys = service
        custodians = Custodians()
        key, _ = custodians.set_up(
            service,
            "team-a/dataset",
            origin="import",
            measurement=launch_measurement(),
            host_data=host_data_of(init_data_digest(INIT_DATA)),
        )
        order = custodians.import_order(service, bytes(range(32)), "team-a/dataset", key["policyDigest"])
        service.ok("POST", "/v1/keys/team-a/dataset/import", custodians.sign(payload_types.IMPORT_ORDER_TYPE, order))
        found.start()
        yield found
        assert found.runner is not None
        found.runner.terminate()
        assert found.runner.wait(timeout=30) == 0
    control_plane.kubectl("delete", "namespace", NAMESPACE, "--wait=false")
    control_plane.kubectl("delete", "node", "snp-1", "--wait=false")  # others share this control plane


def test_a_pod_runs_and_succeeds_with_its_result(cluster: Cluster) -> None:
    cluster.apply(confidential_pod("good"))
    ended = cluster.terminated("good")
    result = json.loads(ended["message"])
    assert (ended["exitCode"], ended["reason"]) == (0, "Completed")
    assert result["sha256"] == hashlib.sha256(TEXT).hexdigest()
    assert result["records"] == 500
    pod = cluster.pod("good")
    assert pod is not None
    assert pod["status"]["phase"] == "Succeeded"
    assert pod["status"]["startTime"]
    assert pod["status"]["podIP"].startswith("10.200.")
    conditions = {one["type"]: one["status"] for one in pod["status"]["conditions"]}
    assert (conditions["Initialized"], conditions["Ready"]) == ("True", "False")


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("tampered", {"kernel_params": "agent.debug_console"}),
        ("debug", {"runtimeClassName": "kata-qemu-snp-debug"}),
        ("foreign", {"key": "team-b/key/dataset"}),
    ],
)
def test_refused_guests_fail_their_pods(cluster: Cluster, name: str, changes: dict[str, Any]) -> None:
    cluster.apply(confidential_pod(name, **changes))
    ended = cluster.terminated(name)
    assert (ended["exitCode"], ended["reason"]) == (3, "Error")
    assert json.loads(ended["message"])["error"]["reason"]
    assert cluster.phase(name) == "Failed"


def test_a_job_completes(cluster: Cluster) -> None:
    template = confidential_pod("x")
    spec = {key: value for key, value in template["spec"].items() if key != "nodeName"}
    # The control plane is shared with other tests, whose nodes the scheduler must not choose.
    spec["nodeSelector"] = {"kubernetes.io/hostname": "snp-1"}
    cluster.apply(
        {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": "gang", "namespace": NAMESPACE},
            "spec": {
                "parallelism": 3,
                "completions": 3,
                "template": {"metadata": {"annotations": template["metadata"]["annotations"]}, "spec": spec},
            },
        }
    )

    def succeeded() -> bool:
        done = cluster.plane.kubectl("get", "job", "gang", "-n", NAMESPACE, "-o", "jsonpath={.status.succeeded}")
        return done.stdout == "3"

    try:
        until(succeeded, what="three completions")
    except AssertionError as error:
        pods = cluster.plane.kubectl("get", "pods,nodes,jobs", "-n", NAMESPACE, "-o", "wide").stdout
        log = (cluster.folder / "runner.log").read_text()[-4000:]
        raise AssertionError(f"{error}\n{pods}\n{log}") from None


def test_a_missing_config_map_is_waited_for(cluster: Cluster) -> None:
    cluster.apply(confidential_pod("waits", config_map="later"))

    def waiting() -> Any:
        statuses = ((cluster.pod("waits") or {}).get("status") or {}).get("containerStatuses") or [{}]
        return (statuses[0].get("state") or {}).get("waiting")

    said = until(waiting, what="a waiting state")
    assert said["reason"] == "ContainerCreating"
    assert "later" in said["message"]
    data = cluster.plane.kubectl("get", "configmap", "dataset", "-n", NAMESPACE, "-o", "json").stdout
    copy = json.loads(data)
    copy["metadata"] = {"name": "later", "namespace": NAMESPACE}
    cluster.apply(copy)
    assert cluster.terminated("waits")["exitCode"] == 0


def test_an_unusable_pod_says_which_field(cluster: Cluster) -> None:
    pod = confidential_pod("unusable")
    pod["spec"]["containers"][0]["env"] = []
    cluster.apply(pod)

    def reason() -> str:
        statuses = ((cluster.pod("unusable") or {}).get("status") or {}).get("containerStatuses") or [{}]
        return str((statuses[0].get("state") or {}).get("waiting", {}).get("message", ""))

    assert "KEKKAI_KEY" in until(reason, what="a reason")
    cluster.plane.kubectl("delete", "pod", "unusable", "-n", NAMESPACE)
    until(lambda: cluster.pod("unusable") is None)


def hang_key_service(cluster: Cluster) -> None:
    os.kill(cluster.keys.process.pid, signal.SIGSTOP)


def resume_key_service(cluster: Cluster) -> None:
    os.kill(cluster.keys.process.pid, signal.SIGCONT)


def guests(cluster: Cluster) -> list[int]:
    assert cluster.runner is not None
    return processes_of(cluster.runner.pid)


def test_deleting_a_pod_kills_its_guest(cluster: Cluster) -> None:
    hang_key_service(cluster)
    try:
        cluster.apply(confidential_pod("deleted"))
        until(lambda: cluster.phase("deleted") == "Running", what="the pod running")
        (pid,) = until(lambda: guests(cluster), what="a guest process")
        uid = cluster.pod("deleted")["metadata"]["uid"]  # type: ignore[index]
        cluster.plane.kubectl("delete", "pod", "deleted", "-n", NAMESPACE)
        until(lambda: not alive(pid), what="the guest's end")
        until(lambda: cluster.pod("deleted") is None)
        until(lambda: not (cluster.folder / "hardware" / "pods" / uid).exists(), what="an empty folder")
    finally:
        resume_key_service(cluster)


def test_kill_nine_of_the_runner(cluster: Cluster) -> None:
    """Guests die with it; after its return a Never pod is Failed, an OnFailure pod starts anew, ended ones stay."""
    ended_before = cluster.pod("good")
    released = cluster.releases()
    hang_key_service(cluster)
    try:
        cluster.apply(confidential_pod("never"), confidential_pod("on-failure", restartPolicy="OnFailure"))
        for name in ("never", "on-failure"):
            until(lambda name=name: cluster.phase(name) == "Running", what=f"{name} running")  # type: ignore[misc]
        until(lambda: len(guests(cluster)) == 2, what="two guest processes")
        orphans = cluster.kill()
        assert len(orphans) == 2
        until(lambda: not any(alive(pid) for pid in orphans), what="the guests' end")
    finally:
        resume_key_service(cluster)
    cluster.start()
    never = cluster.terminated("never")
    assert (never["exitCode"], never["reason"]) == (137, "ContainerStatusUnknown")
    assert cluster.phase("never") == "Failed"
    assert cluster.terminated("on-failure")["exitCode"] == 0
    again = cluster.pod("on-failure")
    assert again is not None
    assert again["status"]["containerStatuses"][0]["restartCount"] == 1
    assert cluster.pod("good") == ended_before
    assert cluster.releases() <= released + 2  # a request that hung may have been answered to a dead guest


def test_an_outcome_that_was_not_reported_is_not_lost(cluster: Cluster) -> None:
    """The runner dies after the guest finished and before the status was written: no second run."""
    hang_key_service(cluster)
    cluster.apply(confidential_pod("finished"))
    until(lambda: cluster.phase("finished") == "Running", what="the pod running")
    cluster.kill()
    resume_key_service(cluster)
    released = cluster.releases()
    uid = cluster.pod("finished")["metadata"]["uid"]  # type: ignore[index]
    folder = cluster.folder / "hardware" / "pods" / uid
    (folder / "message.json").write_text(json.dumps({"sha256": "ab", "records": 1}))
    cluster.start()
    ended = cluster.terminated("finished")
    assert (ended["exitCode"], json.loads(ended["message"])["sha256"]) == (0, "ab")
    assert cluster.releases() == released
    until(lambda: not folder.exists(), what="an empty folder")


def test_a_second_runner_refuses_to_work_in_the_same_folder(cluster: Cluster) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "local.hardware.runner", "--kubeconfig", str(cluster.kubeconfig)),
            *("--kbs-url", "https://127.0.0.1:1", "--kbs-ca", "x", "--data-dir", str(cluster.folder / "hardware")),
        ],
        capture_output=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert b"another runner" in done.stderr


def test_the_runners_role_reads_no_secrets(cluster: Cluster) -> None:
    for verb, what in (("get", "secrets"), ("create", "pods"), ("patch", "nodes"), ("list", "configmaps")):
        done = cluster.plane.kubectl("auth", "can-i", verb, what, "-A", user=cluster.kubeconfig, check=False)
        assert done.stdout.strip() == "no", f"{verb} {what}"
