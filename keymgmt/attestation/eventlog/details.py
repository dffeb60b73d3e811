"""What event data say, by event type, in the names and forms of Trustee's claims.

Readings are what the log states; whether a digest covers them is told by `Event.covers`.
Event data that do not parse as their type demands give no details: firmware writes many
variants, and the digest alone counts for the replay.
"""

from __future__ import annotations

import base64
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from keymgmt.attestation.eventlog import event_types as kinds
from keymgmt.attestation.eventlog.device_path import device_paths
from keymgmt.attestation.eventlog.log import Event, EventLog, malformed
from keymgmt.attestation.refusal import AttestationRefused

_GCE_IPL: Final = b".\0"  # systemd-stub writes UTF-16 section names behind a dot
_IMAGE_LOAD_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class EfiVariable:
    """UEFI_VARIABLE_DATA: vendor GUID (raw), name, value."""

    guid: bytes
    name: str
    value: bytes


def parse_variable(data: bytes) -> EfiVariable:
    """Read UEFI_VARIABLE_DATA. Raises EventLogMalformed."""
    name_units, size = (int.from_bytes(data[at : at + 8], "little") for at in (16, 24))
    name_end = 32 + 2 * name_units
    if len(data) < 32 or name_end + size > len(data):
        raise malformed("a UEFI variable exceeds its event", "event_log")
    try:
        name = data[32:name_end].decode("utf-16-le")
    except UnicodeDecodeError:
        raise malformed("a UEFI variable's name is not UTF-16", "event_log") from None
    return EfiVariable(data[:16], name, data[name_end : name_end + size])


def parse_image_path(data: bytes) -> list[str]:
    """Device path of a UEFI_IMAGE_LOAD_EVENT, empty if it has none. Raises EventLogMalformed."""
    length = int.from_bytes(data[24:32], "little")
    if len(data) < _IMAGE_LOAD_BYTES or length > len(data) - _IMAGE_LOAD_BYTES:
        raise malformed("an image load event is cut short", "event_log")
    return device_paths(data[_IMAGE_LOAD_BYTES : _IMAGE_LOAD_BYTES + length])


def parse_tagged(data: bytes) -> tuple[int, bytes]:
    """Id and data of a TCG_PCClientTaggedEvent. Raises EventLogMalformed."""
    size = int.from_bytes(data[4:8], "little")
    if len(data) < 8 or 8 + size > len(data):
        raise malformed("a tagged event is cut short", "event_log")
    return int.from_bytes(data[:4], "little"), data[8 : 8 + size]


def ipl_text(data: bytes) -> str:
    """Text of EV_IPL: UTF-16 behind a dot (systemd-stub) or up to the first NUL; else hex."""
    if data.startswith(_GCE_IPL):
        return data[2 : max(2, len(data) - 2)].decode("utf-16-le", errors="replace")
    try:
        return data.partition(b"\0")[0].decode()
    except UnicodeDecodeError:
        return data.hex()


def details(event: Event) -> dict[str, Any]:
    """What the event states, empty where nothing is known of its type or it does not parse."""
    read = _READERS.get(event.kind)
    if read is None:
        return {}
    try:
        return read(event.data)
    except (AttestationRefused, UnicodeDecodeError):
        return {}


def as_claims(log: EventLog) -> dict[str, Any]:
    """The whole log as Trustee shows it: `{"uefi_event_logs": [{type_name, index, digests, …}]}`."""
    return {"uefi_event_logs": [_as_dict(event) for event in log.events]}


def _as_dict(event: Event) -> dict[str, Any]:
    return {
        "details": details(event),
        "digest_matches_event": event.digest_matches_event,
        "digests": [
            {"alg": kinds.ALGORITHMS[algorithm].name, "digest": value.hex()} for algorithm, value in event.digests
        ],
        "event": base64.b64encode(event.data).decode(),
        "index": event.register,
        "type_name": event.type_name,
    }


def _variable(data: bytes) -> dict[str, Any]:
    found = parse_variable(data)
    raw = found.guid.hex()
    return {
        "unicode_name": found.name,
        "unicode_name_length": len(found.name.encode("utf-16-le")) // 2,
        "variable_data": base64.b64encode(found.value).decode(),
        "variable_data_length": len(found.value),
        # Trustee prints the bytes in order, not as UEFI writes a GUID.
        "variable_name": "-".join((raw[:8], raw[8:12], raw[12:16], raw[16:20], raw[20:])),
    }


def _image(data: bytes) -> dict[str, Any]:
    paths = parse_image_path(data)
    return {"device_paths": paths} if paths else {}


def _described(data: bytes) -> dict[str, Any]:
    """A size byte, then a description of that size, NUL-terminated."""
    if not data or len(data) <= data[0]:
        raise malformed("a description is cut short", "event_log")
    return {"string": data[1 : 1 + data[0]].decode().rstrip("\0")}


def _tagged(data: bytes) -> dict[str, Any]:
    return {"string": parse_tagged(data)[1].decode(errors="replace").replace("\0", "")}


def _flags(data: bytes) -> dict[str, Any]:
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = ""
    return {"string": "".join(char for char in text if unicodedata.category(char) != "Cc")}


def _text(data: bytes) -> dict[str, Any]:
    return {"string": data.decode()}


_READERS: Final[dict[int, Callable[[bytes], dict[str, Any]]]] = {
    0x1: _text,
    0x5: _text,
    kinds.EVENT_TAG: _tagged,
    0xA: _flags,
    0xC: _text,
    kinds.IPL: lambda data: {"string": ipl_text(data)},
    0x12: _text,
    kinds.VARIABLE_DRIVER_CONFIG: _variable,
    kinds.VARIABLE_BOOT: _variable,
    kinds.VARIABLE_BOOT2: _variable,
    kinds.VARIABLE_AUTHORITY: _variable,
    kinds.BOOT_SERVICES_APPLICATION: _image,
    kinds.EFI_ACTION: _text,
    kinds.PLATFORM_FIRMWARE_BLOB2: _described,
    kinds.HANDOFF_TABLES2: _described,
}
