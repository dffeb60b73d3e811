"""Evidence from the kernel: Linux's configfs-tsm report interface.

Source: Documentation/ABI/testing/configfs-tsm-report. A directory is made under
/sys/kernel/config/tsm/report; writing 64 bytes to `inblob` asks for a report over them;
`outblob` holds the report, `auxblob` the certificate table of the host, `provider` the kind of
TEE; `generation` counts the writes, which shows whether anyone else wrote in between.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from keymgmt.guest.errors import EvidenceUnavailable

DEFAULT_ROOT: Final = Path("/sys/kernel/config/tsm/report")
ROOT_VARIABLE: Final = "KEKKAI_TSM_ROOT"
REPORT_DATA_BYTES: Final = 64
MAX_BLOB: Final = 64 * 1024
WAIT_SECONDS: Final = 10.0
_ENTRY: Final = struct.Struct("<16sII")
# GHCB specification, SNP_GUEST_REQUEST extended: the certificate table's GUIDs.
_KINDS: Final = {
    bytes.fromhex("63da758de6644564adc5f4b93be8accd"): "VCEK",
    bytes.fromhex("a8074bc2a25a483eaae639c045a0b8a1"): "VLEK",
    bytes.fromhex("4ab7b379bbac4fe4a02f05aef327c782"): "ASK",
    bytes.fromhex("c0b406a4a803495297433fb6014cd0ae"): "ARK",
}


@dataclass(frozen=True, slots=True)
class TsmReport:
    """What the device gave: the TEE's name as the KBS protocol spells it, the report, certificates."""

    tee: str
    report: bytes
    certificates: tuple[tuple[str, bytes], ...]  # (kind, DER)


class TsmDevice:
    """One guest's report device. `root` defaults to the environment's, then to the kernel's."""

    def __init__(self, root: Path | None = None) -> None:
        self._root = root or Path(os.environ.get(ROOT_VARIABLE, "") or DEFAULT_ROOT)

    def report(self, report_data: bytes) -> TsmReport:
        """A fresh report over `report_data` (at most 64 bytes, padded with zeros).

        Raises EvidenceUnavailable, also when another writer came in between.
        """
        wanted = report_data.ljust(REPORT_DATA_BYTES, b"\0")
        entry = self._root / f"kekkai-{os.getpid()}-{secrets.token_hex(4)}"
        try:
            entry.mkdir(mode=0o700)
        except OSError as error:
            raise EvidenceUnavailable(
                f"no evidence device: {error.strerror}",
                where=str(self._root),
                fix="run inside a confidential guest whose kernel has CONFIG_TSM_REPORTS",
            ) from None
        try:
            return self._ask(entry, wanted)
        except OSError as error:
            raise EvidenceUnavailable(f"the evidence device failed: {error.strerror}", where=str(entry)) from None
        finally:
            with contextlib.suppress(OSError):
                entry.rmdir()

    def _ask(self, entry: Path, wanted: bytes) -> TsmReport:
        _until(lambda: (entry / "generation").exists() and (entry / "inblob").exists(), entry)
        provider = (entry / "provider").read_text().strip()
        if provider != "sev_guest":
            raise EvidenceUnavailable(f"provider {provider[:32]!r} is not known", where=str(entry))
        before = _generation(entry)
        (entry / "inblob").write_bytes(wanted)
        # The kernel counts at once; any other implementation may take a moment.
        _until(lambda: _generation(entry) > before, entry)
        asked = _generation(entry)
        report, table = _blob(entry / "outblob"), _blob(entry / "auxblob")
        if _generation(entry) != asked or asked != before + 1:
            raise EvidenceUnavailable("another process wrote to the same report entry", where=str(entry))
        if report[0x50:0x90] != wanted:
            raise EvidenceUnavailable("the report is not over the data that was given", where=str(entry))
        return TsmReport("snp", report, tuple(parse_certificate_table(table)))


def parse_certificate_table(table: bytes) -> list[tuple[str, bytes]]:
    """Read the host's table: entries of GUID, offset, length, ended by a zero GUID; bounded."""
    found: list[tuple[str, bytes]] = []
    for position in range(0, min(len(table), 32 * _ENTRY.size) - _ENTRY.size + 1, _ENTRY.size):
        guid, offset, length = _ENTRY.unpack_from(table, position)
        if not any(guid):
            return found
        if offset + length > len(table):
            raise EvidenceUnavailable("the certificate table points outside itself", where="auxblob")
        if guid in _KINDS and length:
            found.append((_KINDS[guid], table[offset : offset + length]))
    if table:
        raise EvidenceUnavailable("the certificate table has no end", where="auxblob")
    return found


def write_certificate_table(certificates: list[tuple[str, bytes]]) -> bytes:
    """The inverse of `parse_certificate_table`."""
    guids = {kind: guid for guid, kind in _KINDS.items()}
    head, body = b"", b""
    start = (len(certificates) + 1) * _ENTRY.size
    for kind, data in certificates:
        head += _ENTRY.pack(guids[kind], start + len(body), len(data))
        body += data
    return head + bytes(_ENTRY.size) + body


def _generation(entry: Path) -> int:
    try:
        return int((entry / "generation").read_text())
    except ValueError:
        return -1


def _blob(path: Path) -> bytes:
    with path.open("rb") as stream:
        data = stream.read(MAX_BLOB + 1)
    if len(data) > MAX_BLOB:
        raise EvidenceUnavailable(f"more than {MAX_BLOB} bytes", where=str(path))
    return data


def _until(condition: Callable[[], bool], entry: Path) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise EvidenceUnavailable("the evidence device does not answer", where=str(entry))
        time.sleep(0.002)
