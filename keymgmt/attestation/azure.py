"""Azure's confidential VMs: the SNP report inside the paravisor's HCL report.

Layout: 32 bytes of header (magic `HCLA`), the SNP report (1184 bytes), 20 bytes of
header for the variable part (size, version, type, hash type, length), then JSON runtime
data whose SHA-256 stands in the first half of REPORT_DATA.
Source: learn.microsoft.com, "Virtual TPMs in Azure confidential VMs".
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from typing import Final

from keymgmt.attestation.refusal import refuse
from keymgmt.attestation.report import REPORT_BYTES

MAX_HCL_BYTES: Final = 16 * 1024
_HEADER: Final = 32
_DATA: Final = _HEADER + REPORT_BYTES
_HASHES: Final = {1: "sha256", 2: "sha384", 3: "sha512"}


@dataclass(frozen=True, slots=True)
class HclReport:
    """The SNP report and the runtime data (JSON with the vTPM's attestation key) that it vouches for."""

    snp_report: bytes
    runtime_data: bytes
    digest: bytes  # of the runtime data, as it must begin REPORT_DATA

    def check_binding(self, report_data: bytes) -> None:
        """Raise NonceMismatch unless REPORT_DATA holds the digest, padded with zeros."""
        if not hmac.compare_digest(report_data, self.digest.ljust(64, b"\0")):
            raise refuse("NonceMismatch", "REPORT_DATA is not the digest of the runtime data", where="report_data")


def parse_hcl_report(data: bytes) -> HclReport:
    """Split an HCL report. Raises EvidenceMalformed."""
    if not _DATA + 20 <= len(data) <= MAX_HCL_BYTES or data[:4] != b"HCLA":
        raise refuse("EvidenceMalformed", "not an HCL report", where="hcl_report")
    kind = int.from_bytes(data[_DATA + 8 : _DATA + 12], "little")
    hash_kind = int.from_bytes(data[_DATA + 12 : _DATA + 16], "little")
    length = int.from_bytes(data[_DATA + 16 : _DATA + 20], "little")
    start = _DATA + 20
    if kind != 2 or hash_kind not in _HASHES or start + length > len(data):  # 2: an SNP report
        raise refuse("EvidenceMalformed", "the HCL report's variable part is not as stated", where="hcl_report")
    runtime = data[start : start + length]
    return HclReport(data[_HEADER:_DATA], runtime, hashlib.new(_HASHES[hash_kind], runtime).digest())
