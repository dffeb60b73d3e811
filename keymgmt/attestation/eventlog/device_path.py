"""UEFI device paths as text, node by node.

Source: UEFI 2.11, 10.3 (binary form) and 10.6 (text form). Forms and spellings follow
Trustee's event log parser, whose claims release rules may have been written against.
"""

from __future__ import annotations

import ipaddress
from typing import Final

from keymgmt.attestation.eventlog.log import malformed

MAX_NODES: Final = 64
_END_BYTES: Final = 4


def device_paths(data: bytes) -> list[str]:
    """The nodes of a device path without its end node. Raises EventLogMalformed."""
    nodes: list[str] = []
    end = len(data) - _END_BYTES
    offset = 0
    while offset < end:
        if offset + 4 > end or len(nodes) == MAX_NODES:
            raise malformed("a device path node is cut short, or there are too many", "device_path")
        kind, sub_kind = data[offset], data[offset + 1]
        length = int.from_bytes(data[offset + 2 : offset + 4], "little")
        if length < 4 or offset + length > end:
            raise malformed("a device path node exceeds its path", "device_path")
        nodes.append(_node(kind, sub_kind, data[offset + 4 : offset + length]))
        offset += length
    return nodes


def guid_text(raw: bytes) -> str:
    """A GUID as UEFI writes it: three little-endian fields, then bytes."""
    first, second, third = (int.from_bytes(raw[a:b], "little") for a, b in ((0, 4), (4, 6), (6, 8)))
    return f"{first:08X}-{second:04X}-{third:04X}-{raw[8:10].hex().upper()}-{raw[10:16].hex().upper()}"


def _node(kind: int, sub_kind: int, body: bytes) -> str:
    text = None
    match kind, sub_kind:
        case 1, 1 if len(body) >= 2:
            text = f"Pci({body[0]},{body[1]})"
        case 2, 1 if len(body) >= 8:
            text = _acpi(body)
        case 3, 5 if len(body) >= 2:
            text = f"USB({body[0]},{body[1]})"
        case 3, 11 if len(body) == 33:
            text = f"Mac({body[:32].hex().rstrip('0').upper()},{body[32]:#04x})"
        case 3, 12 if len(body) >= 23:
            text = _ipv4(body)
        case 3, 21 if len(body) >= 16:
            text = f"FibreEx(0x{body[:8].hex()},0x{body[8:16].hex()})"
        case 4, 1 if len(body) >= 38:
            text = _hard_drive(body)
        case 4, 3 if len(body) >= 16:
            text = f"VenMedia({guid_text(body[:16])},{body[16:].hex()})"
        case 4, 4 if body and len(body) % 2 == 0:
            text = f"File({body[:-2].decode('utf-16-le', errors='replace')})"
    return text or f"Path({kind},{sub_kind},{body.hex()})"


def _acpi(body: bytes) -> str:
    hid, uid = (int.from_bytes(body[at : at + 4], "little") for at in (0, 4))
    vendor = "".join(chr((hid >> shift & 0x1F) + ord("@")) for shift in (10, 5, 0))
    return f"ACPI({vendor}{hid >> 16:04X},{uid})"


def _hard_drive(body: bytes) -> str | None:
    number = int.from_bytes(body[:4], "little")
    start, size = (int.from_bytes(body[at : at + 8], "little") for at in (4, 12))
    if body[36] == 1:
        signature = f"MBR,{int.from_bytes(body[20:24], 'little'):#010x}"
    elif body[36] == 2:
        signature = f"GPT,{guid_text(body[20:36])}"
    else:
        return None
    return f"HD({number},{signature}{f',{start:#x},{size:#x}' if number else ''})"


def _ipv4(body: bytes) -> str:
    local, remote = (ipaddress.IPv4Address(int.from_bytes(body[at : at + 4], "little")) for at in (0, 4))
    protocol = {6: "TCP", 17: "UDP"}.get(int.from_bytes(body[12:14], "little"), "")
    origin = {0: "DHCP", 1: "Static"}.get(body[14], "")
    gateway, mask = (int.from_bytes(body[at : at + 4], "little") for at in (15, 19))
    return f"IPv4({remote},{protocol},{origin},{local}{f',{gateway},{mask}' if gateway or mask else ''})"
