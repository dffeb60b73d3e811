"""Key states and legal transitions after NIST SP 800-57 part 1, section 7. Pure."""

from __future__ import annotations

from enum import StrEnum

from crds.errors import Conflict


class KeyState(StrEnum):
    """States of a key version. Only an Active key is released."""

    PRE_ACTIVATION = "PreActivation"
    ACTIVE = "Active"
    SUSPENDED = "Suspended"
    DEACTIVATED = "Deactivated"
    COMPROMISED = "Compromised"
    DESTROYED = "Destroyed"


class IllegalTransition(Conflict):
    """SP 800-57 knows no such step."""

    reason = "IllegalTransition"


_NEXT: dict[KeyState, frozenset[KeyState]] = {
    KeyState.PRE_ACTIVATION: frozenset({KeyState.ACTIVE, KeyState.COMPROMISED, KeyState.DESTROYED}),
    KeyState.ACTIVE: frozenset({KeyState.SUSPENDED, KeyState.DEACTIVATED, KeyState.COMPROMISED}),
    KeyState.SUSPENDED: frozenset({KeyState.ACTIVE, KeyState.DEACTIVATED, KeyState.COMPROMISED}),
    KeyState.DEACTIVATED: frozenset({KeyState.COMPROMISED, KeyState.DESTROYED}),
    KeyState.COMPROMISED: frozenset({KeyState.DESTROYED}),
    KeyState.DESTROYED: frozenset(),
}


def require_transition(present: KeyState, wanted: KeyState, where: str) -> None:
    """Raise IllegalTransition unless `wanted` may follow `present`."""
    if wanted not in _NEXT[present]:
        raise IllegalTransition(f"a key that is {present} cannot become {wanted}", where=where)


def way_to_destroyed(present: KeyState) -> list[KeyState]:
    """The states to pass on the way: an active key is deactivated before it is destroyed."""
    if present is KeyState.DESTROYED:
        return []
    if KeyState.DESTROYED in _NEXT[present]:
        return [KeyState.DESTROYED]
    return [KeyState.DEACTIVATED, KeyState.DESTROYED]
