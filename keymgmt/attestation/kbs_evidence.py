"""SNP evidence as KBS clients send it: JSON made by the `sev` crate's serde, in and out.

Format (confidential-containers guest-components, attester/src/snp):
`{"attestation_report": {field: value, …}, "cert_chain": null | [{"cert_type", "data"}]}`
where byte strings are arrays of numbers. Also accepted: the raw report and certificates as
standard base64 strings. Rebuilding the raw report from JSON is exact, since the firmware
writes zeros into all reserved fields; a wrong rebuild fails at the signature.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from keymgmt.attestation.refusal import AttestationRefused, refuse
from keymgmt.attestation.report import (
    COMPONENT_BYTES,
    REPORT_BYTES,
    SIGNED_BYTES,
    Product,
    SnpReport,
    Tcb,
    parse_report,
    product_of,
)

MAX_CHAIN_ENTRIES: Final = 8
MAX_ENTRY_BYTES: Final = 16 * 1024
_CERTIFICATES: Final = {"ARK", "ASK", "VCEK", "VLEK"}
# field → (offset, size); integers are little-endian, byte strings are number arrays.
_INTEGERS: Final = {
    "version": (0x00, 4),
    "guest_svn": (0x04, 4),
    "policy": (0x08, 8),
    "vmpl": (0x30, 4),
    "sig_algo": (0x34, 4),
    "plat_info": (0x40, 8),
    "key_info": (0x48, 4),
}
_STRINGS: Final = {
    "family_id": (0x10, 16),
    "image_id": (0x20, 16),
    "report_data": (0x50, 64),
    "measurement": (0x90, 48),
    "host_data": (0xC0, 32),
    "id_key_digest": (0xE0, 48),
    "author_key_digest": (0x110, 48),
    "report_id": (0x140, 32),
    "report_id_ma": (0x160, 32),
    "chip_id": (0x1A0, 64),
}
_TCBS: Final = {"current_tcb": 0x38, "reported_tcb": 0x180, "committed_tcb": 0x1E0, "launch_tcb": 0x1F0}
_CPUID: Final = {"cpuid_fam_id": 0x188, "cpuid_mod_id": 0x189, "cpuid_step": 0x18A}
_FIRMWARE: Final = {"current": 0x1E8, "committed": 0x1EC}
_MITIGATIONS: Final = {"launch_mit_vector": 0x1F8, "current_mit_vector": 0x200}


@dataclass(frozen=True, slots=True)
class SnpEvidence:
    """A raw report (1184 bytes) and the certificates that came with it (DER or PEM)."""

    report: bytes
    certificates: tuple[bytes, ...]


def parse_kbs_evidence(tee: str, primary_evidence: object) -> SnpEvidence:
    """Read `primary_evidence` of a KBS attest request. Raises TeeUnsupported, EvidenceMalformed."""
    if tee != "snp":
        raise refuse("TeeUnsupported", f"tee {tee!r} is not supported", where="tee")
    evidence = _object(primary_evidence, "primary_evidence")
    stated = evidence.get("attestation_report")
    report = _base64(stated, REPORT_BYTES, "report") if isinstance(stated, str) else _rebuild(stated)
    if len(report) != REPORT_BYTES:
        raise refuse("ReportMalformed", f"a report has {REPORT_BYTES} bytes, this one {len(report)}")
    return SnpEvidence(report, _certificates(evidence.get("cert_chain")))


def snp_evidence(report: bytes, certificates: Sequence[tuple[str, bytes]]) -> dict[str, Any]:
    """Write evidence for a KBS: `certificates` are (cert_type, DER) pairs such as ("VCEK", …)."""
    chain = [{"cert_type": kind, "data": list(data)} for kind, data in certificates]
    return {"attestation_report": _as_json(report, parse_report(report)), "cert_chain": chain or None}


def layout_of(report: SnpReport) -> Product:
    """The TCB layout that the `sev` crate assumes: by CPUID, else Turin if CHIP_ID has only 8 bytes."""
    if report.cpuid is not None:
        return product_of(report.cpuid[0], report.cpuid[1])
    return "Turin" if any(report.chip_id) and not any(report.chip_id[8:]) else "Genoa"


def _as_json(raw: bytes, report: SnpReport) -> dict[str, Any]:
    product = layout_of(report)
    out: dict[str, Any] = {}
    for name, (offset, size) in _INTEGERS.items():
        out[name] = int.from_bytes(raw[offset : offset + size], "little")
    for name, (offset, size) in _STRINGS.items():
        out[name] = list(raw[offset : offset + size])
    for name, offset in _TCBS.items():
        tcb = Tcb.decode(raw[offset : offset + 8], product)
        out[name] = {"fmc": tcb.fmc, **{k: v for k, v in tcb.as_dict().items() if k != "fmc"}}
    for name, offset in _CPUID.items():
        out[name] = raw[offset] if report.version >= 3 else None
    for name, offset in _FIRMWARE.items():
        out[name] = {"major": raw[offset + 2], "minor": raw[offset + 1], "build": raw[offset]}
    for name, offset in _MITIGATIONS.items():
        out[name] = int.from_bytes(raw[offset : offset + 8], "little") if report.version >= 5 else None
    r, s = SIGNED_BYTES, SIGNED_BYTES + COMPONENT_BYTES
    out["signature"] = {"r": list(raw[r : r + COMPONENT_BYTES]), "s": list(raw[s : s + COMPONENT_BYTES])}
    return out


def _rebuild(stated: object) -> bytes:
    fields = _object(stated, "attestation_report")
    raw = bytearray(REPORT_BYTES)
    for name, (offset, size) in _INTEGERS.items():
        raw[offset : offset + size] = _number(fields.get(name), size, name).to_bytes(size, "little")
    for name, (offset, size) in _STRINGS.items():
        raw[offset : offset + size] = _bytes(fields.get(name), size, name)
    version = raw[0]
    if version >= 3:
        for name, offset in _CPUID.items():
            raw[offset] = _number(fields.get(name), 1, name)
    if version >= 5:
        for name, offset in _MITIGATIONS.items():
            raw[offset : offset + 8] = _number(fields.get(name), 8, name).to_bytes(8, "little")
    for name, offset in _FIRMWARE.items():
        parts = _object(fields.get(name), name)
        raw[offset : offset + 3] = bytes(_number(parts.get(p), 1, name) for p in ("build", "minor", "major"))
    signature = _object(fields.get("signature"), "signature")
    for name, offset in (("r", SIGNED_BYTES), ("s", SIGNED_BYTES + COMPONENT_BYTES)):
        raw[offset : offset + COMPONENT_BYTES] = _bytes(signature.get(name), COMPONENT_BYTES, name)
    product = layout_of(parse_report(bytes(raw)))
    for name, offset in _TCBS.items():
        raw[offset : offset + 8] = _tcb(fields.get(name), name).encode(product)
    return bytes(raw)


def _tcb(stated: object, where: str) -> Tcb:
    parts = _object(stated, where)
    levels = {name: _number(parts.get(name), 1, where) for name in ("bootloader", "tee", "snp", "microcode")}
    fmc = parts.get("fmc")
    return Tcb(fmc=None if fmc is None else _number(fmc, 1, where), **levels)


def _certificates(stated: object) -> tuple[bytes, ...]:
    if stated is None:
        return ()
    if not isinstance(stated, list) or len(stated) > MAX_CHAIN_ENTRIES:
        raise _malformed(f"expected at most {MAX_CHAIN_ENTRIES} entries", "cert_chain")
    found = []
    for entry in stated:
        fields = _object(entry, "cert_chain")
        kind = fields.get("cert_type")
        if not isinstance(kind, str) or kind not in _CERTIFICATES:
            continue  # Empty, CRL and vendor GUIDs say nothing about who signed
        data = fields.get("data")
        if isinstance(data, str):
            found.append(_base64(data, MAX_ENTRY_BYTES, "cert_chain"))
        elif isinstance(data, list) and len(data) <= MAX_ENTRY_BYTES:
            found.append(_bytes(data, len(data), "cert_chain"))
        else:
            raise _malformed("certificate data is neither base64 nor an array within bounds", "cert_chain")
    return tuple(found)


def _malformed(what: str, where: str) -> AttestationRefused:
    return refuse("EvidenceMalformed", what, where=where)


def _object(value: object, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _malformed("expected a JSON object", where)
    return value


def _number(value: object, size: int, where: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 8 * size:
        raise _malformed(f"expected an unsigned integer of {8 * size} bits", where)
    return value


def _bytes(value: object, size: int, where: str) -> bytes:
    if not isinstance(value, list) or len(value) != size:
        raise _malformed(f"expected an array of {size} numbers", where)
    try:
        return bytes(value)
    except (TypeError, ValueError):
        raise _malformed("expected numbers from 0 to 255", where) from None


def _base64(value: str, limit: int, where: str) -> bytes:
    if len(value) > 4 * (limit + 2) // 3 + 4:
        raise _malformed("too long", where)
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise _malformed("not valid base64", where) from None
