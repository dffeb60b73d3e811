"""Numbers of the TCG event log: event types and digest algorithms.

Source: TCG "PC Client Platform Firmware Profile" 1.06, table 27; TCG Algorithm Registry.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Algorithm:
    """A digest algorithm: its name in logs and in hashlib ("" where hashlib cannot compute it)."""

    name: str
    size: int
    hashlib: str


ALGORITHMS: Final[dict[int, Algorithm]] = {
    0x04: Algorithm("SHA-1", 20, "sha1"),
    0x0B: Algorithm("SHA-256", 32, "sha256"),
    0x0C: Algorithm("SHA-384", 48, "sha384"),
    0x0D: Algorithm("SHA-512", 64, "sha512"),
    0x12: Algorithm("SM3", 32, ""),
}

NO_ACTION: Final = 0x3
SEPARATOR: Final = 0x4
EVENT_TAG: Final = 0x6
IPL: Final = 0xD
VARIABLE_DRIVER_CONFIG: Final = 0x80000001
VARIABLE_BOOT: Final = 0x80000002
BOOT_SERVICES_APPLICATION: Final = 0x80000003
GPT_EVENT: Final = 0x80000006
EFI_ACTION: Final = 0x80000007
PLATFORM_FIRMWARE_BLOB2: Final = 0x8000000A
HANDOFF_TABLES2: Final = 0x8000000B
VARIABLE_BOOT2: Final = 0x8000000C
VARIABLE_AUTHORITY: Final = 0x800000E0

NAMES: Final[dict[int, str]] = {
    0x0: "EV_PREBOOT_CERT",
    0x1: "EV_POST_CODE",
    0x2: "EV_UNUSED",
    NO_ACTION: "EV_NO_ACTION",
    SEPARATOR: "EV_SEPARATOR",
    0x5: "EV_ACTION",
    EVENT_TAG: "EV_EVENT_TAG",
    0x7: "EV_S_CRTM_CONTENTS",
    0x8: "EV_S_CRTM_VERSION",
    0x9: "EV_CPU_MICROCODE",
    0xA: "EV_PLATFORM_CONFIG_FLAGS",
    0xB: "EV_TABLE_OF_DEVICES",
    0xC: "EV_COMPACT_HASH",
    IPL: "EV_IPL",
    0xE: "EV_IPL_PARTITION_DATA",
    0xF: "EV_NONHOST_CODE",
    0x10: "EV_NONHOST_CONFIG",
    0x11: "EV_NONHOST_INFO",
    0x12: "EV_OMIT_BOOT_DEVICE_EVENTS",
    0x80000000: "EV_EFI_EVENT_BASE",
    VARIABLE_DRIVER_CONFIG: "EV_EFI_VARIABLE_DRIVER_CONFIG",
    VARIABLE_BOOT: "EV_EFI_VARIABLE_BOOT",
    BOOT_SERVICES_APPLICATION: "EV_EFI_BOOT_SERVICES_APPLICATION",
    0x80000004: "EV_EFI_BOOT_SERVICES_DRIVER",
    0x80000005: "EV_EFI_RUNTIME_SERVICES_DRIVER",
    GPT_EVENT: "EV_EFI_GPT_EVENT",
    EFI_ACTION: "EV_EFI_ACTION",
    0x80000008: "EV_EFI_PLATFORM_FIRMWARE_BLOB",
    0x80000009: "EV_EFI_HANDOFF_TABLES",
    PLATFORM_FIRMWARE_BLOB2: "EV_EFI_PLATFORM_FIRMWARE_BLOB2",
    HANDOFF_TABLES2: "EV_EFI_HANDOFF_TABLES2",
    VARIABLE_BOOT2: "EV_EFI_VARIABLE_BOOT2",
    0x80000010: "EV_EFI_HCRTM_EVENT",
    VARIABLE_AUTHORITY: "EV_EFI_VARIABLE_AUTHORITY",
    0x800000E1: "EV_EFI_SPDM_FIRMWARE_BLOB",
    0x800000E2: "EV_EFI_SPDM_FIRMWARE_CONFIG",
}


def name_of(kind: int) -> str:
    """The type's name; types unknown here keep their number, for they are replayed all the same."""
    return NAMES.get(kind, f"UNKNOWN_{kind:#x}")
