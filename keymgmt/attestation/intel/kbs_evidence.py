"""TDX and SGX evidence as KBS clients send it.

Format (confidential-containers guest-components, attester/src/{tdx,sgx_dcap}):
`{"quote": "<standard base64>", "cc_eventlog": "<base64>" | null, …}`. Event logs prove
nothing by themselves and give no claims here; the RTMRs in the quote do.
"""

from __future__ import annotations

import base64
import binascii
from typing import Final

from keymgmt.attestation.intel.quote import MAX_QUOTE_BYTES
from keymgmt.attestation.refusal import refuse

_MEMBERS: Final = {"quote", "cc_eventlog", "aa_eventlog"}


def quote_of(primary_evidence: object) -> bytes:
    """The raw quote out of `primary_evidence`. Raises EvidenceMalformed."""
    if not isinstance(primary_evidence, dict):
        raise refuse("EvidenceMalformed", "expected a JSON object", where="primary_evidence")
    if unknown := sorted(str(name) for name in set(primary_evidence) - _MEMBERS):
        raise refuse("EvidenceMalformed", f"unknown member {unknown[0][:40]!r}", where="primary_evidence")
    quote = primary_evidence.get("quote")
    if not isinstance(quote, str) or len(quote) > 4 * MAX_QUOTE_BYTES // 3 + 4:
        raise refuse("EvidenceMalformed", f"expected base64 of at most {MAX_QUOTE_BYTES} bytes", where="quote")
    try:
        return base64.b64decode(quote, validate=True)
    except (binascii.Error, ValueError):
        raise refuse("EvidenceMalformed", "not valid base64", where="quote") from None
