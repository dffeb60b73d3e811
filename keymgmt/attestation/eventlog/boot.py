"""What was booted, out of an event log whose replay gave the measured registers.

Digests are proven by the replay. Text is proven only where a digest covers it; what merely
labels an event ("Linux initrd") is the log's word, and the log is written by what booted.
So `others` lists every event that is not accounted for here: a rule that trusts a label
must also demand that nothing else was extended that it does not know. Secure Boot and its keys
are believed only before the separator in their register, which is known by its digest: what
runs later can extend and log what it likes, but not before that.
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
    databases: dict[str, str] = {}
    secure_boot: bool | None = None
    exited = False
    sections: set[str] = set()
    closed: set[int] = set()
    separator = hashlib.new(kinds.ALGORITHMS[algorithm].hashlib, bytes(4), usedforsecurity=False).digest()
    for event, digest in _digests(log, algorithm):
        variable = None if event.register in closed else _variable(event)
        if digest == separator:
            closed.add(event.register)
        place, text = _place(event, sections)
        if variable is not None and variable.guid == _GLOBAL_VARIABLE and variable.name == "SecureBoot":
            # Two values in one log prove neither: then it counts as off.
            secure_boot = variable.value == b"\x01" if secure_boot is None else False
        elif variable is not None and variable.name in _KEY_DATABASES and variable.name not in databases:
            databases[variable.name] = digest.hex()
        elif place:
            found.setdefault(place, []).append(Measured(digest, text))
        elif event.kind == kinds.EFI_ACTION and event.digest_matches_event:
            exited = exited or event.data == b"Exit Boot Services Returned with Success"
        elif event.kind != kinds.SEPARATOR or not event.digest_matches_event:
            others.append((event.register, event.type_name, digest))

    def listed(name: str) -> tuple[Measured, ...]:
        return tuple(found.get(name, ()))

    return BootClaims(
        algorithm=kinds.ALGORITHMS[algorithm].name,
        secure_boot=secure_boot,
        key_databases=databases,
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


def _variable(event: Event) -> EfiVariable | None:
    """The Secure Boot variable that the event measures, if its digest covers all of it."""
    if event.kind != kinds.VARIABLE_DRIVER_CONFIG or not event.digest_matches_event:
        return None
    try:
        return parse_variable(event.data)
    except AttestationRefused:
        return None


def _place(event: Event, sections: set[str]) -> tuple[str, str]:
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
                return _ipl(event, sections)
    except (AttestationRefused, IndexError):
        pass
    return "", ""


def _ipl(event: Event, sections: set[str]) -> tuple[str, str]:
    """A boot loader's event: GRUB states prefix and text, systemd-stub first a section's name, then its content."""
    text = ipl_text(event.data)
    prefix, _, rest = text.partition(": ")
    if prefix in _GRUB_PREFIXES:
        return _GRUB_PREFIXES[prefix], rest if event.covers(rest.encode()) else ""
    if event.covers(f".{text}\0".encode()):
        sections.add(text)
        return "section", ""
    return (_STUB_SECTIONS.get(text, ""), "") if text in sections else ("", "")
