"""TPMS_ATTEST of type quote and TPMT_SIGNATURE, as bytes.

Source: TCG "TPM 2.0 Library" part 2: 10.12.8 TPMS_ATTEST, 10.12.1 TPMS_QUOTE_INFO, 10.6.1
TPMS_PCR_SELECTION, 11.3 signatures. Integers are big-endian. Parsing trusts nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from keymgmt.attestation.refusal import AttestationRefused, refuse

MAX_ATTEST_BYTES: Final = 2048
MAX_SIGNATURE_BYTES: Final = 1024
MAX_SELECTIONS: Final = 4
MAX_PCRS: Final = 32

TPM_GENERATED: Final = 0xFF544347
ST_ATTEST_QUOTE: Final = 0x8018
ALG_RSASSA: Final = 0x0014
ALG_RSAPSS: Final = 0x0016
ALG_ECDSA: Final = 0x0018
HASHES: Final = {0x000B: "sha256", 0x000C: "sha384", 0x000D: "sha512"}
BANKS: Final = {0x0004: "sha1", **HASHES}


@dataclass(frozen=True, slots=True)
class PcrSelection:
    """The PCRs of one bank that a quote covers, ascending."""

    bank: str  # hashlib name
    pcrs: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Quote:
    """A parsed quote."""

    qualified_signer: bytes  # TPM2B_NAME: hash algorithm and digest, of the signing key's path
    extra_data: bytes  # the requester's nonce
    clock: int  # milliseconds
    reset_count: int
    restart_count: int
    safe: bool  # the clock never went back
    firmware_version: int
    selections: tuple[PcrSelection, ...]
    pcr_digest: bytes


@dataclass(frozen=True, slots=True)
class Signature:
    """A TPMT_SIGNATURE. `r`, `s` for ECDSA, `raw` for RSA."""

    algorithm: int
    hash: str  # hashlib name
    raw: bytes = b""
    r: int = 0
    s: int = 0


class _Reader:
    """Reads big-endian fields in order; every read within the bytes or a refusal."""

    def __init__(self, data: bytes, what: str) -> None:
        self._data, self._at, self._what = data, 0, what

    def take(self, size: int) -> bytes:
        end = self._at + size
        if end > len(self._data):
            raise malformed(f"{self._what} is cut short", self._what)
        self._at, part = end, self._data[self._at : end]
        return part

    def integer(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def sized(self, limit: int) -> bytes:
        """A TPM2B: two bytes of size, then as many bytes."""
        size = self.integer(2)
        if size > limit:
            raise malformed(f"a field of {size} bytes, at most {limit}", self._what)
        return self.take(size)

    def end(self) -> None:
        if self._at != len(self._data):
            raise malformed(f"bytes follow {self._what}", self._what)


def malformed(what: str, where: str) -> AttestationRefused:
    """The refusal of bytes that do not parse."""
    return refuse("QuoteMalformed", what, where=where)


def parse_quote(message: bytes) -> Quote:
    """Read a TPMS_ATTEST that must be a quote made inside a TPM. Raises QuoteMalformed."""
    if len(message) > MAX_ATTEST_BYTES:
        raise malformed(f"a quote of {len(message)} bytes", "quote")
    reader = _Reader(message, "quote")
    if reader.integer(4) != TPM_GENERATED:
        raise malformed("not made by a TPM (TPM_GENERATED_VALUE is missing)", "quote")
    if reader.integer(2) != ST_ATTEST_QUOTE:
        raise malformed("an attestation of something else than PCRs", "quote")
    signer, extra = reader.sized(66), reader.sized(66)
    clock, resets, restarts, safe = (reader.integer(size) for size in (8, 4, 4, 1))
    if safe > 1:
        raise malformed("the clock's safe flag is neither 0 nor 1", "quote")
    firmware = reader.integer(8)
    count = reader.integer(4)
    if not 1 <= count <= MAX_SELECTIONS:
        raise malformed(f"{count} PCR selections", "quote")
    selections = tuple(_selection(reader) for _ in range(count))
    digest = reader.sized(64)
    reader.end()
    if len({one.bank for one in selections}) != count:
        raise malformed("a PCR bank is selected twice", "quote")
    return Quote(signer, extra, clock, resets, restarts, bool(safe), firmware, selections, digest)


def parse_signature(data: bytes) -> Signature:
    """Read a TPMT_SIGNATURE. Raises QuoteMalformed, QuoteSignatureUnsupported."""
    if len(data) > MAX_SIGNATURE_BYTES:
        raise malformed(f"a signature of {len(data)} bytes", "signature")
    reader = _Reader(data, "signature")
    algorithm, hashing = reader.integer(2), HASHES.get(reader.integer(2))
    if algorithm not in (ALG_RSASSA, ALG_RSAPSS, ALG_ECDSA) or hashing is None:
        raise refuse("QuoteSignatureUnsupported", f"scheme {algorithm:#06x}", where="signature")
    if algorithm == ALG_ECDSA:
        r, s = (int.from_bytes(reader.sized(66), "big") for _ in range(2))
        found = Signature(algorithm, hashing, r=r, s=s)
    else:
        found = Signature(algorithm, hashing, raw=reader.sized(512))
    reader.end()
    return found


def _selection(reader: _Reader) -> PcrSelection:
    bank, size = reader.integer(2), reader.integer(1)
    if bank not in BANKS or not 1 <= size <= MAX_PCRS // 8:
        raise malformed(f"PCR bank {bank:#06x} with {size} bytes of selection", "quote")
    bits = int.from_bytes(reader.take(size), "little")  # the first byte holds PCR 0 to 7
    return PcrSelection(BANKS[bank], tuple(pcr for pcr in range(8 * size) if bits >> pcr & 1))
