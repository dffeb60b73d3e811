"""The guest's report device: a folder that behaves as configfs-tsm does.

A folder made in it gets `provider`, `generation`, `inblob`, `outblob`, `auxblob`; writing
`inblob` makes a report over it, and counts `generation` up once the report lies there. What
the report says of the guest is fixed at launch by the (emulated) hypervisor; the guest adds
its 64 bytes. Ordinary files cannot run code when read, so a report appears some milliseconds
after the write, which `generation` tells.
"""

from __future__ import annotations

import logging
import os
import shutil
import threading
from dataclasses import replace
from pathlib import Path

from keymgmt.guest.tsm import REPORT_DATA_BYTES, write_certificate_table
from local.hardware.snp.chip import Chip
from local.hardware.snp.inotify import CLOSE_WRITE, CREATE, ISDIR, Watch
from local.hardware.snp.report import ReportFields, sign_report

logger = logging.getLogger(__name__)
MAX_ENTRIES = 64


class GuestDevice:
    """Serves one guest's folder in a thread until closed. Use as a context manager."""

    def __init__(self, root: Path, chip: Chip, launched: ReportFields, chain: list[tuple[str, bytes]]) -> None:
        self.root = root
        self._chip, self._launched = chip, launched
        self._certificates = write_certificate_table([("VCEK", chip.vcek), *chain])
        self._generations: dict[Path, int] = {}
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._staging = root.with_name(f".{root.name}.staging")
        self._staging.mkdir(exist_ok=True, mode=0o700)
        self._watch = Watch()
        self._watch.add(root, CREATE)
        self._thread = threading.Thread(target=self._serve, name=f"snp-device-{root.name}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Power off: no more reports; the folder goes away."""
        self._watch.close()
        self._thread.join()
        shutil.rmtree(self.root, ignore_errors=True)
        shutil.rmtree(self._staging, ignore_errors=True)

    def __enter__(self) -> GuestDevice:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def report(self, report_data: bytes) -> bytes:
        """A signed report over 64 bytes."""
        return sign_report(replace(self._launched, report_data=report_data), self._chip.key)

    def _serve(self) -> None:
        for path, mask in self._watch.events():
            try:
                if path.parent == self.root:
                    if mask & ISDIR and len(self._generations) < MAX_ENTRIES:
                        self._create(path)
                elif path.name == "inblob":
                    self._answer(path.parent)
            except FileNotFoundError:
                self._generations.pop(path.parent, None)  # the guest removed the entry meanwhile
            except OSError:
                logger.exception("the emulated report device failed")

    def _create(self, entry: Path) -> None:
        self._generations[entry] = 0
        self._put(entry, "provider", b"sev_guest\n")
        self._put(entry, "outblob", b"")
        self._put(entry, "auxblob", b"")
        self._put(entry, "inblob", b"")
        self._watch.add(entry, CLOSE_WRITE)
        self._put(entry, "generation", b"0\n")  # last: from here on the guest may write

    def _answer(self, entry: Path) -> None:
        data = (entry / "inblob").read_bytes()
        if len(data) != REPORT_DATA_BYTES:
            return
        self._put(entry, "outblob", self.report(data))
        self._put(entry, "auxblob", self._certificates)
        self._generations[entry] += 1
        self._put(entry, "generation", f"{self._generations[entry]}\n".encode())

    def _put(self, entry: Path, name: str, data: bytes) -> None:
        staged = self._staging / f"{entry.name}.{name}"
        staged.write_bytes(data)
        os.replace(staged, entry / name)
