"""The emulated hosts: chips under one vendor, and guests launched on them by the hypervisor.

The hypervisor (here: the runner) chooses measurement input, guest policy and HOST_DATA; the
guest chooses nothing but REPORT_DATA.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import threading
from pathlib import Path

from local.hardware.snp.authority import Authority
from local.hardware.snp.chip import Chip
from local.hardware.snp.device import GuestDevice
from local.hardware.snp.launch import launch_measurement
from local.hardware.snp.report import DEFAULT_POLICY, POLICY_DEBUG, ReportFields

TRUST_ROOT = "trust-root"  # under the data folder: what a key service must be told to trust it


class SnpPlatform:
    """All emulated hosts of one data folder. Keys are made on the first use and kept there."""

    def __init__(self, data_dir: Path) -> None:
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.data_dir = data_dir
        self.authority = Authority.load_or_create(data_dir / "authority")
        self.trust_root = self.authority.export_trust_root(data_dir / TRUST_ROOT)
        self._seed = _seed(data_dir / "chip-seed")
        self._chips: dict[str, Chip] = {}
        self._lock = threading.Lock()

    def chip(self, host: str) -> Chip:
        """The chip of a host, by the host's name."""
        with self._lock:
            if host not in self._chips:
                self._chips[host] = Chip.manufacture(self._seed, host, self.authority)
            return self._chips[host]

    def launch(
        self,
        host: str,
        root: Path,
        *,
        kernel_params: str = "",
        host_data: bytes = bytes(32),
        debug: bool = False,
        vmpl: int = 0,
    ) -> GuestDevice:
        """Launch a guest on `host` whose report device is the folder `root`. Close it to power off."""
        chip = self.chip(host)
        fields = ReportFields(
            report_data=bytes(64),
            measurement=launch_measurement(kernel_params),
            host_data=host_data,
            policy=DEFAULT_POLICY | (POLICY_DEBUG if debug else 0),
            vmpl=vmpl,
            product=self.authority.product,
            tcb=chip.tcb,
            chip_id=chip.chip_id,
            report_id=secrets.token_bytes(32),
        )
        return GuestDevice(root, chip, fields, [("ASK", self.authority.ask.der), ("ARK", self.authority.ark.der)])


def _seed(path: Path) -> bytes:
    """The secret all chips derive from; made once, even if two processes start together."""
    if not path.exists():
        fresh = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        fresh.touch(mode=0o600)
        fresh.write_bytes(secrets.token_bytes(32))
        with contextlib.suppress(FileExistsError):
            os.link(fresh, path)
        fresh.unlink()
    return path.read_bytes()
