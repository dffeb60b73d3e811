"""The SEV-SNP attestation report as bytes: exact layouts of versions 2 to 5.

Source: AMD 56860 "SEV Secure Nested Paging Firmware ABI Specification", ATTESTATION_REPORT,
TCB_VERSION, GUEST_POLICY, PLATFORM_INFO. Parsing trusts nothing: it says what the bytes
state, not that it is true. All integers are little-endian.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from keymgmt.attestation.refusal import refuse

REPORT_BYTES: Final = 1184
SIGNED_BYTES: Final = 0x2A0  # the signature covers [0, 0x2A0)
VERSIONS: Final = range(2, 6)
ECDSA_P384_SHA384: Final = 1
COMPONENT_BYTES: Final = 72  # r and s are each 72 bytes, of which 48 are used

Product = Literal["Milan", "Genoa", "Turin"]
PRODUCTS: Final[tuple[Product, ...]] = ("Milan", "Genoa", "Turin")


@dataclass(frozen=True, slots=True)
class Tcb:
    """Security patch levels of a platform's parts, each 0 to 255. `fmc` exists from Turin on."""

    bootloader: int = 0
    tee: int = 0
    snp: int = 0
    microcode: int = 0
    fmc: int | None = None

    @classmethod
    def decode(cls, raw: bytes, product: Product) -> Tcb:
        """Read 8 bytes in the product's layout: Turin moved every part but the microcode."""
        if product == "Turin":
            return cls(fmc=raw[0], bootloader=raw[1], tee=raw[2], snp=raw[3], microcode=raw[7])
        return cls(bootloader=raw[0], tee=raw[1], snp=raw[6], microcode=raw[7])

    def encode(self, product: Product) -> bytes:
        """The inverse of `decode`."""
        if product == "Turin":
            return bytes((self.fmc or 0, self.bootloader, self.tee, self.snp, 0, 0, 0, self.microcode))
        return bytes((self.bootloader, self.tee, 0, 0, 0, 0, self.snp, self.microcode))

    def reaches(self, minimum: Tcb) -> bool:
        """Whether every part is at least the minimum's. A missing `fmc` counts as 0."""
        return (
            self.bootloader >= minimum.bootloader
            and self.tee >= minimum.tee
            and self.snp >= minimum.snp
            and self.microcode >= minimum.microcode
            and (self.fmc or 0) >= (minimum.fmc or 0)
        )

    def as_dict(self) -> dict[str, int]:
        """Claim form; `fmc` is left out where the platform has none."""
        parts = {
            "bootloader": self.bootloader,
            "tee": self.tee,
            "snp": self.snp,
            "microcode": self.microcode,
        }
        return parts if self.fmc is None else {**parts, "fmc": self.fmc}


@dataclass(frozen=True, slots=True)
class GuestPolicy:
    """GUEST_POLICY, 64 bits, chosen at launch and enforced by the firmware for the guest's life."""

    raw: int

    def _bit(self, position: int) -> bool:
        return bool(self.raw >> position & 1)

    @property
    def abi(self) -> tuple[int, int]:
        """Least ABI (major, minor) that the guest demands."""
        return self.raw >> 8 & 0xFF, self.raw & 0xFF

    @property
    def smt(self) -> bool:
        return self._bit(16)

    @property
    def migrate_ma(self) -> bool:
        return self._bit(18)

    @property
    def debug(self) -> bool:
        return self._bit(19)

    @property
    def single_socket(self) -> bool:
        return self._bit(20)

    @property
    def cxl(self) -> bool:
        return self._bit(21)

    @property
    def mem_aes_256_xts(self) -> bool:
        return self._bit(22)

    @property
    def rapl_disabled(self) -> bool:
        return self._bit(23)

    @property
    def ciphertext_hiding(self) -> bool:
        return self._bit(24)

    @property
    def page_swap_disabled(self) -> bool:
        return self._bit(25)

    def as_dict(self) -> dict[str, bool | int]:
        major, minor = self.abi
        return {
            "abi_major": major,
            "abi_minor": minor,
            "smt": self.smt,
            "migrate_ma": self.migrate_ma,
            "debug": self.debug,
            "single_socket": self.single_socket,
            "cxl": self.cxl,
            "mem_aes_256_xts": self.mem_aes_256_xts,
            "rapl_disabled": self.rapl_disabled,
            "ciphertext_hiding": self.ciphertext_hiding,
            "page_swap_disabled": self.page_swap_disabled,
        }


@dataclass(frozen=True, slots=True)
class PlatformInfo:
    """PLATFORM_INFO, 64 bits: what the host has switched on."""

    raw: int

    def as_dict(self) -> dict[str, bool]:
        names = {0: "smt", 1: "tsme", 2: "ecc", 3: "rapl_disabled", 4: "ciphertext_hiding"}
        names |= {5: "alias_check_complete", 7: "tio"}
        return {name: bool(self.raw >> bit & 1) for bit, name in names.items()}

    @property
    def alias_check_complete(self) -> bool:
        """Memory aliases were searched for at boot (the answer to BadRAM, AMD-SB-3015)."""
        return bool(self.raw >> 5 & 1)


@dataclass(frozen=True, slots=True)
class Firmware:
    """Version of the SNP firmware."""

    major: int
    minor: int
    build: int

    @property
    def ordinal(self) -> tuple[int, int, int]:
        return self.major, self.minor, self.build

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.build}"


@dataclass(frozen=True, slots=True)
class SnpReport:
    """A parsed report. TCB fields stay raw: their layout depends on the product."""

    version: int
    guest_svn: int
    policy: GuestPolicy
    family_id: bytes
    image_id: bytes
    vmpl: int
    signature_algorithm: int
    current_tcb: bytes
    platform: PlatformInfo
    author_key_enabled: bool
    chip_key_masked: bool
    signing_key: int  # 0 VCEK, 1 VLEK, 7 none
    report_data: bytes
    measurement: bytes
    host_data: bytes
    id_key_digest: bytes
    author_key_digest: bytes
    report_id: bytes
    report_id_ma: bytes
    reported_tcb: bytes
    cpuid: tuple[int, int, int] | None  # family, model, stepping; from version 3 on
    chip_id: bytes
    committed_tcb: bytes
    current_firmware: Firmware
    committed_firmware: Firmware
    launch_tcb: bytes
    launch_mitigations: int | None  # from version 5 on
    current_mitigations: int | None
    r: int
    s: int
    signed: bytes

    @property
    def product(self) -> Product | None:
        """The processor family by CPUID; None where the report (version 2) does not tell.

        Raises ProductUnsupported for a processor without a known root.
        """
        return None if self.cpuid is None else product_of(self.cpuid[0], self.cpuid[1])


def product_of(family: int, model: int) -> Product:
    """Map CPUID family and model (extended parts included) to the product whose keys sign."""
    if family == 0x19:
        if model <= 0x0F:
            return "Milan"
        if 0x10 <= model <= 0x1F or 0xA0 <= model <= 0xAF:  # Genoa; Bergamo and Siena
            return "Genoa"
    if family == 0x1A and model <= 0x11:
        return "Turin"
    raise refuse("ProductUnsupported", f"CPUID family {family:#x}, model {model:#x} is not known")


def parse_report(report: bytes) -> SnpReport:
    """Read a report of exactly 1184 bytes.

    Raises ReportMalformed and ReportVersionUnsupported. The parts of the signature block that
    nothing signs must be zero, so that no two byte strings stand for one report.
    """
    if len(report) != REPORT_BYTES:
        raise refuse("ReportMalformed", f"a report has {REPORT_BYTES} bytes, this one {len(report)}")
    version = _integer(report, 0x00, 4)
    if version not in VERSIONS:
        raise refuse("ReportVersionUnsupported", f"version {version} is not one of 2 to 5")
    key_info = _integer(report, 0x48, 4)
    r, s = report[SIGNED_BYTES : SIGNED_BYTES + COMPONENT_BYTES], report[0x2E8 : 0x2E8 + COMPONENT_BYTES]
    if any(r[48:]) or any(s[48:]) or any(report[0x330:]):
        raise refuse("ReportMalformed", "bytes of the signature block that must be zero are not")
    return SnpReport(
        version=version,
        guest_svn=_integer(report, 0x04, 4),
        policy=GuestPolicy(_integer(report, 0x08, 8)),
        family_id=report[0x10:0x20],
        image_id=report[0x20:0x30],
        vmpl=_integer(report, 0x30, 4),
        signature_algorithm=_integer(report, 0x34, 4),
        current_tcb=report[0x38:0x40],
        platform=PlatformInfo(_integer(report, 0x40, 8)),
        author_key_enabled=bool(key_info & 1),
        chip_key_masked=bool(key_info >> 1 & 1),
        signing_key=key_info >> 2 & 0x7,
        report_data=report[0x50:0x90],
        measurement=report[0x90:0xC0],
        host_data=report[0xC0:0xE0],
        id_key_digest=report[0xE0:0x110],
        author_key_digest=report[0x110:0x140],
        report_id=report[0x140:0x160],
        report_id_ma=report[0x160:0x180],
        reported_tcb=report[0x180:0x188],
        cpuid=(report[0x188], report[0x189], report[0x18A]) if version >= 3 else None,
        chip_id=report[0x1A0:0x1E0],
        committed_tcb=report[0x1E0:0x1E8],
        current_firmware=_firmware(report, 0x1E8),
        committed_firmware=_firmware(report, 0x1EC),
        launch_tcb=report[0x1F0:0x1F8],
        launch_mitigations=_integer(report, 0x1F8, 8) if version >= 5 else None,
        current_mitigations=_integer(report, 0x200, 8) if version >= 5 else None,
        r=int.from_bytes(r, "little"),
        s=int.from_bytes(s, "little"),
        signed=report[:SIGNED_BYTES],
    )


def _integer(report: bytes, offset: int, size: int) -> int:
    return int.from_bytes(report[offset : offset + size], "little")


def _firmware(report: bytes, offset: int) -> Firmware:
    return Firmware(build=report[offset], minor=report[offset + 1], major=report[offset + 2])
