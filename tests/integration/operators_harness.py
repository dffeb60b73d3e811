"""Runs the real operators as a process against the control plane of the tests, and makes objects for them."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import yaml

from crds.labels import OPERATOR_USER
from local.controlplane import ControlPlane

T = TypeVar("T")
API = "kekkai.dev/v1alpha1"


class Operators:
    """`python -m operators` under the operator's own identity; may be killed and started again."""

    def __init__(self, plane: ControlPlane, log: Path) -> None:
        groups = ("system:serviceaccounts", "system:serviceaccounts:kekkai-system")
        self._kubeconfig = plane.kubeconfig_for(OPERATOR_USER, groups)
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log.open("ab") as log:
            command = [sys.executable, "-m", "operators", f"--kubeconfig={self._kubeconfig}"]
            self._process = subprocess.Popen(command, stdout=log, stderr=log)

    def kill(self) -> None:
        """SIGKILL: nothing is tidied up."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        assert self._process is not None
        self._process.terminate()
        return self._process.wait(20)

    def log(self) -> str:
        return self._log.read_text()


def until(what: str, read: Callable[[], T | None], seconds: float = 90.0, state: Callable[[], str] = lambda: "") -> T:
    """Poll until `read` gives something true; fails with `what` and the `state` after the deadline."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = read()
        if found:
            return found
        time.sleep(0.2)
    raise AssertionError(f"not within {seconds:.0f} s: {what}\n{state()}")


class World:
    """kubectl with a few words for what these tests do."""

    def __init__(self, plane: ControlPlane) -> None:
        self.plane = plane

    def apply(self, *objects: dict[str, Any]) -> None:
        self.plane.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(objects))

    def get(self, kind: str, name: str, namespace: str = "") -> dict[str, Any] | None:
        where = ["-n", namespace] if namespace else []
        done = self.plane.kubectl("get", kind, name, *where, "-o", "json", check=False)
        found: dict[str, Any] | None = json.loads(done.stdout) if done.returncode == 0 else None
        return found

    def list(self, kind: str, namespace: str = "", selector: str = "") -> list[dict[str, Any]]:
        where = ["-n", namespace] if namespace else []
        what = ["-l", selector] if selector else []
        items: list[dict[str, Any]] = json.loads(self.plane.kubectl("get", kind, *where, *what, "-o", "json").stdout)[
            "items"
        ]
        # The control plane is shared: nodes that other tests made by hand belong to no pool.
        ours = "kekkai.dev/pool"
        return [one for one in items if kind != "node" or ours in (one["metadata"].get("labels") or {})]

    def delete(self, kind: str, name: str, namespace: str = "", wait: bool = False) -> None:
        where = ["-n", namespace] if namespace else []
        self.plane.kubectl("delete", kind, name, *where, f"--wait={str(wait).lower()}", "--ignore-not-found")

    def describe(self, namespace: str) -> str:
        """What there is, for the message of a test that fails."""
        mine = self.plane.kubectl("get", "kwl,jobs,pods", "-n", namespace, "-o", "yaml", check=False).stdout
        return mine + self.plane.kubectl("get", "machines,nodes,acceleratorpools", "-o", "yaml", check=False).stdout

    def tenant_with_namespace(self, name: str, accelerator: str, devices: int) -> str:
        """Make a Tenant and wait until its one namespace takes pods."""
        quota = [{"accelerator": accelerator, "nominal": devices}]
        spec = {"owners": [{"kind": "User", "name": name}], "namespaces": [{"name": name}], "quota": quota}
        self.apply({"apiVersion": API, "kind": "Tenant", "metadata": {"name": name}, "spec": spec})
        until(f"namespace {name} is ready", lambda: _ready(self.get("namespace", name)))
        return name

    def workload_of(self, namespace: str, job: str) -> dict[str, Any] | None:
        found = [one for one in self.list("kwl", namespace) if one["spec"].get("ref", {}).get("name") == job]
        assert len(found) < 2, "a Job has one shadow"
        return found[0] if found else None


def _ready(namespace: dict[str, Any] | None) -> bool:
    return namespace is not None and namespace["metadata"].get("labels", {}).get("kekkai.dev/ready") == "true"


def condition(obj: dict[str, Any] | None, kind: str) -> dict[str, Any]:
    """The condition, or an empty one."""
    found = ((obj or {}).get("status") or {}).get("conditions") or []
    return next((one for one in found if one["type"] == kind), {})


def holds(obj: dict[str, Any] | None, kind: str) -> bool:
    return condition(obj, kind).get("status") == "True"


def site(name: str = "tokyo") -> dict[str, Any]:
    return {"apiVersion": API, "kind": "Site", "metadata": {"name": name}, "spec": {"jurisdiction": "JP"}}


def pool(name: str, accelerator: str, minimum: int = 0, maximum: int = 4, delay: int = 2) -> dict[str, Any]:
    return {
        "apiVersion": API,
        "kind": "AcceleratorPool",
        "metadata": {"name": name},
        "spec": {
            "site": "tokyo",
            "accelerator": {"type": accelerator, "perNode": 8},
            "interconnect": {"nodesPerRack": 2},
            "scaling": {"min": minimum, "max": maximum, "scaleDownDelaySeconds": delay},
            "provider": {"kwok": {"bootSeconds": 0}},
        },
    }


def pod_template(accelerator: str, devices: int, run_seconds: int) -> dict[str, Any]:
    container = {
        "name": "work",
        "image": "registry.example/work:1",
        "imagePullPolicy": "Always",
        "resources": {"limits": {"nvidia.com/gpu": str(devices), "cpu": "1", "memory": "1Gi"}},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    return {
        "metadata": {"annotations": {"kekkai.dev/emulated-run-seconds": str(run_seconds)}},
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "nodeSelector": {"kekkai.dev/accelerator": accelerator},
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 65532,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [container],
        },
    }


def job(
    name: str, namespace: str, accelerator: str, pods: int = 1, devices: int = 8, run_seconds: int = 1
) -> dict[str, Any]:
    spec = {
        "parallelism": pods,
        "completions": pods,
        "completionMode": "Indexed",
        "template": pod_template(accelerator, devices, run_seconds),
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    }
