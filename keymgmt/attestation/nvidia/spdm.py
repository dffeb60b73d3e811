"""An SPDM GET_MEASUREMENTS request and its signed response, as one byte string.

Source: DMTF DSP0274 1.1.1, GET_MEASUREMENTS and MEASUREMENTS. NVIDIA's drivers return the
request (37 bytes) followed by the response; the signature covers all that precedes it, so
that the requester's nonce is signed too. Integers are little-endian. Parsing trusts nothing.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from keymgmt.attestation.refusal import AttestationRefused, refuse

REQUEST_BYTES: Final = 37
NONCE_BYTES: Final = 32
SIGNATURE_BYTES: Final = 96  # ECDSA P-384: r ‖ s, 48 bytes each, big-endian
MAX_REPORT_BYTES: Final = 32 * 1024
MAX_BLOCKS: Final = 254  # the index is one byte; 0 and 255 have other meanings
MAX_VALUE_BYTES: Final = 64
MAX_TRAILING_BYTES: Final = 8  # some drivers pad their buffer with zeros

_VERSION_1_1: Final = 0x11
_GET_MEASUREMENTS: Final = 0xE0
_MEASUREMENTS: Final = 0x60
_SIGNATURE_REQUESTED: Final = 0x01
_ALL_MEASUREMENTS: Final = 0xFF
_DMTF: Final = 0x01
_BLOCK: Final = struct.Struct("<BBHBH")  # index, specification, size, value type, value size
_SHA384_BLOCK: Final = struct.Struct("<B6s48s")
_SHA384_HEAD: Final = bytes((_DMTF, 51, 0, 1, 48, 0))  # specification, size, type of a hash, value size
_BLOCK_HEADER_BYTES: Final = 4  # of which `size` does not count


@dataclass(frozen=True, slots=True)
class MeasurementReport:
    """What the bytes state. `measurements` maps SPDM index (from 1) to the value, 20 to 64 bytes."""

    nonce: bytes  # the requester's, 32 bytes
    responder_nonce: bytes
    measurements: dict[int, bytes]
    record: bytes  # the measurement record as sent
    opaque: bytes
    signed: bytes
    r: int
    s: int


def parse_report(report: bytes) -> MeasurementReport:
    """Split a report into its fields. Raises SpdmMalformed, SpdmVersionUnsupported.

    The request must ask for all measurements with a signature by the key in slot 0; a
    partial or unsigned answer proves less than what is judged here.
    """
    if not REQUEST_BYTES + 42 + SIGNATURE_BYTES <= len(report) <= MAX_REPORT_BYTES:
        raise malformed(f"a report of {len(report)} bytes", "report")
    if report[0] != _VERSION_1_1 or report[REQUEST_BYTES] != _VERSION_1_1:
        raise refuse("SpdmVersionUnsupported", f"SPDM version {report[0]:#04x}", where="report")
    if report[1] != _GET_MEASUREMENTS or report[REQUEST_BYTES + 1] != _MEASUREMENTS:
        raise malformed("not GET_MEASUREMENTS followed by MEASUREMENTS", "report")
    if report[2] & _SIGNATURE_REQUESTED == 0 or report[3] != _ALL_MEASUREMENTS or report[36] != 0:
        raise refuse("SpdmVersionUnsupported", "the request does not ask for all measurements, signed by slot 0")
    blocks = report[REQUEST_BYTES + 4]
    start = REQUEST_BYTES + 8
    record_end = start + int.from_bytes(report[REQUEST_BYTES + 5 : start], "little")
    opaque_start = record_end + NONCE_BYTES + 2
    if opaque_start + SIGNATURE_BYTES > len(report):
        raise malformed("the measurement record exceeds the report", "measurement_record")
    opaque_end = opaque_start + int.from_bytes(report[opaque_start - 2 : opaque_start], "little")
    end = opaque_end + SIGNATURE_BYTES
    if end > len(report) or len(report) - end > MAX_TRAILING_BYTES or any(report[end:]):
        raise malformed("the opaque data and the signature do not end where the report does", "opaque_data")
    record = report[start:record_end]
    return MeasurementReport(
        nonce=report[4:36],
        responder_nonce=report[record_end : record_end + NONCE_BYTES],
        measurements=_blocks(record, blocks),
        record=record,
        opaque=report[opaque_start:opaque_end],
        signed=report[:opaque_end],
        r=int.from_bytes(report[opaque_end : opaque_end + 48], "big"),
        s=int.from_bytes(report[opaque_end + 48 : end], "big"),
    )


def malformed(what: str, where: str) -> AttestationRefused:
    """The refusal of bytes that do not parse."""
    return refuse("SpdmMalformed", what, where=where)


def _blocks(record: bytes, count: int) -> dict[int, bytes]:
    """Measurement blocks in DMTF's format; exactly `count`, distinct, and nothing after them."""
    found = _like_blocks(record, count)
    if len(found) == count and found:
        return found
    found = {}
    offset, end, unpack = 0, len(record), _BLOCK.unpack_from
    while offset + _BLOCK.size <= end:
        index, specification, size, _, value_size = unpack(record, offset)
        start = offset + _BLOCK.size
        offset += _BLOCK_HEADER_BYTES + size
        if specification != _DMTF or size != value_size + 3 or not 20 <= value_size <= MAX_VALUE_BYTES:
            raise malformed(f"measurement block {index} is not of DMTF's form", "measurement_record")
        if not 1 <= index <= MAX_BLOCKS or index in found:
            raise malformed(f"measurement block {index} is repeated or misnumbered", "measurement_record")
        found[index] = record[start:offset]
    if offset != end or len(found) != count or not count:
        what = f"{count} measurement blocks are announced, {len(found)} fill the record"
        raise malformed(what, "measurement_record")
    return found


def _like_blocks(record: bytes, count: int) -> dict[int, bytes]:
    """As `_blocks`, for the usual record of 48-byte values, read at once; else fewer than `count`.

    A signature takes half a millisecond to verify; block by block, the record would take a
    tenth of that.
    """
    if len(record) != count * _SHA384_BLOCK.size:
        return {}
    return {
        index: value
        for index, head, value in _SHA384_BLOCK.iter_unpack(record)
        if 1 <= index <= MAX_BLOCKS and head == _SHA384_HEAD
    }
