"""The decision to release a key: every condition in one pure function. Default deny."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from keymgmt.policy import rule as rules
from keymgmt.policy.documents import ReleasePolicy


@dataclass(frozen=True, slots=True)
class KeyFacts:
    """What the decision needs to know of a key."""

    namespace: str
    name: str
    tenant: str
    state: str
    jurisdiction: str
    releases: int  # under the policy in force


@dataclass(frozen=True, slots=True)
class Decision:
    """`reason` is a code (empty when allowed); `details` explain it to the key's owner, not to the guest."""

    allowed: bool
    reason: str = ""
    details: tuple[str, ...] = ()


def decide(
    key: KeyFacts, policy: ReleasePolicy, claims: Mapping[str, Any], now: datetime, operation: str = "release"
) -> Decision:
    """Whether the holder of verified `claims` may have the key, or have it used by `operation`, now."""
    if key.state != "Active":
        return Decision(False, "KeyNotActive", (f"the key is {key.state}",))
    if policy.tenant != key.tenant or f"{key.namespace}/{key.name}" not in policy.keys:
        return Decision(False, "PolicyDoesNotNameKey", ("the policy is not for this key",))
    if policy.jurisdiction != key.jurisdiction:
        return Decision(False, "JurisdictionMismatch", (f"the policy is for {policy.jurisdiction}",))
    if operation not in policy.operations:
        return Decision(
            False, "OperationNotAllowed", (f"the policy allows {', '.join(policy.operations)}, not {operation}",)
        )
    if now < policy.begins:
        return Decision(False, "PolicyNotYetValid", (f"valid from {policy.not_before}",))
    if now >= policy.ends:
        return Decision(False, "PolicyExpired", (f"valid until {policy.not_after}",))
    if key.releases >= policy.max_releases:
        return Decision(False, "RunCountExhausted", (f"{key.releases} of {policy.max_releases} releases are used",))
    request = {"namespace": key.namespace, "name": key.name}
    verdict = rules.evaluate(policy.rule, {"claims": dict(claims), "request": request, "now": now})
    if not verdict.allowed:
        return Decision(False, "RuleNotMet", verdict.unmet)
    return Decision(True)
