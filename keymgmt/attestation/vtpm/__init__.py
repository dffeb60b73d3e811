"""Virtual TPMs: quotes over PCRs, and the confidential VMs whose hardware vouches for the TPM.

`verify_quote` checks a TPM 2.0 quote under a given attestation key; `verify_azure_cvm` finds
that key in an SNP report first. Pure functions. It must not know event logs (which PCRs mean
what is `keymgmt.attestation.eventlog`'s), keys of tenants, HTTP or the network.
"""

from keymgmt.attestation.vtpm.attest import PcrSelection, Quote, Signature, parse_quote, parse_signature
from keymgmt.attestation.vtpm.azure_cvm import AzureClaims, AzureEvidence, parse_azure_evidence, verify_azure_cvm
from keymgmt.attestation.vtpm.quote import PcrPolicy, QuotedPcrs, verify_quote

__all__ = [
    "AzureClaims",
    "AzureEvidence",
    "PcrPolicy",
    "PcrSelection",
    "Quote",
    "QuotedPcrs",
    "Signature",
    "parse_azure_evidence",
    "parse_quote",
    "parse_signature",
    "verify_azure_cvm",
    "verify_quote",
]
