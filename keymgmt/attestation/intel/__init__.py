"""Intel TDX and SGX: a DCAP quote, collateral, a policy and a time in; claims or a refusal out.

Our own strict parser reads the fields that become claims; signatures, revocation and TCB
levels are judged by dcap-qvl (`dcap` is the one module that knows it). Pure: no clock, no
network. It must not know keys, tenants, HTTP or where collateral comes from.
"""

from keymgmt.attestation.intel.endorsements import BUILTIN_ANCHORS, IntelAnchors, IntelCollateral, IntelEndorsements
from keymgmt.attestation.intel.policy import SgxPolicy, TcbPolicy, TdxPolicy
from keymgmt.attestation.intel.quote import Quote, parse_quote
from keymgmt.attestation.intel.verify import SgxClaims, TdxClaims, verify_sgx, verify_tdx

__all__ = [
    "BUILTIN_ANCHORS",
    "IntelAnchors",
    "IntelCollateral",
    "IntelEndorsements",
    "Quote",
    "SgxClaims",
    "SgxPolicy",
    "TcbPolicy",
    "TdxClaims",
    "TdxPolicy",
    "parse_quote",
    "verify_sgx",
    "verify_tdx",
]
