"""One guest: an emulated SNP machine and the agent's process in it, with a folder of its own.

The folder (`pods/<uid>`) holds the mounted input, the init data, the report device and what
the guest left behind; it is how a runner that was killed knows afterwards whether the guest
had finished. The agent writes its message only once it is done, whole or not at all.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import shutil
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crds.errors import InvalidInput
from keymgmt.wrapping.hardening import die_with_parent
from local.hardware.runner.pod_spec import GuestSpec
from local.hardware.runner.pod_status import Outcome
from local.hardware.snp.launch import REPOSITORY
from local.hardware.snp.platform import SnpPlatform

MAX_CONFIG_MAP = 4 << 20
STOP_SECONDS = 5.0
TERMINATED = 143


@dataclass(frozen=True, slots=True)
class KeyServiceAddress:
    """Where guests find the key service, and how long they keep trying."""

    url: str
    ca_file: Path
    patience: float


class GuestFolder:
    """Paths of one pod's guest."""

    def __init__(self, pods: Path, uid: str) -> None:
        self.root = pods / uid
        self.volume = self.root / "volume"
        self.init_data = self.root / "init-data.toml"
        self.result = self.root / "result.json"
        self.message = self.root / "message.json"
        self.started = self.root / "started"
        self.log = self.root / "guest.log"
        self.device = self.root / "tsm"

    def remove(self) -> None:
        shutil.rmtree(self.root, ignore_errors=True)

    def begin(self, at: str) -> None:
        """Note that a guest starts, before it does, and forget what an earlier one left."""
        self.message.unlink(missing_ok=True)
        self.result.unlink(missing_ok=True)
        self.started.write_text(at)

    def outcome(self) -> Outcome | None:
        """How the guest ended if it got that far, by what it left behind."""
        try:
            text = self.message.read_text()
            document = json.loads(text)
        except (OSError, ValueError):
            return None
        code = int(document.get("exitCode", 0))
        return Outcome(code, "Completed" if code == 0 else "Error", text, self.start_time())

    def start_time(self) -> str:
        """When a guest was first started here, or an empty text if none ever was."""
        try:
            return self.started.read_text()
        except OSError:
            return ""


def mount(spec: GuestSpec, config_map: Mapping[str, Any], folder: GuestFolder) -> Path:
    """Write the ConfigMap volume and return the sealed input's path in it. Raises InvalidInput."""
    contents = {key: text.encode() for key, text in (config_map.get("data") or {}).items()}
    for key, text in (config_map.get("binaryData") or {}).items():
        contents[key] = base64.b64decode(text)
    if sum(map(len, contents.values())) > MAX_CONFIG_MAP:
        raise InvalidInput("the ConfigMap is too large", where=spec.config_map)
    paths = {key: key for key in contents} if spec.items is None else spec.items
    for key, path in paths.items():
        if key not in contents:
            raise InvalidInput(f"ConfigMap {spec.config_map} has no key {key}", where="spec.volumes")
        if Path(path).is_absolute() or ".." in Path(path).parts:
            raise InvalidInput(f"{path} leaves the volume", where="spec.volumes")
        target = folder.volume / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(contents[key])
    sealed = folder.volume / spec.input_path
    if not sealed.is_file():
        raise InvalidInput(f"ConfigMap {spec.config_map} has no file {spec.input_path}", where="spec.volumes")
    return sealed


async def run_guest(
    platform: SnpPlatform, keys: KeyServiceAddress, spec: GuestSpec, sealed: Path, folder: GuestFolder
) -> Outcome:
    """Launch the machine, run the agent to its end, power off. Cancelling kills the guest."""
    if spec.init_data is not None:
        folder.init_data.write_text(spec.init_data)
    machine = platform.launch(
        spec.node,
        folder.device,
        kernel_params=spec.kernel_params,
        host_data=spec.host_data,
        debug=spec.debug,
    )
    try:
        with folder.log.open("ab") as log:
            process = await _start(_arguments(keys, spec, sealed, folder), folder, log.fileno())
        try:
            async with asyncio.timeout(spec.deadline):
                code = await process.wait()
        except TimeoutError:
            await _stop(process)
            return Outcome(TERMINATED, "DeadlineExceeded", "", folder.start_time())
        except asyncio.CancelledError:
            await _stop(process)
            raise
    finally:
        await asyncio.to_thread(machine.close)
    return folder.outcome() or _unspoken(code, folder)


def _unspoken(code: int, folder: GuestFolder) -> Outcome:
    """The process ended without a message: killed, or never got to run."""
    status = 128 - code if code < 0 else code or 1
    tail = ""
    with contextlib.suppress(OSError):
        tail = folder.log.read_bytes()[-1024:].decode("utf-8", "replace")
    return Outcome(status, "Error", tail, folder.start_time())


def _arguments(keys: KeyServiceAddress, spec: GuestSpec, sealed: Path, folder: GuestFolder) -> list[str]:
    arguments = [
        *(sys.executable, "-m", "api.cli.guest", "run"),
        f"--kbs-url={keys.url}",
        f"--ca={keys.ca_file}",
        f"--resource={spec.resource}",
        f"--input={sealed}",
        f"--output={folder.result}",
        f"--deadline={keys.patience}",
        f"--termination-message={folder.message}",
    ]
    return arguments if spec.init_data is None else [*arguments, f"--init-data={folder.init_data}"]


async def _start(arguments: list[str], folder: GuestFolder, log: int) -> asyncio.subprocess.Process:
    """Nothing of the pod's environment reaches the agent: it is outside the measurement."""
    parent = os.getpid()
    return await asyncio.create_subprocess_exec(
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        cwd=REPOSITORY,
        env={"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "KEKKAI_TSM_ROOT": str(folder.device)},
        start_new_session=True,
        preexec_fn=lambda: die_with_parent(parent),
    )


async def _stop(process: asyncio.subprocess.Process) -> None:
    """SIGTERM to the guest's process group, SIGKILL if it lingers."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_SECONDS):
                await asyncio.shield(process.wait())
                return
