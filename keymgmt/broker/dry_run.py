"""Trying a release policy on recorded evidence, offline: what the service would decide, and why.

The evidence is the body of an attest request, as `kekkai guest evidence` writes it. It is
verified as the service would verify it, but for the challenge: its nonce was the guest's own.
Nothing is released, counted or logged, and no key is needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from crds.errors import InvalidInput
from keymgmt.attestation import AttestationRefused, composite
from keymgmt.broker.appraisal import Appraiser, AttestRequest, rule_claims
from keymgmt.policy import rule as rules
from keymgmt.policy.decision import Decision, KeyFacts, decide
from keymgmt.policy.documents import ReleasePolicy

MAX_EVIDENCE = 1 << 20


@dataclass(frozen=True, slots=True)
class Condition:
    """One top-level condition of the rule and whether it holds."""

    text: str
    holds: bool
    seen: str  # values of the claims it names


@dataclass(frozen=True, slots=True)
class DryRun:
    """`evidence_refused` is the verifier's reason (empty when it convinced); then nothing else was looked at."""

    decision: Decision
    evidence_refused: str
    conditions: tuple[Condition, ...]
    claims: Mapping[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "allowed": self.decision.allowed,
            "reason": self.evidence_refused or self.decision.reason,
            "details": list(self.decision.details),
            "conditions": [{"condition": c.text, "holds": c.holds, "seen": c.seen} for c in self.conditions],
            "claims": dict(self.claims),
        }


def dry_run(
    policy: ReleasePolicy, key: str, body: bytes, tee: str, appraiser: Appraiser, now: datetime, releases: int = 0
) -> DryRun:
    """Decide as if `key` (namespace/name) were active with `releases` used. Raises InvalidInput for a bad body."""
    namespace, _, name = key.partition("/")
    if key not in policy.keys:
        raise InvalidInput(f"the policy is not for {key}", where="--key", fix=f"one of {', '.join(policy.keys)}")
    request = AttestRequest.parse(body, MAX_EVIDENCE)
    try:
        appraised = appraiser.appraise(tee, request, now)
    except AttestationRefused as error:
        refused = Decision(False, error.problem.reason, (str(error),))
        return DryRun(refused, error.problem.reason, (), {})
    claims = {**composite.rule_claims({"cpu0": appraised.submod, **appraised.devices}), **rule_claims(appraised.submod)}
    facts = KeyFacts(namespace, name, policy.tenant, "Active", policy.jurisdiction, releases)
    variables = {"claims": claims, "request": {"namespace": namespace, "name": name}, "now": now}
    conditions = tuple(Condition(text, holds, seen) for text, holds, seen in rules.conditions(policy.rule, variables))
    return DryRun(decide(facts, policy, claims, now), "", conditions, claims)
