"""Verifiers: evidence in, proven claims or a refusal with its own reason out.

AMD SEV-SNP is here: `verify_snp` checks a report, its certificate chain up to a pinned root,
its TCB and policy, and gives `SnpClaims`. The other kinds have packages of their own (`intel`,
`nitro`, `nvidia`, `vtpm`, `eventlog`), as has what vendors publish (`collateral`, which alone
reaches for the network, in its fetchers). Pure functions: the time, the roots and the policy
are arguments. It must not know keys, tenants, release rules or the KBS, and it must never be
lenient by default.
"""

from keymgmt.attestation.init_data import host_data_of, init_data_digest, parse_init_data
from keymgmt.attestation.kbs_evidence import SnpEvidence, parse_kbs_evidence, snp_evidence
from keymgmt.attestation.policy import SnpPolicy
from keymgmt.attestation.refusal import REASONS, AttestationRefused
from keymgmt.attestation.report import SnpReport, Tcb, parse_report
from keymgmt.attestation.roots import AMD_ROOTS, TrustRoots
from keymgmt.attestation.snp import SnpClaims, verify_snp

__all__ = [
    "AMD_ROOTS",
    "REASONS",
    "AttestationRefused",
    "SnpClaims",
    "SnpEvidence",
    "SnpPolicy",
    "SnpReport",
    "Tcb",
    "TrustRoots",
    "host_data_of",
    "init_data_digest",
    "parse_init_data",
    "parse_kbs_evidence",
    "parse_report",
    "snp_evidence",
    "verify_snp",
]
