"""What was booted, out of an event log whose replay gave the measured registers.

Digests are proven by the replay. Text is proven only where a digest covers it; what merely
labels an event ("Linux initrd") is the log's word, and the log is written by what booted.
So `others` lists every event that is not accounted for here: a rule that trusts a label
must also demand that nothing else was extended that it does not know. Secure Boot and its keys
are believed only in a register that firmware alone extends until its separator, and before
that, which is known by its digest: what runs later can extend and log what it likes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from keymgmt.attestation.eventlog import event_types as kinds
from keymgmt.attestation.eventlog.details import EfiVariable, ipl_text, parse_image_path, parse_tagged, parse_variable
from keymgmt.attestation.eventlog.log import Event, EventLog
from keymgmt.attestation.refusal import AttestationRefused, refuse

_GLOBAL_VARIABLE: Final = bytes.fromhex("61dfe48bca93d211aa0d00e098032b8c")  # EFI_GLOBAL_VARIABLE
_SEPARATORS: Final = (bytes(4), b"\xff" * 4, b"\x01\0\0\0")  # the last one says that an error occurred
_FIRMWARE_REGISTERS: Final = frozenset({1, 7})  # of CCEL RTMR0; of a TPM PCR 1 and, for Secure Boot, PCR 7
_KEY_DATABASES: Final = {"PK", "KEK", "db", "dbx"}
_STUB_SECTIONS: Final = {"linux": "kernel", "cmdline": "kernel_cmdline", "initrd": "initrd"}
_TAGS: Final = {"LOADED_IMAGE::LoadOptions": "kernel_cmdline", "Linux initrd": "initrd"}
_GRUB_PREFIXES: Final = {
    "kernel_cmdline": "kernel_cmdline",
    "grub_cmd": "grub_cmd",
    "grub_kernel_cmdline": "kernel_cmdline",
}


@dataclass(frozen=True, slots=True)
class Measured:
    """One measured thing: its digest and, where a digest covers it or the log states it, its name."""

    digest: bytes
    text: str = ""

    def as_dict(self) -> dict[str, str]:
        return {"digest": self.digest.hex(), "text": self.text}


@dataclass(frozen=True, slots=True)
class BootClaims:
    """What a log says of a boot. Lists are in the order of measurement.

    `secure_boot` is None when no event proves it. `loaders` are images that firmware started,
    with the device path that the log states. `kernel_cmdline` texts are proven, and empty
    where the log holds the digest only.
    """

    algorithm: str
    secure_boot: bool | None
    key_databases: dict[str, str]  # PK, KEK, db, dbx → digest of the variable, hex
    firmware: tuple[Measured, ...]
    gpt: tuple[Measured, ...]
    loaders: tuple[Measured, ...]
    kernel: tuple[Measured, ...]
    kernel_cmdline: tuple[Measured, ...]
    initrd: tuple[Measured, ...]
    grub_cmd: tuple[Measured, ...]
    others: tuple[tuple[int, str, bytes], ...]  # register, event type, digest
    boot_services_exited: bool

    def as_dict(self) -> dict[str, Any]:
        """Claim form; digests in lower-case hex."""
        lists = {"firmware", "gpt", "loaders", "kernel", "kernel_cmdline", "initrd", "grub_cmd"}
        return {
            "algorithm": self.algorithm,
            "secure_boot": bool(self.secure_boot),
            "secure_boot_proven": self.secure_boot is not None,
            "key_databases": self.key_databases,
            **{name: [one.as_dict() for one in getattr(self, name)] for name in sorted(lists)},
            "others": [{"register": at, "type": kind, "digest": value.hex()} for at, kind, value in self.others],
            "boot_services_exited": self.boot_services_exited,
        }


def boot_claims(log: EventLog, algorithm: int) -> BootClaims:
    """Sort a log's events into what they measured. Check the replay first; this does not.

    Raises EventLogAlgorithmUnsupported.
    """
    if algorithm not in log.algorithms or not kinds.ALGORITHMS[algorithm].hashlib:
        raise refuse("EventLogAlgorithmUnsupported", f"no digests of algorithm {algorithm:#x}", where="event_log")
    found: dict[str, list[Measured]] = {}
    others: list[tuple[int, str, bytes]] = []
    exited = False
    sections: set[str] = set()
    firmware = _FirmwareVariables(algorithm)
    for event, digest in _digests(log, algorithm):
        if firmware.took(event, digest):
            continue
        place, text = _place(event, algorithm, sections)
        if place:
            found.setdefault(place, []).append(Measured(digest, text))
        elif event.kind == kinds.EFI_ACTION and event.covers(event.data, algorithm):
            exited = exited or event.data == b"Exit Boot Services Returned with Success"
        elif event.kind != kinds.SEPARATOR or digest not in firmware.separators:
            others.append((event.register, event.type_name, digest))

    def listed(name: str) -> tuple[Measured, ...]:
        return tuple(found.get(name, ()))

    return BootClaims(
        algorithm=kinds.ALGORITHMS[algorithm].name,
        secure_boot=firmware.secure_boot(),
        key_databases=firmware.key_databases(),
        firmware=listed("firmware"),
        gpt=listed("gpt"),
        loaders=listed("loaders"),
        kernel=listed("kernel"),
        kernel_cmdline=listed("kernel_cmdline"),
        initrd=listed("initrd"),
        grub_cmd=listed("grub_cmd"),
        others=tuple(others),
        boot_services_exited=exited,
    )


def _digests(log: EventLog, algorithm: int) -> Iterator[tuple[Event, bytes]]:
    for event in log.events:
        digest = event.digest(algorithm)
        if event.kind != kinds.NO_ACTION and digest is not None:
            yield event, digest


class _FirmwareVariables:
    """Secure Boot and its keys, as firmware measured them before it closed their register.

    A register is closed by a separator, known by its digest whatever the log calls it. What
    stands in one that was never closed may be anybody's.
    """

    def __init__(self, algorithm: int) -> None:
        name = kinds.ALGORITHMS[algorithm].hashlib
        self.separators = {hashlib.new(name, data, usedforsecurity=False).digest() for data in _SEPARATORS}
        self._algorithm = algorithm
        self._measured: list[tuple[int, EfiVariable, bytes]] = []
        self._closed: set[int] = set()

    def took(self, event: Event, digest: bytes) -> bool:
        """Whether the event is one of these variables; separators are noted by the way."""
        if digest in self.separators:
            self._closed.add(event.register)
        if event.kind != kinds.VARIABLE_DRIVER_CONFIG or event.register not in _FIRMWARE_REGISTERS - self._closed:
            return False
        if not event.covers(event.data, self._algorithm):
            return False
        try:
            variable = parse_variable(event.data)
        except AttestationRefused:
            return False
        if not _is_secure_boot(variable) and variable.name not in _KEY_DATABASES:
            return False
        self._measured.append((event.register, variable, digest))
        return True

    def secure_boot(self) -> bool | None:
        """Its state; two values in one log prove neither, and count as off."""
        values = [one.value for register, one, _ in self._measured if register in self._closed and _is_secure_boot(one)]
        return values == [b"\x01"] if values else None

    def key_databases(self) -> dict[str, str]:
        """PK, KEK, db, dbx → digest of the variable, hex; the first of each name."""
        found: dict[str, str] = {}
        for register, variable, digest in self._measured:
            if register in self._closed and variable.name in _KEY_DATABASES:
                found.setdefault(variable.name, digest.hex())
        return found


def _is_secure_boot(variable: EfiVariable) -> bool:
    return variable.guid == _GLOBAL_VARIABLE and variable.name == "SecureBoot"


def _place(event: Event, algorithm: int, sections: set[str]) -> tuple[str, str]:
    """Which list an event belongs to and its text; ("", "") for none. `sections`: names seen in a stub's log."""
    try:
        match event.kind:
            case kinds.PLATFORM_FIRMWARE_BLOB2:
                return "firmware", event.data[1 : 1 + event.data[0]].decode("ascii", "replace").rstrip("\0")
            case kinds.GPT_EVENT:
                return "gpt", ""
            case kinds.BOOT_SERVICES_APPLICATION:
                return "loaders", "/".join(parse_image_path(event.data))
            case kinds.EVENT_TAG:
                return _TAGS.get(parse_tagged(event.data)[1].rstrip(b"\0").decode("ascii", "replace"), ""), ""
            case kinds.IPL:
                return _ipl(event, algorithm, sections)
    except (AttestationRefused, IndexError):
        pass
    return "", ""


def _ipl(event: Event, algorithm: int, sections: set[str]) -> tuple[str, str]:
    """A boot loader's event: GRUB states prefix and text, systemd-stub first a section's name, then its content."""
    text = ipl_text(event.data)
    prefix, _, rest = text.partition(": ")
    if prefix in _GRUB_PREFIXES:
        return _GRUB_PREFIXES[prefix], rest if event.covers(rest.encode(), algorithm) else ""
    if event.covers(f".{text}\0".encode(), algorithm):
        sections.add(text)
        return "section", ""
    return (_STUB_SECTIONS.get(text, ""), "") if text in sections else ("", "")
