"""The launch measurement: what the firmware measures while a guest's memory is loaded.

AMD 56860, SNP_LAUNCH_UPDATE: the launch digest starts at zero and each page replaces it by
SHA-384 of a PAGE_INFO structure that holds the digest so far and the page's contents. Loaded
here: an emulated firmware and kernel, the kernel's command line, and the real code of the
guest agent, so that a changed agent or command line is another measurement.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

PAGE_BYTES = 4096
PAGE_TYPE_NORMAL = 1
BASE_COMMAND_LINE = "console=hvc0 panic=1 systemd.unit=kata-containers.target agent.kbs=1"
# Packages whose source is the guest's code, relative to the repository: the agent, what it
# imports of ours, and its command line. A test holds this against what a run really loads.
AGENT_SOURCES = (
    "api/__init__.py",
    "api/cli/__init__.py",
    "api/cli/guest.py",
    "crds/__init__.py",
    "crds/errors.py",
    "keymgmt/__init__.py",
    "keymgmt/strict_json.py",
    "keymgmt/attestation",
    "keymgmt/guest",
    "keymgmt/wrapping/__init__.py",
    "keymgmt/wrapping/hardening.py",
    "keymgmt/wrapping/jwe.py",
    "keymgmt/wrapping/recipients.py",
)
REPOSITORY = Path(__file__).resolve().parents[3]
_PAGE_INFO = struct.Struct("<48s48sHBBIQ")


def launch_measurement(kernel_params: str = "", *, repository: Path = REPOSITORY) -> bytes:
    """The 48-byte digest of a guest launched with `kernel_params` added to its command line."""
    digest, address = _measured_image(repository, _stamp(repository))
    line = f"{BASE_COMMAND_LINE} {kernel_params}".strip()
    return _load(digest, address, [line.encode() + b"\0"])[0]


def agent_files(repository: Path = REPOSITORY) -> list[Path]:
    """The agent's source files in a fixed order."""
    found: list[Path] = []
    for name in AGENT_SOURCES:
        path = repository / name
        found.extend(sorted(path.rglob("*.py")) if path.is_dir() else [path])
    return found


def _stamp(repository: Path) -> tuple[tuple[str, int, int], ...]:
    """Changes whenever a source changes, so that the digest may be remembered."""
    stats = ((path, path.stat()) for path in agent_files(repository))
    return tuple((str(path), stat.st_mtime_ns, stat.st_size) for path, stat in stats)


@lru_cache(maxsize=4)
def _measured_image(repository: Path, stamp: tuple[tuple[str, int, int], ...]) -> tuple[bytes, int]:
    sources = []
    for path in agent_files(repository):
        name, data = str(path.relative_to(repository)).encode(), path.read_bytes()
        sources.append(struct.pack(">I", len(name)) + name + struct.pack(">Q", len(data)) + data)
    firmware = hashlib.shake_256(b"kekkai emulated firmware 1").digest(16 * PAGE_BYTES)
    kernel = hashlib.shake_256(b"kekkai emulated kernel 1").digest(16 * PAGE_BYTES)
    return _load(bytes(48), 0, [firmware, kernel, b"".join(sources)])


def _load(digest: bytes, address: int, blobs: Iterable[bytes]) -> tuple[bytes, int]:
    """SNP_LAUNCH_UPDATE for each page of each blob; returns the digest and the next address."""
    for blob in blobs:
        for start in range(0, len(blob), PAGE_BYTES):
            page = blob[start : start + PAGE_BYTES].ljust(PAGE_BYTES, b"\0")
            contents = hashlib.sha384(page).digest()
            info = _PAGE_INFO.pack(digest, contents, _PAGE_INFO.size, PAGE_TYPE_NORMAL, 0, 0, address)
            digest = hashlib.sha384(info).digest()
            address += PAGE_BYTES
    return digest, address
