"""AWS Nitro Enclaves: an attestation document, a policy and a time in; claims or a refusal out.

Pure: no clock, no network. It must not know keys, tenants or HTTP.
"""

from keymgmt.attestation.nitro.chain import AWS_ROOT_G1, BUILTIN_ANCHORS, NitroAnchors
from keymgmt.attestation.nitro.document import NitroDocument, parse_document
from keymgmt.attestation.nitro.verify import NitroClaims, NitroPolicy, verify_nitro

__all__ = [
    "AWS_ROOT_G1",
    "BUILTIN_ANCHORS",
    "NitroAnchors",
    "NitroClaims",
    "NitroDocument",
    "NitroPolicy",
    "parse_document",
    "verify_nitro",
]
