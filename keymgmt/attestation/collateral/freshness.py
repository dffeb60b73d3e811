"""When a piece of collateral may be relied upon: its own dates, its age, and no step backwards."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from keymgmt.attestation.refusal import refuse


@dataclass(frozen=True, slots=True)
class Validity:
    """What a piece says about itself. Times are aware of their zone.

    `sequence` never falls between honest issues of one name: Intel's tcbEvaluationDataNumber,
    a CRL's number; 0 where the format has none. `expires` is None where it states no end.
    """

    issued: datetime
    expires: datetime | None
    sequence: int = 0

    def as_dict(self) -> dict[str, Any]:
        """JSON form; times as RFC 3339."""
        return {
            "issued": self.issued.isoformat(),
            "expires": self.expires.isoformat() if self.expires else None,
            "sequence": self.sequence,
        }

    def behind(self, other: Validity) -> bool:
        """Whether this is an older issue than `other`: a lower sequence, or the same and issued earlier."""
        return (self.sequence, self.issued) < (other.sequence, other.issued)


@dataclass(frozen=True, slots=True)
class FreshnessPolicy:
    """How fresh collateral must be, beyond its own dates.

    `max_age` counts from the issue time. `minimum_sequence` and `not_issued_before` are
    floors that an operator raises after a TCB recovery, so that a host cannot hand over old
    but still unexpired collateral that knows nothing of a vulnerability.
    """

    max_age: timedelta | None = None
    minimum_sequence: int = 0
    not_issued_before: datetime | None = None


def check_freshness(
    validity: Validity, now: datetime, policy: FreshnessPolicy, *, where: str, revocation: bool = False
) -> None:
    """Raise CollateralNotYetValid, CollateralExpired (CrlExpired with `revocation`), CollateralTooOld or
    CollateralRolledBack unless the piece may be relied upon at `now`. `where` names the piece."""
    if now < validity.issued:
        raise refuse("CollateralNotYetValid", f"issued {validity.issued.isoformat()}", where=where)
    if validity.expires is not None and now > validity.expires:
        reason = "CrlExpired" if revocation else "CollateralExpired"
        raise refuse(
            reason, f"next update was due {validity.expires.isoformat()}", where=where, fix="refresh the collateral"
        )
    if policy.max_age is not None and now - validity.issued > policy.max_age:
        raise refuse(
            "CollateralTooOld",
            f"issued {validity.issued.isoformat()}, accepted for {policy.max_age}",
            where=where,
            fix="refresh the collateral",
        )
    if validity.sequence < policy.minimum_sequence:
        raise refuse(
            "CollateralRolledBack",
            f"evaluation number {validity.sequence} is below {policy.minimum_sequence}",
            where=where,
            fix="refresh the collateral",
        )
    if policy.not_issued_before is not None and validity.issued < policy.not_issued_before:
        raise refuse(
            "CollateralRolledBack",
            f"issued {validity.issued.isoformat()}, before {policy.not_issued_before.isoformat()}",
            where=where,
            fix="refresh the collateral",
        )
