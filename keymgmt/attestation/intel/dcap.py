"""dcap-qvl behind one function: signatures, revocation and TCB level of a quote; refusals by reason.

The library tells faults apart in words only. What can be told before (form, dates, platform)
is checked by our own code and named exactly; the words here divide the rest. Unknown words
are a refusal too: they become SignatureInvalid, never an acceptance.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, TypeVar

import dcap_qvl

from keymgmt.attestation.refusal import AttestationRefused, refuse

T = TypeVar("T")

# Words of the library → reason, first match counts.
_WORDS: Final[tuple[tuple[str, str], ...]] = (
    ("CrlExpired", "CrlExpired"),
    ("CertRevoked", "CertificateRevoked"),
    ("No matching TCB level", "TcbLevelUnmatched"),
    ("TCB status is invalid: Revoked", "TcbRevoked"),
    ("Fmspc mismatch", "CollateralMismatch"),
    ("TCB info in the collateral", "CollateralMismatch"),
    ("Unsupported QE Identity", "CollateralMismatch"),
    ("issue date is in the future", "CollateralNotYetValid"),
    ("TCBInfo expired", "CollateralExpired"),
    ("QE Identity expired", "CollateralExpired"),
    ("tcb_info in quote_collateral", "CollateralInvalid"),
    ("qe_identity in quote_collateral", "CollateralInvalid"),
    ("Debug mode", "DebugAllowed"),
    ("profiling", "DebugAllowed"),
    ("SEPT_VE_DISABLE", "SeptVeEnabled"),
    ("TD migration", "MigrationAllowed"),
    ("MR service TD", "MigrationAllowed"),
    ("TD attributes", "AttributesNotAllowed"),
    ("SERVTD_EXT", "AttributesNotAllowed"),
    ("TDX module identity", "TdxModuleUnknown"),
    ("No TDX module identity", "TdxModuleUnknown"),
    ("TDX module", "TcbLevelUnmatched"),
    ("QE vendor", "QuotingEnclaveInvalid"),
    ("QE report", "QuotingEnclaveInvalid"),
    ("qe_report", "QuotingEnclaveInvalid"),
    ("QE ISVSVN", "TcbLevelUnmatched"),
    ("QE ISVPRODID", "QuotingEnclaveInvalid"),
    ("QE MISCSELECT", "QuotingEnclaveInvalid"),
    ("QE ATTRIBUTES", "QuotingEnclaveInvalid"),
    ("QE MRSIGNER", "QuotingEnclaveInvalid"),
    ("decode quote", "QuoteMalformed"),
    ("extract PCK", "CertificateMalformed"),
    ("parse PCK", "CertificateMalformed"),
    ("CertNotValidYet", "CertificateNotYetValid"),
    ("CertExpired", "CertificateExpired"),
    ("certificate chain", "CertificateChainInvalid"),
    ("enclave report signature", "SignatureInvalid"),
)


@dataclass(frozen=True, slots=True)
class TcbVerdict:
    """What Intel's collateral says of an authentic quote's platform."""

    status: str  # UpToDate, SWHardeningNeeded, ConfigurationNeeded, …, OutOfDate
    advisories: tuple[str, ...]  # such as INTEL-SA-00289, sorted


def judge(quote: bytes, collateral: dcap_qvl.QuoteCollateralV3, root_der: bytes, now: datetime) -> TcbVerdict:
    """Verify everything but the policy at `now`, under the root certificate given. Raises AttestationRefused."""
    report = guarded(lambda: dcap_qvl.verify_with_root_ca(quote, collateral, root_der, int(now.timestamp())), _refusal)
    return TcbVerdict(report.status, _sorted(report.advisory_ids))


def guarded(call: Callable[[], T], refusal: Callable[[str], AttestationRefused]) -> T:
    """The call's value; whatever it raises becomes a refusal. A panic in Rust is no Exception in Python."""
    try:
        return call()
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as error:
        raise refusal(str(error)) from None


def _sorted(advisories: Sequence[str]) -> tuple[str, ...]:
    return tuple(sorted(set(advisories)))


def _refusal(told: str) -> AttestationRefused:
    reason = next((reason for words, reason in _WORDS if words in told), "SignatureInvalid")
    return refuse(reason, where="quote")
