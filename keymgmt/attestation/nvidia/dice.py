"""The firmware identity in a signing certificate: which firmware its device certified the key for.

Hopper and LS10 carry a composite device identity (2.23.133.5.4.1): version, the device's
public key, the firmware's digest. Blackwell carries DiceTcbInfo (2.23.133.5.4.1.1): vendor,
model, a list of digests of which the first is the firmware's, and flags.
Source: TCG "DICE Attestation Architecture" 1.00 r22; NVIDIA attestation SDK, `get_fwid`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from keymgmt.attestation.refusal import AttestationRefused, refuse

COMPOSITE_DEVICE_ID: Final = "2.23.133.5.4.1"
TCB_INFO: Final = "2.23.133.5.4.1.1"
MAX_EXTENSION_BYTES: Final = 2048
FWID_BYTES: Final = 48

_SEQUENCE: Final = 0x30
_INTEGER: Final = 0x02
_OCTETS: Final = 0x04
_OID: Final = 0x06
_FWIDS: Final = 0xA6  # [6] IMPLICIT, constructed
_FLAGS: Final = 0x87  # [7] IMPLICIT BIT STRING
_SHA384: Final = bytes.fromhex("608648016503040202")
_RECOVERY: Final = 0x20  # bit 2 of the first byte, counted from the left
_DEBUG: Final = 0x10  # bit 3


@dataclass(frozen=True, slots=True)
class DiceIdentity:
    """What the boot ROM certified. `device_spki` is None where the extension has no room for it."""

    fwid: bytes  # SHA-384
    device_spki: bytes | None
    debug: bool | None  # debugging or recovery was on at boot; None where nothing is said


def parse_composite_device_id(data: bytes) -> DiceIdentity:
    """SEQUENCE { INTEGER 1, SubjectPublicKeyInfo, FWID }. Raises CertificateMalformed."""
    members = _members(_only(data, _SEQUENCE))
    if [tag for tag, _, _ in members] != [_INTEGER, _SEQUENCE, _SEQUENCE] or members[0][1] != b"\x01":
        raise _malformed("a composite device identity is version 1, a key and a digest")
    return DiceIdentity(_fwid(members[2][1]), members[1][2], None)


def parse_tcb_info(data: bytes) -> DiceIdentity:
    """DiceTcbInfo with at least one SHA-384 digest. Raises CertificateMalformed."""
    members = {tag: body for tag, body, _ in _members(_only(data, _SEQUENCE))}
    digests = _members(members.get(_FWIDS, b""))
    if not digests or digests[0][0] != _SEQUENCE:
        raise _malformed("DiceTcbInfo holds no firmware digest")
    flags = members.get(_FLAGS)
    if flags is not None and not 2 <= len(flags) <= 5:
        raise _malformed("DiceTcbInfo holds flags of a wrong length")
    debug = None if flags is None else bool(flags[1] & (_DEBUG | _RECOVERY))
    return DiceIdentity(_fwid(digests[0][1]), None, debug)


def _fwid(body: bytes) -> bytes:
    """FWID ::= SEQUENCE { hashAlg OID, digest OCTET STRING }; only SHA-384 is known here."""
    members = _members(body)
    if [tag for tag, _, _ in members] != [_OID, _OCTETS] or members[0][1] != _SHA384:
        raise _malformed("the firmware's digest is not SHA-384")
    if len(members[1][1]) != FWID_BYTES:
        raise _malformed("the firmware's digest is not 48 bytes")
    return members[1][1]


def _only(data: bytes, tag: int) -> bytes:
    members = _members(data) if len(data) <= MAX_EXTENSION_BYTES else []
    if len(members) != 1 or members[0][0] != tag:
        raise _malformed("a DICE extension is not one DER sequence")
    return members[0][1]


def _members(data: bytes) -> list[tuple[int, bytes, bytes]]:
    """Consecutive DER values as (tag, contents, whole): one-byte tags, minimal definite lengths."""
    found = []
    offset = 0
    while offset < len(data):
        start = offset
        if offset + 2 > len(data):
            raise _malformed("a DER value is cut short")
        tag, length = data[offset], data[offset + 1]
        offset += 2
        if length >= 0x80:
            size = length & 0x7F
            length = int.from_bytes(data[offset : offset + size], "big")
            if not 1 <= size <= 2 or length < (0x80 if size == 1 else 0x100):
                raise _malformed("a DER length is not minimal")
            offset += size
        if tag & 0x1F == 0x1F or offset + length > len(data):
            raise _malformed("a DER value is cut short or has a long tag")
        found.append((tag, data[offset : offset + length], data[start : offset + length]))
        offset += length
    return found


def _malformed(what: str) -> AttestationRefused:
    return refuse("CertificateMalformed", what, where="certificate")
