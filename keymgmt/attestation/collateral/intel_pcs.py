"""Intel's Provisioning Certification Service, version 4, or a caching service (PCCS) that speaks the same.

Source: Intel "Provisioning Certification Service API, version 4". The signed texts are kept
byte for byte: signatures are over their exact form.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final
from urllib.parse import unquote

from crds.errors import InvalidInput
from keymgmt import strict_json
from keymgmt.attestation.collateral.pieces import Piece
from keymgmt.attestation.collateral.vendor_client import CollateralUnavailable, VendorClient
from keymgmt.attestation.intel.pck import Ca
from keymgmt.attestation.intel.quote import Tee

PCS_URL: Final = "https://api.trustedservices.intel.com"
CERTIFICATES_URL: Final = "https://certificates.trustedservices.intel.com"
ROOT_CRL_PATH: Final = "/IntelSGXRootCA.der"


class IntelPcs:
    """Fetches the collateral of a platform. Raises CollateralUnavailable.

    `client` asks the PCS; `certificates` asks where Intel serves its root's revocation list.
    """

    def __init__(self, client: VendorClient, certificates: VendorClient) -> None:
        self._client, self._certificates = client, certificates

    def collateral(self, tee: Tee, fmspc: str, ca: Ca, now: datetime, *, early: bool = False) -> Piece:
        """QuoteCollateralV3 for a TEE, FMSPC (12 hex digits) and PCK CA.

        `early` asks for the newest TCB evaluation instead of the one in general effect.
        """
        base, update = f"/{tee}/certification/v4", {"update": "early" if early else "standard"}
        tcb = self._client.get(f"{base}/tcb", {"fmspc": fmspc, **update})
        qe = self._client.get(f"{base}/qe/identity", update)
        crl = self._client.get("/sgx/certification/v4/pckcrl", {"ca": ca, "encoding": "der"})
        root_crl = self._certificates.get(ROOT_CRL_PATH)
        tcb_text, tcb_signature = signed_text(tcb.body, "tcbInfo")
        qe_text, qe_signature = signed_text(qe.body, "enclaveIdentity")
        document = {
            "pck_crl_issuer_chain": _chain(crl.headers, "sgx-pck-crl-issuer-chain"),
            "root_ca_crl": root_crl.body.hex(),
            "pck_crl": crl.body.hex(),
            "tcb_info_issuer_chain": _chain(tcb.headers, "tcb-info-issuer-chain"),
            "tcb_info": tcb_text,
            "tcb_info_signature": tcb_signature,
            "qe_identity_issuer_chain": _chain(qe.headers, "sgx-enclave-identity-issuer-chain"),
            "qe_identity": qe_text,
            "qe_identity_signature": qe_signature,
        }
        body = json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
        return Piece(f"intel/{tee}/{fmspc.upper()}/{ca}", body, now)


def signed_text(body: bytes, member: str) -> tuple[str, str]:
    """The exact text of `member` in `{"<member>": {…}, "signature": "<hex>"}`, and the signature.

    Raises CollateralUnavailable: the service answered with something else.
    """
    try:
        document = strict_json.parse_object(body, where=member)
        text = body.decode()
    except (InvalidInput, UnicodeDecodeError):
        raise _unexpected(member) from None
    signature: Any = document.get("signature")
    start = text.find(f'"{member}":')
    if set(document) != {member, "signature"} or not isinstance(signature, str) or start < 0:
        raise _unexpected(member)
    start += len(member) + 3
    while start < len(text) and text[start] in " \t\r\n":
        start += 1
    try:
        value, end = json.JSONDecoder().raw_decode(text, start)
    except ValueError:
        raise _unexpected(member) from None
    if value != document[member]:  # the name stood inside a text before the member itself
        raise _unexpected(member)
    return text[start:end], signature


def _chain(headers: Mapping[str, str], name: str) -> str:
    if name not in headers:
        raise CollateralUnavailable(f"the reply lacks the header {name}", where="headers")
    return unquote(headers[name])


def _unexpected(member: str) -> CollateralUnavailable:
    return CollateralUnavailable("the service answered with something else", where=member)
