"""What can be wrong with custodians, signatures and policies."""

from __future__ import annotations

from crds.errors import Forbidden, InvalidInput


class PolicyInvalid(InvalidInput):
    """A signed document does not have the form that its type demands."""

    reason = "PolicyInvalid"


class EnvelopeInvalid(InvalidInput):
    """Not a DSSE envelope of the expected payload type."""

    reason = "EnvelopeInvalid"


class QuorumNotMet(Forbidden):
    """Fewer custodians signed than the tenant's custodian set demands."""

    reason = "QuorumNotMet"
