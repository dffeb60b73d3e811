"""What a ProtectedKey's status says, from what the key service answered. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from crds.conditions import POLICY_ACCEPTED, READY, SEALED, find, set_condition
from crds.protectedkey import ProtectedKey
from operators.keys.service import KeyServiceRefused

REFRESH_SECONDS = 15.0  # releases happen without the cluster knowing; this is how their count gets here
_POLICY_REASONS = ("Policy", "Quorum", "Custodian")
_MEANING = {
    "PreActivation": (
        False,
        "AwaitingImport",
        "the custodians have not imported it yet: `kekkai keys import`",
    ),
    "Active": (True, "Active", "released to enclaves that satisfy its policy"),
    "Suspended": (False, "Suspended", "not released now"),
    "Deactivated": (False, "Deactivated", "its time is over"),
    "Compromised": (False, "Compromised", "reported as compromised; not released"),
    "Destroyed": (False, "Destroyed", "destroyed by order of the custodians"),
}


def request_for(key: ProtectedKey, tenant: str) -> dict[str, Any]:
    """The body of the PUT. The tenant comes from the namespace, never from the object."""
    return {
        "tenant": tenant,
        "uid": key.metadata.uid,
        "purpose": key.spec.purpose,
        "algorithm": key.spec.algorithm,
        "origin": key.spec.origin,
        "policyDigest": key.spec.release_policy.digest,
        "jurisdiction": key.spec.jurisdiction,
        **(
            {"rotationDays": key.spec.rotation.interval_days, "graceDays": key.spec.rotation.grace_days}
            if key.spec.rotation
            else {}
        ),
    }


def again_after(status: Mapping[str, Any], refused: bool, now: datetime) -> float:
    """Seconds until the key service is asked again.

    An active key: soon enough to see its releases counted. One that is refused or waits for its import: at once
    at first, then less and less often, so that what nobody mends costs little.
    """
    if status["state"] == "Active" and not refused:
        return REFRESH_SECONDS
    since = find(status["conditions"], POLICY_ACCEPTED if status["state"] == "Active" else READY)
    age = (now - datetime.fromisoformat(since["lastTransitionTime"])).total_seconds() if since else 0.0
    return min(max(age / 5, 2.0), 60.0)


def status_of(
    key: ProtectedKey,
    old: Mapping[str, Any],
    answer: Mapping[str, Any],
    refused: KeyServiceRefused | None,
    now: datetime,
) -> dict[str, Any]:
    """The whole status. `answer`: the key as the service has it ({} when it has none)."""
    generation = key.metadata.generation
    conditions = list(old.get("conditions") or [])
    state = str(answer.get("state", ""))
    ready, reason, message = _MEANING.get(state, (False, "NotMade", "the key service has not made the key"))
    policy: tuple[bool, str, str] = (True, "Bound", "its digest is bound into the sealed key")
    if refused is not None:
        why = (False, refused.problem.reason, str(refused))
        if any(word in refused.problem.reason for word in _POLICY_REASONS):
            policy = why
        elif not answer:
            policy = (False, "NotMade", "the key service has not made the key")
        # A key that stands under its old policy goes on being usable: the edit alone was refused.
        if not answer:
            ready, reason, message = why
    sealed = bool(answer) and state not in {"PreActivation", "Destroyed"}
    for kind, verdict in (
        (READY, (ready, reason, message)),
        (SEALED, (sealed, "Sealed" if sealed else reason, "in the key service" if sealed else message)),
        (POLICY_ACCEPTED, policy),
    ):
        conditions = set_condition(conditions, kind, *verdict, now, generation)
    return {
        "conditions": conditions,
        "observedGeneration": generation,
        "keyID": answer.get("keyId", ""),
        "version": answer.get("version", 0),
        "state": state,
        "policyDigest": answer.get("policyDigest", ""),
        "custodianSet": answer.get("custodianSet", ""),
        "releases": answer.get("releases", 0),
        **({"logIndex": answer["logIndex"]} if answer.get("logIndex") is not None else {}),
    }
