"""Pods in, guest specifications and statuses out: the runner's pure parts."""

from __future__ import annotations

import base64
import copy
import gzip
import json
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from crds.errors import InvalidInput
from keymgmt.attestation import host_data_of, init_data_digest
from local.hardware.runner import pod_status
from local.hardware.runner.guest import GuestFolder, mount
from local.hardware.runner.pod_spec import (
    KERNEL_PARAMS,
    decode_init_data,
    guest_spec,
    is_emulated,
    restarts_in_place,
    wants_guest,
)
from local.hardware.runner.pod_status import Outcome

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
TOML = 'version = "0.1.0"\nalgorithm = "sha384"\n[data]\n'
INIT_DATA = "io.katacontainers.config.hypervisor.cc_init_data"


def pod(**changes: Any) -> dict[str, Any]:
    spec: dict[str, Any] = {
        "restartPolicy": "Never",
        "runtimeClassName": "kata-qemu-snp",
        "nodeName": "node-1",
        "containers": [
            {
                "name": "train",
                "image": "registry.example/train:1",
                "env": [
                    {"name": "KEKKAI_KEY", "value": "team-a/key/dataset"},
                    {"name": "KEKKAI_SEALED_INPUT", "value": "/data/sealed/set.sealed"},
                ],
                "volumeMounts": [
                    {"name": "outer", "mountPath": "/data"},
                    {"name": "sealed", "mountPath": "/data/sealed"},
                ],
            },
            {"name": "side", "image": "registry.example/side:1"},
        ],
        "volumes": [{"name": "outer", "emptyDir": {}}, {"name": "sealed", "configMap": {"name": "dataset"}}],
        **changes,
    }
    metadata = {"name": "p", "namespace": "team-a", "uid": "u-1", "annotations": {}}
    return {"metadata": metadata, "spec": spec, "status": {"phase": "Pending"}}


def test_guest_spec() -> None:
    spec = guest_spec(pod())
    assert (spec.resource, spec.config_map, spec.input_path) == (
        "team-a/key/dataset",
        "dataset",
        PurePosixPath("set.sealed"),
    )
    assert (spec.debug, spec.kernel_params, spec.init_data, spec.host_data) == (False, "", None, bytes(32))
    assert guest_spec(pod(runtimeClassName="kata-qemu-snp-debug")).debug


@pytest.mark.parametrize("pack", [lambda data: data, gzip.compress])
def test_annotations_reach_the_launch(pack: Any) -> None:
    asked = pod()
    asked["metadata"]["annotations"] = {
        KERNEL_PARAMS: "quiet",
        INIT_DATA: base64.b64encode(pack(TOML.encode())).decode(),
    }
    spec = guest_spec(asked)
    assert spec.kernel_params == "quiet"
    assert spec.init_data == TOML
    assert spec.host_data == host_data_of(init_data_digest(TOML))


@pytest.mark.parametrize(
    "annotation",
    [
        "not base64!",
        base64.b64encode(b"\xff\xfe").decode(),
        base64.b64encode(b"\x1f\x8bxx").decode(),
        base64.b64encode(gzip.compress(bytes(1 << 20))).decode(),  # a small bomb
        base64.b64encode(b"x" * (1 << 19)).decode(),
    ],
)
def test_malformed_init_data(annotation: str) -> None:
    with pytest.raises(InvalidInput):
        decode_init_data(annotation)


def test_init_data_without_a_known_hash_names_the_annotation() -> None:
    asked = pod()
    asked["metadata"]["annotations"] = {INIT_DATA: base64.b64encode(b'algorithm = "md5"').decode()}
    with pytest.raises(InvalidInput) as caught:
        guest_spec(asked)
    assert INIT_DATA in caught.value.problem.where


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("/data/sealed/../../etc/passwd", None),
        ("/elsewhere/set.sealed", None),
        ("/data/other", None),  # lies in a volume that is no ConfigMap
        ("", None),
    ],
)
def test_unusable_inputs(path: str, value: None) -> None:
    asked = pod()
    asked["spec"]["containers"][0]["env"][1]["value"] = path or value
    with pytest.raises(InvalidInput):
        guest_spec(asked)


def test_which_pods_and_nodes_are_ours() -> None:
    assert wants_guest(pod())
    assert not wants_guest(pod(nodeName=None))
    assert not wants_guest(pod(runtimeClassName="runc"))
    assert not wants_guest(pod(runtimeClassName=None))
    assert is_emulated({"metadata": {"annotations": {"kwok.x-k8s.io/node": "fake"}}})
    assert is_emulated({"metadata": {"labels": {"kwok.x-k8s.io/node": "fake"}}})
    assert not is_emulated({"metadata": {"labels": {}}})


@pytest.mark.parametrize(
    ("policy", "code", "again"),
    [
        ("Never", 3, False),
        ("Never", None, False),
        ("OnFailure", 3, True),
        ("OnFailure", 0, False),
        ("OnFailure", None, True),
        ("Always", 0, True),
    ],
)
def test_restart_policies(policy: str, code: int | None, again: bool) -> None:
    assert restarts_in_place(pod(restartPolicy=policy), code) is again


def folder(tmp_path: Path) -> GuestFolder:
    found = GuestFolder(tmp_path, "u-1")
    found.root.mkdir()
    return found


def test_volumes(tmp_path: Path) -> None:
    config_map = {"data": {"note": "x"}, "binaryData": {"set.sealed": base64.b64encode(b"\0\1").decode()}}
    path = mount(guest_spec(pod()), config_map, folder(tmp_path))
    assert path.read_bytes() == b"\0\1"


def test_volume_items_and_their_bounds(tmp_path: Path) -> None:
    config_map = {"binaryData": {"blob": base64.b64encode(b"\0").decode()}}

    def asked(items: list[dict[str, str]]) -> dict[str, Any]:
        source = {"name": "dataset", "items": items}
        return pod(volumes=[{"name": "sealed", "configMap": source}])

    good = guest_spec(asked([{"key": "blob", "path": "set.sealed"}]))
    where = folder(tmp_path)
    assert mount(good, config_map, where).read_bytes() == b"\0"
    for items in (
        [{"key": "absent", "path": "set.sealed"}],
        [{"key": "blob", "path": "../../escape"}],
        [{"key": "blob", "path": "/etc/escape"}],
        [{"key": "blob", "path": "elsewhere"}],
    ):
        where.remove()
        where.root.mkdir()
        with pytest.raises(InvalidInput):
            mount(guest_spec(asked(items)), config_map, where)
    assert not (tmp_path / "escape").exists()


def test_statuses() -> None:
    asked = pod(initContainers=[{"name": "init", "image": "i"}])
    node = {"status": {"addresses": [{"type": "InternalIP", "address": "10.0.0.9"}]}}
    running = pod_status.running(asked, node, NOW, 2)
    assert running["phase"] == "Running"
    assert running["hostIP"] == "10.0.0.9"
    assert [one["restartCount"] for one in running["containerStatuses"]] == [2, 2]
    assert running["initContainerStatuses"][0]["state"]["terminated"]["exitCode"] == 0
    asked["status"] = running
    outcome = Outcome(3, "Error", "m" * 5000, "2026-11-24T11:59:00Z")
    ended = pod_status.ended(asked, outcome, NOW, 2)
    first, second = (one["state"]["terminated"] for one in ended["containerStatuses"])
    assert (ended["phase"], first["exitCode"], len(first["message"]), second["message"]) == ("Failed", 3, 4096, "")
    assert first["startedAt"] == "2026-11-24T11:59:00Z"
    assert ended["startTime"] == "2026-11-24T12:00:00Z"
    backing = pod_status.backing_off(asked, outcome, NOW, 2)
    assert backing["phase"] == "Running"
    assert backing["containerStatuses"][0]["state"]["waiting"]["reason"] == "CrashLoopBackOff"
    assert backing["containerStatuses"][0]["lastState"]["terminated"]["exitCode"] == 3
    late = pod_status.ended(asked, Outcome(143, "DeadlineExceeded", "", ""), NOW, 0)
    assert (late["phase"], late["reason"]) == ("Failed", "DeadlineExceeded")
    assert pod_status.started_of(asked) == "2026-11-24T12:00:00Z"
    json.dumps([running, ended, backing, late])


def test_statuses_do_not_change_the_pod() -> None:
    asked = pod()
    before = copy.deepcopy(asked)
    pod_status.ended(asked, pod_status.lost(""), NOW, 0)
    pod_status.waiting(asked, "ContainerCreating", "x")
    assert asked == before


def test_what_a_guest_left_behind(tmp_path: Path) -> None:
    where = folder(tmp_path)
    assert where.outcome() is None
    where.begin("2026-11-24T12:00:00Z")
    assert where.outcome() is None
    where.message.write_text('{"sha256": "ab"}')
    assert where.outcome() == Outcome(0, "Completed", '{"sha256": "ab"}', "2026-11-24T12:00:00Z")
    where.message.write_text('{"error": {"reason": "PolicyDeny"}, "exitCode": 3}')
    found = where.outcome()
    assert found is not None
    assert (found.exit_code, found.reason) == (3, "Error")
    where.begin("2026-11-24T12:01:00Z")  # a new start forgets the old outcome
    assert where.outcome() is None
