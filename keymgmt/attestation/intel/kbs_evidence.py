"""TDX and SGX evidence as KBS clients send it.

Format (confidential-containers guest-components, attester/src/{tdx,sgx_dcap}):
`{"quote": "<standard base64>", "cc_eventlog": "<standard base64>" | null}`; SGX has the quote only.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any, Final

from keymgmt.attestation.eventlog.log import MAX_LOG_BYTES
from keymgmt.attestation.intel.quote import MAX_QUOTE_BYTES
from keymgmt.attestation.refusal import refuse

_MEMBERS: Final = {"quote", "cc_eventlog", "aa_eventlog"}


def quote_of(primary_evidence: object) -> bytes:
    """The raw quote out of `primary_evidence`. Raises EvidenceMalformed."""
    return _bytes(_object(primary_evidence).get("quote"), MAX_QUOTE_BYTES, "quote")


def event_log_of(primary_evidence: object) -> bytes | None:
    """The raw CCEL log that came along; None if there is none. Raises EvidenceMalformed."""
    log = _object(primary_evidence).get("cc_eventlog")
    return None if log is None else _bytes(log, MAX_LOG_BYTES, "cc_eventlog")


def _object(primary_evidence: object) -> dict[str, Any]:
    if not isinstance(primary_evidence, dict):
        raise refuse("EvidenceMalformed", "expected a JSON object", where="primary_evidence")
    if unknown := sorted(str(name) for name in set(primary_evidence) - _MEMBERS):
        raise refuse("EvidenceMalformed", f"unknown member {unknown[0][:40]!r}", where="primary_evidence")
    return primary_evidence


def _bytes(value: object, limit: int, where: str) -> bytes:
    if not isinstance(value, str) or len(value) > 4 * limit // 3 + 4:
        raise refuse("EvidenceMalformed", f"expected base64 of at most {limit} bytes", where=where)
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise refuse("EvidenceMalformed", "not valid base64", where=where) from None
