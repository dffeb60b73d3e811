"""The Nitro attestation document as bytes: COSE_Sign1 (RFC 9052) around a CBOR map.

Source: AWS "Nitro Enclaves: Verifying the root of trust" and the NSM API's
attestation_process.md, which give the map's members and bounds. Parsing trusts nothing. No
signature covers the envelope's own encoding, so only its shortest form is taken.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import cbor2

from keymgmt.attestation.refusal import AttestationRefused, refuse

MAX_DOCUMENT_BYTES: Final = 16 * 1024
MAX_DEPTH: Final = 3
MAX_CERTIFICATE_BYTES: Final = 1024
MAX_BUNDLE: Final = 8
MAX_PCRS: Final = 32
PCR_BYTES: Final = 48  # SHA-384, the one digest that AWS uses
SIGNATURE_BYTES: Final = 96
_PROTECTED: Final = bytes.fromhex("a1013822")  # {1: -35}: ES384
_MEMBERS: Final = {"module_id", "digest", "timestamp", "pcrs", "certificate", "cabundle"}
_OPTIONAL: Final = {"public_key": 1024, "user_data": 512, "nonce": 512}
_LAST_MOMENT: Final = 253402300799999  # milliseconds; the end of year 9999
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class NitroDocument:
    """A parsed document. PCRs are 48 raw bytes by index; `bundle` starts at the root."""

    module_id: str
    time: datetime
    pcrs: Mapping[int, bytes]
    certificate: bytes  # DER, the enclave's
    bundle: tuple[bytes, ...]  # DER
    public_key: bytes | None
    user_data: bytes | None
    nonce: bytes | None
    signed: bytes  # the Sig_structure that the signature is over
    signature: bytes  # r ‖ s, 96 bytes

    @property
    def debug(self) -> bool:
        """An enclave started in debug mode has PCRs of zeros: its console is open to the parent."""
        return not any(self.pcrs[0])


def parse_document(data: bytes) -> NitroDocument:
    """Read an untagged COSE_Sign1 of at most 16 KiB with nothing after it.

    Raises DocumentMalformed and SignatureAlgorithmUnsupported.
    """
    if len(data) > MAX_DOCUMENT_BYTES:
        raise _malformed(f"a document has at most {MAX_DOCUMENT_BYTES} bytes", "document")
    envelope = _decode(data, "document")
    if not isinstance(envelope, list) or len(envelope) != 4:
        raise _malformed("not a COSE_Sign1 of four parts", "document")
    protected, unprotected, payload, signature = envelope
    if not isinstance(payload, bytes) or unprotected != {} or not isinstance(unprotected, dict):
        raise _malformed("COSE_Sign1 needs a payload and no unprotected headers", "document")
    if protected != _PROTECTED:
        raise refuse("SignatureAlgorithmUnsupported", "the document is not signed by ES384", where="protected")
    if not isinstance(signature, bytes) or len(signature) != SIGNATURE_BYTES:
        raise _malformed(f"a signature has {SIGNATURE_BYTES} bytes", "signature")
    if cbor2.dumps(envelope) != data:
        raise _malformed("the envelope is not in its shortest encoding", "document")
    members = _members(payload)
    return NitroDocument(
        module_id=_text(members, "module_id", 128),
        time=_time(members),
        pcrs=_pcrs(members["pcrs"]),
        certificate=_bytes(members["certificate"], "certificate", MAX_CERTIFICATE_BYTES),
        bundle=_bundle(members["cabundle"]),
        public_key=_optional(members, "public_key"),
        user_data=_optional(members, "user_data"),
        nonce=_optional(members, "nonce"),
        signed=cbor2.dumps(["Signature1", protected, b"", payload]),
        signature=signature,
    )


def _decode(data: bytes, where: str) -> Any:
    stream = io.BytesIO(data)
    try:
        decoder = cbor2.CBORDecoder(stream, max_depth=MAX_DEPTH, allow_duplicate_keys=False, read_size=1)
        value = decoder.decode()
    except Exception:  # the decoder raises what it likes on foreign bytes
        raise _malformed("not CBOR, nested too deep, or a key occurs twice", where) from None
    if stream.tell() != len(data):
        raise _malformed("bytes follow the document", where)
    return value


def _members(payload: bytes) -> dict[str, Any]:
    members = _decode(payload, "payload")
    if not isinstance(members, dict) or not all(isinstance(name, str) for name in members):
        raise _malformed("the payload is not a map of names", "payload")
    if missing := sorted(_MEMBERS - set(members)):
        raise _malformed(f"{missing[0]} is missing", "payload")
    if unknown := sorted(set(members) - _MEMBERS - set(_OPTIONAL)):
        raise _malformed(f"unknown member {unknown[0][:40]!r}", "payload")
    if members["digest"] != "SHA384":
        raise _malformed("digest is not SHA384", "digest")
    return members


def _text(members: Mapping[str, Any], name: str, limit: int) -> str:
    value = members[name]
    if not isinstance(value, str) or not 0 < len(value) <= limit:
        raise _malformed(f"expected a text of 1 to {limit} characters", name)
    return value


def _time(members: Mapping[str, Any]) -> datetime:
    value = members["timestamp"]
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= _LAST_MOMENT:
        raise _malformed("expected milliseconds since 1970", "timestamp")
    return _EPOCH + timedelta(milliseconds=value)


def _pcrs(value: object) -> dict[int, bytes]:
    if not isinstance(value, dict) or not 0 < len(value) <= MAX_PCRS:
        raise _malformed(f"expected 1 to {MAX_PCRS} registers", "pcrs")
    for index, register in value.items():
        if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < MAX_PCRS:
            raise _malformed(f"an index is not a number below {MAX_PCRS}", "pcrs")
        if not isinstance(register, bytes) or len(register) != PCR_BYTES:
            raise _malformed(f"a register has {PCR_BYTES} bytes", f"pcrs.{index}")
    if 0 not in value:
        raise _malformed("PCR0 is missing", "pcrs")
    return dict(sorted(value.items()))


def _bundle(value: object) -> tuple[bytes, ...]:
    if not isinstance(value, list) or not 0 < len(value) <= MAX_BUNDLE:
        raise _malformed(f"expected 1 to {MAX_BUNDLE} certificates", "cabundle")
    return tuple(_bytes(one, "cabundle", MAX_CERTIFICATE_BYTES) for one in value)


def _bytes(value: object, where: str, limit: int) -> bytes:
    if not isinstance(value, bytes) or not 0 < len(value) <= limit:
        raise _malformed(f"expected 1 to {limit} bytes", where)
    return value


def _optional(members: Mapping[str, Any], name: str) -> bytes | None:
    value = members.get(name)
    if value is None:
        return None
    if not isinstance(value, bytes) or len(value) > _OPTIONAL[name]:
        raise _malformed(f"expected at most {_OPTIONAL[name]} bytes", name)
    return value


def _malformed(what: str, where: str) -> AttestationRefused:
    return refuse("DocumentMalformed", what, where=where)
