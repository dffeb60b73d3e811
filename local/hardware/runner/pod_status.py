"""Pod statuses as a kubelet writes them. Pure functions: pod JSON and a time in, a status patch out."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from local.hardware.runner.pod_spec import Pod

MAX_MESSAGE = 4096  # the kubelet's bound on a termination message
LOST = 137


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a guest ended: exit status, Kubernetes reason, termination message, when it began."""

    exit_code: int
    reason: str
    message: str
    started: str


def timestamp(now: datetime) -> str:
    return now.strftime("%Y-%m-%dT%H:%M:%SZ")


def lost(started: str) -> Outcome:
    """The guest vanished together with the runner."""
    return Outcome(LOST, "ContainerStatusUnknown", "the emulated host restarted while the guest ran", started)


def waiting(pod: Pod, reason: str, message: str) -> dict[str, Any]:
    """The container cannot be created yet."""
    state = {"waiting": {"reason": reason, "message": message[:MAX_MESSAGE]}}
    return {"phase": "Pending", "containerStatuses": _containers(pod, state, ready=False, restarts=restarts_of(pod))}


def running(pod: Pod, node: Mapping[str, Any], now: datetime, restarts: int) -> dict[str, Any]:
    """The guest runs."""
    at = timestamp(now)
    status = {
        "phase": "Running",
        "startTime": (pod.get("status") or {}).get("startTime") or at,
        "podIP": _address(pod),
        "podIPs": [{"ip": _address(pod)}],
        "conditions": _conditions(at, ready=True),
        "containerStatuses": _containers(pod, {"running": {"startedAt": at}}, ready=True, restarts=restarts),
        "initContainerStatuses": _init_containers(pod, at),
    }
    host = _host_address(node)
    return {**status, "hostIP": host, "hostIPs": [{"ip": host}]} if host else status


def backing_off(pod: Pod, outcome: Outcome, now: datetime, restarts: int) -> dict[str, Any]:
    """The guest ended and will be started again after a pause."""
    waits = {"waiting": {"reason": "CrashLoopBackOff", "message": f"exit code {outcome.exit_code}"}}
    containers = _containers(pod, waits, ready=False, restarts=restarts)
    for container in containers:
        container["lastState"] = {"terminated": _terminated(outcome, timestamp(now))}
    return {
        "phase": "Running",
        "conditions": _conditions(timestamp(now), ready=False, reason="ContainersNotReady"),
        "containerStatuses": containers,
    }


def ended(pod: Pod, outcome: Outcome, now: datetime, restarts: int) -> dict[str, Any]:
    """The guest ended, and with it the pod."""
    at = timestamp(now)
    terminated = _terminated(outcome, at)
    success = outcome.exit_code == 0
    status: dict[str, Any] = {
        "phase": "Succeeded" if success else "Failed",
        "startTime": (pod.get("status") or {}).get("startTime") or outcome.started or at,
        "conditions": _conditions(at, ready=False, reason="PodCompleted" if success else "PodFailed"),
        "containerStatuses": _containers(pod, {"terminated": terminated}, ready=False, restarts=restarts),
    }
    if outcome.reason == "DeadlineExceeded":
        status |= {"reason": "DeadlineExceeded", "message": "Pod was active longer than its deadline"}
    return status


def restarts_of(pod: Pod) -> int:
    """How often the first container was restarted so far."""
    statuses = (pod.get("status") or {}).get("containerStatuses") or []
    return int(statuses[0].get("restartCount") or 0) if statuses else 0


def started_of(pod: Pod) -> str:
    """When the first container started by the pod's present status, or an empty text."""
    statuses = (pod.get("status") or {}).get("containerStatuses") or []
    state = (statuses[0].get("state") or {}) if statuses else {}
    return str((state.get("running") or {}).get("startedAt") or "")


def _terminated(outcome: Outcome, at: str) -> dict[str, Any]:
    return {
        "exitCode": outcome.exit_code,
        "reason": outcome.reason,
        "message": outcome.message[:MAX_MESSAGE],
        "startedAt": outcome.started or at,
        "finishedAt": at,
    }


def _containers(pod: Pod, state: Mapping[str, Any], *, ready: bool, restarts: int) -> list[dict[str, Any]]:
    """One status per container; only the first speaks, the others share its fate."""
    found = []
    for index, container in enumerate(pod["spec"]["containers"]):
        own = dict(state)
        if index and "terminated" in own:
            own["terminated"] = {**own["terminated"], "message": ""}
        found.append(
            {
                "name": container["name"],
                "image": container.get("image", ""),
                "imageID": "",
                "containerID": f"emulated://{pod['metadata']['uid']}-{index}",
                "ready": ready,
                "started": ready,
                "restartCount": restarts,
                "state": own,
            }
        )
    return found


def _init_containers(pod: Pod, at: str) -> list[dict[str, Any]]:
    done = {"terminated": {"exitCode": 0, "reason": "Completed", "startedAt": at, "finishedAt": at}}
    return [
        {
            "name": container["name"],
            "image": container.get("image", ""),
            "imageID": "",
            "ready": True,
            "restartCount": 0,
            "state": done,
        }
        for container in pod["spec"].get("initContainers") or []
    ]


def _conditions(at: str, *, ready: bool, reason: str = "") -> list[dict[str, Any]]:
    states = {"Initialized": True, "PodReadyToStartContainers": ready, "ContainersReady": ready, "Ready": ready}
    found = []
    for kind, state in states.items():
        condition: dict[str, Any] = {"type": kind, "status": str(state), "lastTransitionTime": at}
        if not state and reason:
            condition["reason"] = reason
        found.append(condition)
    return found


def _address(pod: Pod) -> str:
    """An address of 10.200.0.0/16 that depends on the pod only."""
    digest = hashlib.sha256(str(pod["metadata"]["uid"]).encode()).digest()
    return f"10.200.{digest[0]}.{digest[1] % 254 + 1}"


def _host_address(node: Mapping[str, Any]) -> str:
    for address in (node.get("status") or {}).get("addresses") or []:
        if address.get("type") == "InternalIP":
            return str(address["address"])
    return ""
