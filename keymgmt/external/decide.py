"""The custodian's side, pure: whether a request proves a release that this custodian agrees to.

Nothing is taken on the key service's word: the token must be signed by its known token key,
the entry must be in its known log, and both must speak of the same session, evidence and
recipient. Then the custodian's own list of policies, rule and count decide.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from crds.errors import Forbidden
from keymgmt.attestation import composite
from keymgmt.broker.appraisal import rule_claims
from keymgmt.broker.tokens import TokenKey, tee_key_of
from keymgmt.external.protocol import ExternalRelease
from keymgmt.policy import rule as rules
from keymgmt.transparency.entries import RELEASE, decode_entry
from keymgmt.transparency.note import VerifierKey
from keymgmt.transparency.verify import check_proof, proved_index
from keymgmt.wrapping.recipients import TeeKey, parse_tee_key, thumbprint


class ReleaseRefused(Forbidden):
    """The request does not prove a release that this custodian agrees to."""

    reason = "ReleaseRefused"


@dataclass(frozen=True, slots=True)
class Terms:
    """What a custodian agrees to for one key."""

    key: str  # namespace/name
    policies: frozenset[str]  # digests of release policies
    max_releases: int
    rule: str | None = None  # CEL, as in a release policy; beside the policy's own


@dataclass(frozen=True, slots=True)
class Agreed:
    """A proven release: its index in the log, and whom the key is for."""

    index: int
    recipient: TeeKey


def agree(
    request: ExternalRelease, terms: Terms, served: int, token_key: TokenKey, log_key: VerifierKey, now: datetime
) -> Agreed:
    """Check a request; `served` is how often the key was given before. Raises KekkaiError."""
    claims = token_key.verify(request.token, int(now.timestamp()))
    check_proof(request.proof, request.entry, log_key)
    entry = decode_entry(request.entry)
    tee_key = tee_key_of(claims)
    expected = {
        "type": RELEASE,
        "key": terms.key,
        "keyId": request.key_id,
        "session": claims["jti"],
        "evidence": claims["kekkai.evidence"],
        "recipient": thumbprint(tee_key),
    }
    for name, value in expected.items():
        if entry.get(name) != value:
            raise ReleaseRefused("the log entry is not of this release", where=f"entry.{name}")
    if entry.get("policy") not in terms.policies:
        raise ReleaseRefused("the release rests on a policy that was not agreed to", where="entry.policy")
    if served >= terms.max_releases:
        raise ReleaseRefused(f"all {terms.max_releases} releases are used", reason="RunCountExhausted")
    _require_rule(terms, claims, now)
    return Agreed(proved_index(request.proof), parse_tee_key(tee_key))


def _require_rule(terms: Terms, claims: Mapping[str, Any], now: datetime) -> None:
    if terms.rule is None:
        return
    namespace, _, name = terms.key.partition("/")
    seen = {**composite.rule_claims(claims["submods"]), **rule_claims(claims["submods"]["cpu0"])}
    verdict = rules.evaluate(
        terms.rule, {"claims": seen, "request": {"namespace": namespace, "name": name}, "now": now}
    )
    if not verdict.allowed:
        raise ReleaseRefused(f"the custodian's rule is not met: {'; '.join(verdict.unmet)[:300]}", reason="RuleNotMet")
