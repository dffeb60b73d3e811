"""Nitro evidence in a KBS attest request: `{"document": "<standard base64 of the COSE_Sign1>"}`.

The KBS protocol names no Nitro evidence; here the document's `nonce` carries what REPORT_DATA
does elsewhere: SHA-384 of the canonical `{"additional-evidence", "nonce", "tee-pubkey"}`.
"""

from __future__ import annotations

import base64
import binascii

from keymgmt.attestation.nitro.document import MAX_DOCUMENT_BYTES
from keymgmt.attestation.refusal import refuse


def document_of(primary_evidence: object) -> bytes:
    """The raw document out of `primary_evidence`. Raises EvidenceMalformed."""
    if not isinstance(primary_evidence, dict) or set(primary_evidence) != {"document"}:
        raise refuse("EvidenceMalformed", "expected an object with the one member document", where="primary_evidence")
    document = primary_evidence["document"]
    if not isinstance(document, str) or len(document) > 4 * MAX_DOCUMENT_BYTES // 3 + 4:
        raise refuse("EvidenceMalformed", f"expected base64 of at most {MAX_DOCUMENT_BYTES} bytes", where="document")
    try:
        return base64.b64decode(document, validate=True)
    except (binascii.Error, ValueError):
        raise refuse("EvidenceMalformed", "not valid base64", where="document") from None
