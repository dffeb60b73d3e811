"""Reading a pod: is it ours, and what guest does it ask for. Pure functions over pod JSON."""

from __future__ import annotations

import base64
import binascii
import gzip
import io
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from crds.errors import InvalidInput
from keymgmt.attestation import AttestationRefused, host_data_of, init_data_digest

Pod = Mapping[str, Any]
RUNTIME_PREFIX = "kata-qemu-snp"
DEBUG_CLASS = "kata-qemu-snp-debug"
KERNEL_PARAMS = "io.katacontainers.config.hypervisor.kernel_params"
INIT_DATA = "io.katacontainers.config.hypervisor.cc_init_data"
EMULATED_NODE = "kwok.x-k8s.io/node"
KEY_VARIABLE = "KEKKAI_KEY"
INPUT_VARIABLE = "KEKKAI_SEALED_INPUT"
MAX_INIT_DATA = 1 << 18
ENDED = frozenset({"Succeeded", "Failed"})


@dataclass(frozen=True, slots=True)
class GuestSpec:
    """What a pod asks for. `config_maps`: volume name → (ConfigMap name, key → path in the volume or None)."""

    uid: str
    namespace: str
    name: str
    node: str
    resource: str
    input_volume: str
    input_path: PurePosixPath  # inside the volume
    config_map: str
    items: Mapping[str, str] | None
    kernel_params: str
    init_data: str | None  # TOML text
    host_data: bytes  # 32 bytes, the digest of the init data or zeros
    debug: bool
    deadline: float | None


def uid_of(pod: Pod) -> str:
    return str(pod["metadata"]["uid"])


def phase_of(pod: Pod) -> str:
    return str((pod.get("status") or {}).get("phase") or "Pending")


def wants_guest(pod: Pod) -> bool:
    """Whether the pod is bound and of a confidential runtime class."""
    spec = pod.get("spec") or {}
    return str(spec.get("runtimeClassName") or "").startswith(RUNTIME_PREFIX) and bool(spec.get("nodeName"))


def being_deleted(pod: Pod) -> bool:
    return bool(pod["metadata"].get("deletionTimestamp"))


def is_emulated(node: Mapping[str, Any]) -> bool:
    """Whether the node is one of those whose kubelet is emulated."""
    meta = node.get("metadata") or {}
    marks = {**(meta.get("labels") or {}), **(meta.get("annotations") or {})}
    return bool(marks.get(EMULATED_NODE) == "fake")


def restarts_in_place(pod: Pod, exit_code: int | None = None) -> bool:
    """Whether a container that ended so (None: was lost) is started again in the same pod."""
    policy = (pod.get("spec") or {}).get("restartPolicy", "Always")
    return policy == "Always" or (policy == "OnFailure" and exit_code != 0)


def guest_spec(pod: Pod) -> GuestSpec:
    """What guest to launch. Raises InvalidInput naming the field at fault."""
    meta, spec = pod["metadata"], pod["spec"]
    annotations = meta.get("annotations") or {}
    container = spec["containers"][0]
    environment = {entry["name"]: entry.get("value") for entry in container.get("env") or []}
    resource, path = environment.get(KEY_VARIABLE), environment.get(INPUT_VARIABLE)
    for name, value in ((KEY_VARIABLE, resource), (INPUT_VARIABLE, path)):
        if not value:
            raise InvalidInput(f"the variable {name} has no value", where="spec.containers[0].env")
    init_data = decode_init_data(annotations.get(INIT_DATA) or "")
    volume, inside = _mount_of(container, PurePosixPath(str(path)))
    config_map, items = _config_map(spec, volume)
    return GuestSpec(
        uid=uid_of(pod),
        namespace=meta["namespace"],
        name=meta["name"],
        node=spec["nodeName"],
        resource=str(resource),
        input_volume=volume,
        input_path=inside,
        config_map=config_map,
        items=items,
        kernel_params=str(annotations.get(KERNEL_PARAMS) or ""),
        init_data=init_data,
        host_data=_host_data(init_data),
        debug=spec["runtimeClassName"] == DEBUG_CLASS,
        deadline=spec.get("activeDeadlineSeconds"),
    )


def decode_init_data(annotation: str) -> str | None:
    """Kata's annotation: base64 of the TOML document, gzipped or not. Bounded. Raises InvalidInput."""
    if not annotation:
        return None
    try:
        data = base64.b64decode(annotation, validate=True)
        if data[:2] == b"\x1f\x8b":
            with gzip.GzipFile(fileobj=io.BytesIO(data)) as packed:
                data = packed.read(MAX_INIT_DATA + 1)
        if len(data) > MAX_INIT_DATA:
            raise InvalidInput(f"init data is longer than {MAX_INIT_DATA} bytes", where=f"annotation {INIT_DATA}")
        return data.decode()
    except (binascii.Error, ValueError, OSError, EOFError, zlib.error):
        raise InvalidInput("not base64 of a (gzipped) document", where=f"annotation {INIT_DATA}") from None


def _host_data(init_data: str | None) -> bytes:
    if init_data is None:
        return bytes(32)
    try:
        return host_data_of(init_data_digest(init_data))
    except AttestationRefused as error:
        raise InvalidInput(error.problem.what, where=f"annotation {INIT_DATA}") from None


def _mount_of(container: Mapping[str, Any], path: PurePosixPath) -> tuple[str, PurePosixPath]:
    """The volume that a path of the container lies in, and the rest of the path."""
    if ".." in path.parts:
        raise InvalidInput("the path of the sealed input contains ..", where=INPUT_VARIABLE)
    best: tuple[int, str, PurePosixPath] | None = None
    for mount in container.get("volumeMounts") or []:
        where = PurePosixPath(mount["mountPath"])
        if path.is_relative_to(where) and (best is None or len(where.parts) > best[0]):
            inside = PurePosixPath(mount.get("subPath") or "") / path.relative_to(where)
            best = (len(where.parts), mount["name"], inside)
    if best is None:
        raise InvalidInput(f"{path} lies in no mounted volume", where="spec.containers[0].volumeMounts")
    return best[1], best[2]


def _config_map(spec: Mapping[str, Any], volume: str) -> tuple[str, Mapping[str, str] | None]:
    for candidate in spec.get("volumes") or []:
        if candidate["name"] == volume and candidate.get("configMap"):
            source = candidate["configMap"]
            items = source.get("items")
            return source["name"], None if items is None else {item["key"]: item["path"] for item in items}
    raise InvalidInput(f"volume {volume} is not a ConfigMap", where="spec.volumes", fix="put the sealed input into one")
