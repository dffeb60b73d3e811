"""The DCAP quote as bytes: exact layouts of versions 3, 4 and 5, with SGX and TD report bodies.

Source: Intel "Intel SGX ECDSA QuoteLibReference (DCAP) API", A.4 (version 3), and "Intel TDX
DCAP Quoting Library API", A.3 and A.4 (versions 4 and 5). Parsing trusts nothing: it says
what the bytes state. All integers are little-endian.

One platform statement has one byte string: every length must fit exactly and what follows
the signature data must be zero (quoting services pad their buffer), since no signature
covers lengths, types and padding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from keymgmt.attestation.refusal import AttestationRefused, refuse

MAX_QUOTE_BYTES: Final = 32 * 1024
MAX_AUTHENTICATION_BYTES: Final = 1024
MAX_CHAIN_BYTES: Final = 16 * 1024
HEADER_BYTES: Final = 48
SGX_BODY_BYTES: Final = 384
TD10_BODY_BYTES: Final = 584
TD15_BODY_BYTES: Final = 648
ECDSA_P256: Final = 2
TEE_SGX: Final = 0x00
TEE_TDX: Final = 0x81
PCK_CHAIN: Final = 5  # certification data: PCK leaf, intermediate and root, PEM
QE_REPORT: Final = 6  # certification data that wraps the quoting enclave's report (versions 4, 5)
_V5_BODIES: Final = {1: (TEE_SGX, SGX_BODY_BYTES), 2: (TEE_TDX, TD10_BODY_BYTES), 3: (TEE_TDX, TD15_BODY_BYTES)}

Tee = Literal["tdx", "sgx"]


@dataclass(frozen=True, slots=True)
class TdReport:
    """A TD report body. Registers are 48 raw bytes; the last two fields exist from TDX 1.5 on."""

    tee_tcb_svn: bytes
    mr_seam: bytes
    mr_signer_seam: bytes
    seam_attributes: int
    attributes: int  # TDATTRIBUTES, 64 bits
    xfam: int
    mr_td: bytes
    mr_config_id: bytes
    mr_owner: bytes
    mr_owner_config: bytes
    rtmrs: tuple[bytes, bytes, bytes, bytes]
    report_data: bytes
    tee_tcb_svn2: bytes | None = None
    mr_service_td: bytes | None = None


@dataclass(frozen=True, slots=True)
class EnclaveReport:
    """An SGX report body: measurements are 32 raw bytes, `flags` and `xfrm` the halves of ATTRIBUTES."""

    cpu_svn: bytes
    misc_select: int
    isv_ext_prod_id: bytes
    flags: int
    xfrm: int
    mr_enclave: bytes
    mr_signer: bytes
    config_id: bytes
    isv_prod_id: int
    isv_svn: int
    config_svn: int
    isv_family_id: bytes
    report_data: bytes


@dataclass(frozen=True, slots=True)
class Quote:
    """A parsed quote. `raw` is the quote without the padding after it."""

    version: int
    tee: Tee
    qe_vendor_id: bytes
    body: TdReport | EnclaveReport
    signed: bytes  # header and body, which the attestation key signs
    signature: bytes  # r ‖ s, 64 bytes
    attestation_key: bytes  # x ‖ y, 64 bytes
    qe_report: bytes
    qe_signature: bytes
    authentication_data: bytes
    pck_chain: bytes
    raw: bytes


class _Reader:
    """Takes fields off a byte string, each within its bounds."""

    def __init__(self, data: bytes, where: str) -> None:
        self._data, self._at, self._where = data, 0, where

    def take(self, size: int) -> bytes:
        end = self._at + size
        if end > len(self._data):
            raise refuse("QuoteMalformed", "the quote ends within a field", where=self._where)
        part = self._data[self._at : end]
        self._at = end
        return part

    def integer(self, size: int) -> int:
        return int.from_bytes(self.take(size), "little")

    def sized(self, width: int, limit: int) -> bytes:
        size = self.integer(width)
        if size > limit:
            raise refuse("QuoteMalformed", f"a field of {size} bytes is longer than {limit}", where=self._where)
        return self.take(size)

    def end(self) -> None:
        if self._at != len(self._data):
            raise refuse("QuoteMalformed", "a length does not fit its contents", where=self._where)

    def rest(self) -> bytes:
        return self._data[self._at :]

    @property
    def position(self) -> int:
        return self._at


def parse_quote(data: bytes) -> Quote:
    """Read a quote of at most 32 KiB, zero padding after it allowed.

    Raises QuoteMalformed, QuoteVersionUnsupported, SignatureAlgorithmUnsupported and, for
    certification data that is not the PCK chain itself, CertificateMissing.
    """
    if len(data) > MAX_QUOTE_BYTES:
        raise refuse("QuoteMalformed", f"a quote has at most {MAX_QUOTE_BYTES} bytes", where="quote")
    reader = _Reader(data, "quote")
    version = reader.integer(2)
    if version not in (3, 4, 5):
        raise refuse("QuoteVersionUnsupported", f"version {version} is not 3, 4 or 5", where="quote.version")
    if (algorithm := reader.integer(2)) != ECDSA_P256:
        raise refuse("SignatureAlgorithmUnsupported", f"attestation key type {algorithm} is not ECDSA P-256")
    tee_type = reader.integer(4)
    reader.take(4)  # SVNs of QE and PCE, said again and signed where they count
    vendor = reader.take(16)
    reader.take(20)
    body = reader.take(_body_size(reader, version, tee_type))
    signed_end = reader.position
    signature_data = reader.sized(4, MAX_QUOTE_BYTES)
    if any(reader.rest()):
        raise refuse("QuoteMalformed", "bytes after the signature data are not zero", where="quote")
    signature, key, certification = _signature_data(signature_data, version)
    qe = _Reader(certification, "quote.certification")
    qe_report, qe_signature = qe.take(SGX_BODY_BYTES), qe.take(64)
    authentication = qe.sized(2, MAX_AUTHENTICATION_BYTES)
    if (kind := qe.integer(2)) != PCK_CHAIN:
        raise _no_chain(kind)
    chain = qe.sized(4, MAX_CHAIN_BYTES)
    qe.end()
    return Quote(
        version=version,
        tee="tdx" if tee_type == TEE_TDX else "sgx",
        qe_vendor_id=vendor,
        body=_td_report(body) if tee_type == TEE_TDX else parse_enclave_report(body),
        signed=data[:signed_end],
        signature=signature,
        attestation_key=key,
        qe_report=qe_report,
        qe_signature=qe_signature,
        authentication_data=authentication,
        pck_chain=chain,
        raw=data[: reader.position],
    )


def parse_enclave_report(body: bytes) -> EnclaveReport:
    """Read an SGX report body of exactly 384 bytes. Raises QuoteMalformed."""
    if len(body) != SGX_BODY_BYTES:
        raise refuse("QuoteMalformed", f"an enclave report has {SGX_BODY_BYTES} bytes, this one {len(body)}")
    return EnclaveReport(
        cpu_svn=body[:16],
        misc_select=_integer(body, 16, 4),
        isv_ext_prod_id=body[32:48],
        flags=_integer(body, 48, 8),
        xfrm=_integer(body, 56, 8),
        mr_enclave=body[64:96],
        mr_signer=body[128:160],
        config_id=body[192:256],
        isv_prod_id=_integer(body, 256, 2),
        isv_svn=_integer(body, 258, 2),
        config_svn=_integer(body, 260, 2),
        isv_family_id=body[304:320],
        report_data=body[320:384],
    )


def _body_size(reader: _Reader, version: int, tee_type: int) -> int:
    if version == 3 and tee_type != TEE_SGX:  # the field is reserved there, and zero
        raise refuse("QuoteMalformed", "a version 3 quote is of SGX", where="quote.tee_type")
    if tee_type not in (TEE_SGX, TEE_TDX):
        raise refuse("QuoteMalformed", f"TEE type {tee_type:#x} is neither SGX nor TDX", where="quote.tee_type")
    if version < 5:
        return SGX_BODY_BYTES if tee_type == TEE_SGX else TD10_BODY_BYTES
    kind, size = reader.integer(2), reader.integer(4)
    if _V5_BODIES.get(kind) != (tee_type, size):
        raise refuse("QuoteMalformed", f"body type {kind} with {size} bytes is not known", where="quote.body")
    return size


def _signature_data(data: bytes, version: int) -> tuple[bytes, bytes, bytes]:
    """Signature, attestation key, and what certifies that key."""
    reader = _Reader(data, "quote.signature_data")
    signature, key = reader.take(64), reader.take(64)
    if version == 3:
        return signature, key, reader.rest()
    if (kind := reader.integer(2)) != QE_REPORT:
        raise _no_chain(kind)
    certification = reader.sized(4, MAX_QUOTE_BYTES)
    reader.end()
    return signature, key, certification


def _no_chain(kind: int) -> AttestationRefused:
    return refuse(
        "CertificateMissing",
        f"certification data of type {kind} holds no PCK certificate chain",
        where="quote.certification",
        fix="let the quoting service put the PCK chain into the quote (type 5)",
    )


def _td_report(body: bytes) -> TdReport:
    later = len(body) == TD15_BODY_BYTES
    return TdReport(
        tee_tcb_svn=body[:16],
        mr_seam=body[16:64],
        mr_signer_seam=body[64:112],
        seam_attributes=_integer(body, 112, 8),
        attributes=_integer(body, 120, 8),
        xfam=_integer(body, 128, 8),
        mr_td=body[136:184],
        mr_config_id=body[184:232],
        mr_owner=body[232:280],
        mr_owner_config=body[280:328],
        rtmrs=(body[328:376], body[376:424], body[424:472], body[472:520]),
        report_data=body[520:584],
        tee_tcb_svn2=body[584:600] if later else None,
        mr_service_td=body[600:648] if later else None,
    )


def _integer(body: bytes, offset: int, size: int) -> int:
    return int.from_bytes(body[offset : offset + size], "little")
