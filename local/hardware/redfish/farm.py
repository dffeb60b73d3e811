"""A `sushy-emulator` process that plays the controllers of many servers, each a ComputerSystem with a power state."""

from __future__ import annotations

import subprocess
import sys
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx

from crds.errors import KekkaiError

USERNAME, PASSWORD = "operator", "emulated"  # of an emulator on the loopback interface
_START = 60.0  # seconds


class FarmFault(KekkaiError):
    """The emulator did not start."""

    reason = "EmulatorFault"


class Farm:
    """`count` servers, off at first but for those `on`. Power changes take some seconds, as with real ones."""

    def __init__(self, folder: Path, port: int, count: int, on: Sequence[str] = ()) -> None:
        self.folder = folder
        self.address = f"http://127.0.0.1:{port}"
        self.names = [f"server-{number}" for number in range(count)]
        self._port = port
        self._on_at_first = frozenset(on)
        self._process: subprocess.Popen[bytes] | None = None
        self._http = httpx.Client(base_url=self.address, auth=(USERNAME, PASSWORD), timeout=20)

    def __enter__(self) -> Farm:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start the process and wait until it answers. Raises FarmFault."""
        self.folder.mkdir(parents=True, exist_ok=True)
        config = self.folder / "emulator.conf"
        config.write_text(self._config())
        with (self.folder / "emulator.log").open("ab") as log:
            command = [sys.executable, "-m", "sushy_tools.emulator.main", "--fake", "--config", str(config)]
            self._process = subprocess.Popen(
                [*command, "--interface", "127.0.0.1", "--port", str(self._port)], stdout=log, stderr=log
            )
        deadline = time.monotonic() + _START
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                break
            try:
                if self._http.get("/redfish/v1/").status_code == 200:
                    return
            except httpx.TransportError:
                time.sleep(0.1)
        self.stop()
        raise FarmFault("sushy-emulator did not start", where=str(self.folder / "emulator.log"))

    def stop(self) -> None:
        self._http.close()
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def inventory(self, address: str = "", names: Sequence[str] = ()) -> list[dict[str, str]]:
        """Hosts as a pool's `spec.provider.redfish.hosts` lists them; `address`: of a proxy before the emulator."""
        return [
            {"name": name, "address": address or self.address, "system": self.path(name)}
            for name in names or self.names
        ]

    def path(self, name: str) -> str:
        return f"/redfish/v1/Systems/{self.uuid(name)}"

    def uuid(self, name: str) -> str:
        """The system UUID of a server: the same in every farm."""
        return str(uuid.uuid5(uuid.NAMESPACE_DNS, f"{name}.farm.kekkai.dev"))

    def power(self, name: str) -> str:
        """On or Off, asked past every proxy."""
        return str(self.system(name)["PowerState"])

    def system(self, name: str) -> dict[str, Any]:
        """The whole ComputerSystem."""
        reply = self._http.get(self.path(name))
        reply.raise_for_status()
        found: dict[str, Any] = reply.json()
        return found

    def powered_on(self) -> set[str]:
        return {name for name in self.names if self.power(name) == "On"}

    def reset(self, name: str, kind: str) -> None:
        """Press its button: On, ForceOff."""
        where = f"{self.path(name)}/Actions/ComputerSystem.Reset"
        self._http.post(where, json={"ResetType": kind}).raise_for_status()

    def _config(self) -> str:
        import bcrypt

        users = self.folder / "users"
        users.write_text(f"{USERNAME}:{bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()}\n")
        systems = [
            {
                "uuid": self.uuid(name),
                "name": name,
                "power_state": "On" if name in self._on_at_first else "Off",
                "external_notifier": False,
                "nics": [{"mac": f"00:5c:52:00:{number // 256:02x}:{number % 256:02x}", "ip": "192.0.2.1"}],
            }
            for number, name in enumerate(self.names)
        ]
        settings = {
            "SUSHY_EMULATOR_AUTH_FILE": str(users),
            "SUSHY_EMULATOR_STATE_DIR": str(self.folder / "state"),
            "SUSHY_EMULATOR_FAKE_SYSTEMS": systems,
        }
        return "".join(f"{key} = {value!r}\n" for key, value in settings.items())
