"""NVIDIA evidence as clients send it, in JSON.

- SDK (`nvattest collect-evidence`): `[{"arch", "certificate", "evidence", "nonce", …}]`.
- Trustee: `{"device_evidence_list": [{"arch", "uuid"?, "evidence", "certificate"}]}`.

Reports are base64 or (older attesters) hex; certificates are base64 of a PEM bundle. The
nonce member is a hint of the sender's; the one that counts is inside the signed report.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from typing import Any, Final

from keymgmt.attestation.nvidia.certificates import MAX_CHAIN_BYTES
from keymgmt.attestation.nvidia.spdm import MAX_REPORT_BYTES
from keymgmt.attestation.refusal import AttestationRefused, refuse

MAX_DEVICES: Final = 32  # a machine has 8 GPUs and 4 switches; a rack-scale domain 72, in several guests
_HEX = re.compile(r"(?:[0-9a-fA-F]{2})+")


@dataclass(frozen=True, slots=True)
class DeviceEvidence:
    """One device: the report and the certificates as bytes, and what the sender calls it."""

    architecture: str
    report: bytes
    certificates: bytes  # PEM


def parse_evidence(document: object) -> tuple[DeviceEvidence, ...]:
    """Read either JSON form. Raises EvidenceMalformed, DeviceCountExceeded."""
    entries = document
    if isinstance(document, dict):
        entries = document.get("device_evidence_list")
    if not isinstance(entries, list) or not entries:
        raise _malformed("expected a list of devices", "nvidia")
    if len(entries) > MAX_DEVICES:
        raise refuse("DeviceCountExceeded", f"{len(entries)} devices, at most {MAX_DEVICES}", where="nvidia")
    return tuple(_device(entry, f"nvidia[{number}]") for number, entry in enumerate(entries))


def _device(entry: object, where: str) -> DeviceEvidence:
    if not isinstance(entry, dict):
        raise _malformed("expected a JSON object", where)
    architecture = _text(entry, "arch", 16, where)
    report = _text(entry, "evidence", 2 * MAX_REPORT_BYTES, where)
    certificates = _text(entry, "certificate", 2 * MAX_CHAIN_BYTES, where)
    raw = bytes.fromhex(report) if _HEX.fullmatch(report) else _base64(report, f"{where}.evidence")
    return DeviceEvidence(architecture.upper(), raw, _base64(certificates, f"{where}.certificate"))


def _text(entry: dict[str, Any], name: str, limit: int, where: str) -> str:
    value = entry.get(name)
    if not isinstance(value, str) or not 1 <= len(value) <= limit:
        raise _malformed(f"a string of at most {limit} characters is expected", f"{where}.{name}")
    return value


def _base64(text: str, where: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise _malformed("not valid base64", where) from None


def _malformed(what: str, where: str) -> AttestationRefused:
    return refuse("EvidenceMalformed", what, where=where)
