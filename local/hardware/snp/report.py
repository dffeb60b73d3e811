"""Writing and signing attestation reports as the SNP firmware does (AMD 56860, MSG_REPORT_REQ)."""

from __future__ import annotations

from dataclasses import dataclass, field

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from keymgmt.attestation.report import (
    COMPONENT_BYTES,
    ECDSA_P384_SHA384,
    REPORT_BYTES,
    SIGNED_BYTES,
    Product,
    Tcb,
)

CPUID: dict[Product, tuple[int, int, int]] = {
    "Milan": (0x19, 0x01, 1),
    "Genoa": (0x19, 0x11, 1),
    "Turin": (0x1A, 0x02, 1),
}
POLICY_RESERVED_ONE = 1 << 17
POLICY_SMT = 1 << 16
POLICY_MIGRATE_MA = 1 << 18
POLICY_DEBUG = 1 << 19
DEFAULT_POLICY = POLICY_RESERVED_ONE | POLICY_SMT
FIRMWARE = (1, 55, 40)  # major, minor, build
PLATFORM_INFO = 0b100101  # SMT, ECC, alias check complete


@dataclass(frozen=True, slots=True)
class ReportFields:
    """What the firmware puts into a report. The guest itself chooses only `report_data`."""

    report_data: bytes
    measurement: bytes
    host_data: bytes = bytes(32)
    policy: int = DEFAULT_POLICY
    vmpl: int = 0
    version: int = 3
    product: Product = "Genoa"
    tcb: Tcb = field(default_factory=Tcb)
    chip_id: bytes = bytes(64)
    report_id: bytes = bytes(32)
    guest_svn: int = 0
    platform_info: int = PLATFORM_INFO
    key_info: int = 0  # bits 4:2: 0 VCEK, 1 VLEK
    cpuid: tuple[int, int, int] | None = None  # by product if not given


def sign_report(fields: ReportFields, key: ec.EllipticCurvePrivateKey) -> bytes:
    """The 1184 bytes of the report, signed with ECDSA P-384 and SHA-384 over the first 0x2A0."""
    raw = bytearray(REPORT_BYTES)
    for offset, size, value in (
        (0x00, 4, fields.version),
        (0x04, 4, fields.guest_svn),
        (0x08, 8, fields.policy),
        (0x30, 4, fields.vmpl),
        (0x34, 4, ECDSA_P384_SHA384),
        (0x40, 8, fields.platform_info),
        (0x48, 4, fields.key_info),
    ):
        raw[offset : offset + size] = value.to_bytes(size, "little")
    tcb = fields.tcb.encode(fields.product)
    major, minor, build = FIRMWARE
    for offset, size, data in (
        (0x38, 8, tcb),
        (0x50, 64, fields.report_data),
        (0x90, 48, fields.measurement),
        (0xC0, 32, fields.host_data),
        (0x140, 32, fields.report_id),
        (0x160, 32, b"\xff" * 32),  # no migration agent
        (0x180, 8, tcb),
        (0x188, 3, bytes(fields.cpuid or CPUID[fields.product]) if fields.version >= 3 else bytes(3)),
        (0x1A0, 64, fields.chip_id),
        (0x1E0, 8, tcb),
        (0x1E8, 3, bytes((build, minor, major))),
        (0x1EC, 3, bytes((build, minor, major))),
        (0x1F0, 8, tcb),
    ):
        if len(data) != size:
            raise ValueError(f"field at {offset:#x} has {len(data)} bytes, not {size}")
        raw[offset : offset + size] = data
    r, s = decode_dss_signature(key.sign(bytes(raw[:SIGNED_BYTES]), ec.ECDSA(hashes.SHA384())))
    raw[SIGNED_BYTES : SIGNED_BYTES + COMPONENT_BYTES] = r.to_bytes(COMPONENT_BYTES, "little")
    second = SIGNED_BYTES + COMPONENT_BYTES
    raw[second : second + COMPONENT_BYTES] = s.to_bytes(COMPONENT_BYTES, "little")
    return bytes(raw)
