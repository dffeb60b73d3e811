"""NVIDIA's opaque data in a MEASUREMENTS response: typed fields about the device.

Layout: a sequence of (type uint16, size uint16, data), little-endian. Types and their
meanings: NVIDIA attestation SDK, `gpu_opaque_data_parser` and `switch_opaque_data_parser`.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from keymgmt.attestation.nvidia.spdm import malformed

MAX_FIELDS: Final = 64
PDI_BYTES: Final = 8

DRIVER_VERSION: Final = 3
VBIOS_VERSION: Final = 6
NVDEC0_STATUS: Final = 11
MEASUREMENT_COUNT: Final = 12
FWID: Final = 20
PROTECTED_PCIE_STATUS: Final = 21
PDIS: Final = 22  # of a GPU: of the switches it is linked to; of a switch: its own
SWITCH_GPU_PDIS: Final = 26
OPAQUE_DATA_VERSION: Final = 34
FEATURE_FLAG: Final = 36
_SWITCH_GPUS: Final = 8

_NAMES: Final = {
    1: "cert_issuer_name",
    2: "cert_authority_key_identifier",
    3: "driver_version",
    4: "gpu_info",
    5: "sku",
    6: "vbios_version",
    7: "manufacturer_id",
    8: "tamper_detection",
    9: "smc",
    10: "vpr",
    11: "nvdec0_status",
    12: "measurement_count",
    13: "cpr_info",
    14: "board_id",
    15: "chip_sku",
    16: "chip_sku_mod",
    17: "project",
    18: "project_sku",
    19: "project_sku_mod",
    20: "fwid",
    21: "protected_pcie_status",
    22: "switch_pdi",
    23: "floorswept_ports",
    24: "position_id",
    25: "lock_switch_status",
    26: "switch_gpu_pdis",
    32: "gpu_link_conn",
    33: "sys_enable_status",
    34: "opaque_data_version",
    35: "chip_info",
    36: "feature_flag",
}
_TEXT: Final = {3, 11, 15, 16, 17, 18, 21, 35}
_MODES: Final = {0: "SPT", 1: "MPT", 2: "PPCIE"}  # single, multi pass-through, protected PCIe
_FIELD: Final = struct.Struct("<HH")  # type, size
_SIZES: Final = (  # type, what its size is a multiple of, at most
    (MEASUREMENT_COUNT, 4, 4 * 255),
    (PDIS, PDI_BYTES, 64 * PDI_BYTES),
    (FEATURE_FLAG, 1, 8),
    (OPAQUE_DATA_VERSION, 1, 8),
)
_ENABLED: Final = 0xAA
_DISABLED: Final = 0x55


@dataclass(frozen=True, slots=True)
class OpaqueData:
    """Raw fields by type, with the readings of those that are judged."""

    fields: Mapping[int, bytes]
    switch: bool

    @property
    def driver_version(self) -> str:
        """Such as 550.90.07; empty for a switch, which has none."""
        return _text(self.fields.get(DRIVER_VERSION, b""))

    @property
    def vbios_version(self) -> str:
        """Such as 96.00.9f.00.01, lower-case."""
        raw = self.fields.get(VBIOS_VERSION, b"")
        return _text(raw).lower() if self.switch else _gpu_vbios(raw)

    @property
    def fwid(self) -> bytes | None:
        """SHA-384 of the firmware that certified the signing key; absent in old drivers."""
        return self.fields.get(FWID)

    @property
    def nvdec0_disabled(self) -> bool:
        """The video decoder is off; its measurement (index 36) then means nothing."""
        return self.fields.get(NVDEC0_STATUS) == bytes([_DISABLED])

    @property
    def protected_pcie(self) -> bool | None:
        """Whether GPUs and switches of one machine protect the links between them; None if unsaid."""
        status = self.fields.get(PROTECTED_PCIE_STATUS)
        return None if status is None else status == bytes([_ENABLED])

    @property
    def mode(self) -> str | None:
        """SPT, MPT or PPCIE; None where the driver does not say."""
        raw = self.fields.get(FEATURE_FLAG)
        return None if raw is None else _MODES.get(int.from_bytes(raw, "little"), "unknown")

    @property
    def pdis(self) -> tuple[str, ...]:
        """Of a GPU: the identities of its switches, as hex, zeros left out. Of a switch: its own, one.

        A GPU writes them in the reverse byte order of what a switch says of itself.
        """
        return _pdis(self.fields.get(PDIS, b""), reverse=not self.switch)

    @property
    def gpu_pdis(self) -> tuple[str, ...]:
        """Of a switch: the identities of the GPUs linked to it."""
        return _pdis(self.fields.get(SWITCH_GPU_PDIS, b"")[: _SWITCH_GPUS * PDI_BYTES])

    def as_config(self) -> dict[str, Any]:
        """All fields under the names and in the forms of Trustee's claims (`config`)."""
        return {_NAMES.get(kind, f"type_{kind}"): self._shown(kind, raw) for kind, raw in self.fields.items()}

    def _shown(self, kind: int, raw: bytes) -> Any:
        if kind == VBIOS_VERSION:
            return self.vbios_version
        if kind in _TEXT:
            return _text(raw)
        if kind == MEASUREMENT_COUNT:
            counts = (int.from_bytes(raw[at : at + 4], "little") for at in range(0, len(raw), 4))
            return {str(index): count for index, count in enumerate(counts, 1)}
        if kind == PDIS and not self.switch:
            return [raw[at : at + PDI_BYTES].hex() for at in range(0, len(raw), PDI_BYTES)]
        if kind == OPAQUE_DATA_VERSION:
            return int.from_bytes(raw, "little")
        return self.mode if kind == FEATURE_FLAG else raw.hex()


def parse_opaque(data: bytes, *, switch: bool) -> OpaqueData:
    """Read the opaque data. Raises SpdmMalformed. Unknown types are kept; repeated ones are refused."""
    fields: dict[int, bytes] = {}
    offset, end = 0, len(data)
    while offset < end:
        if offset + 4 > end:
            raise malformed("a field is cut short", "opaque_data")
        kind, size = _FIELD.unpack_from(data, offset)
        start = offset + 4
        offset = start + size
        if offset > end:
            raise malformed("a field exceeds the opaque data", "opaque_data")
        if kind in fields or len(fields) == MAX_FIELDS:
            raise malformed(f"field {kind} is repeated, or there are too many", "opaque_data")
        fields[kind] = data[start:offset]
    for kind, multiple, limit in _SIZES:
        size = len(fields.get(kind, b""))
        if size % multiple or size > limit:
            raise malformed(f"{_NAMES[kind]} has {size} bytes", "opaque_data")
    if len(fields.get(FWID, bytes(48))) != 48:
        raise malformed("fwid is not 48 bytes", "opaque_data")
    if switch and len(fields.get(PDIS, b"")) != PDI_BYTES:
        raise malformed("a switch states exactly one PDI", "opaque_data")
    found = OpaqueData(fields, switch)
    if not found.vbios_version or not (switch or found.driver_version):
        raise malformed("the driver's or the firmware's version is missing", "opaque_data")
    return found


def _text(raw: bytes) -> str:
    text = raw.rstrip(b"\0").decode("latin-1")
    return "".join(char if char.isascii() and char.isprintable() else "?" for char in text)


def _gpu_vbios(raw: bytes) -> str:
    """Bytes 00 9f 00 96 01 … read 96.00.9f.00.01: the first half reversed, then one byte of the second."""
    half = len(raw) // 2
    if half != 4 or len(raw) % 2:
        return ""
    return ".".join(f"{byte:02x}" for byte in (*reversed(raw[:half]), raw[half]))


def _pdis(raw: bytes, *, reverse: bool = False) -> tuple[str, ...]:
    chunks = (raw[at : at + PDI_BYTES] for at in range(0, len(raw), PDI_BYTES))
    return tuple(dict.fromkeys((chunk[::-1] if reverse else chunk).hex() for chunk in chunks if any(chunk)))
