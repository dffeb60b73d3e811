"""Sessions, releases and denials: what happens in the one transaction that authorises a release."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, bindparam, delete, func, select, update
from sqlalchemy.dialects import postgresql, sqlite

from crds.errors import KekkaiError
from keymgmt.lifecycle.custody import StoreTampered, authentic_policy
from keymgmt.lifecycle.denials import DenialLimiter
from keymgmt.lifecycle.journal import Change
from keymgmt.lifecycle.key_records import KeyRecord
from keymgmt.lifecycle.schema import keys, log_leaves, sessions
from keymgmt.lifecycle.versions import find_version
from keymgmt.policy.decision import Decision, KeyFacts, decide
from keymgmt.policy.documents import ReleasePolicy, SignedPolicy
from keymgmt.transparency import entries
from keymgmt.transparency.entries import decode_entry

_COUNT_RELEASE = (
    update(keys)
    .where(keys.c.id == bindparam("key"))
    .values(policy_releases=keys.c.policy_releases + 1, releases=keys.c.releases + 1)
)
_OPEN_SESSION = {
    "sqlite": sqlite.insert(sessions).on_conflict_do_nothing().returning(sessions.c.id_hash),
    "postgresql": postgresql.insert(sessions).on_conflict_do_nothing().returning(sessions.c.id_hash),
}
_TOKEN = select(sessions.c.token, sessions.c.expires).where(sessions.c.id_hash == bindparam("session"))


@dataclass(frozen=True, slots=True)
class ReleaseRequest:
    """A guest's request, its evidence already verified."""

    namespace: str
    name: str
    claims: Mapping[str, Any]  # what the rule sees
    evidence: str  # SHA-256 of the evidence, hex
    session: str  # SHA-256 of the session id, hex
    recipient: str  # RFC 7638 thumbprint of the guest's key
    wrapping: str  # JOSE algorithm of the reply
    version: int | None = None  # a former version, asked for by number
    operation: str = "release"  # what is to be done with the key


@dataclass(frozen=True, slots=True)
class ReleaseOutcome:
    """Either a key to re-wrap (`record`), or why not."""

    decision: Decision
    record: KeyRecord | None = None
    log_index: int = -1
    policy: ReleasePolicy | None = None  # that allowed it
    entry: bytes = b""  # as logged

    @classmethod
    def of(cls, record: KeyRecord) -> ReleaseOutcome:
        """Allowed by an earlier decision."""
        return cls(Decision(True), record)


def session_hash(session_id: str) -> str:
    """How a session is named in the store and the log: the cookie itself is a secret."""
    return hashlib.sha256(session_id.encode()).hexdigest()


def open_session(change: Change, id_hash: str, expires: int, token: str | None) -> bool:
    """Use up a challenge. False if it was used before (a replay)."""
    statement = _OPEN_SESSION[change.connection.dialect.name]
    opened = change.connection.execute(statement, {"id_hash": id_hash, "expires": expires, "token": token})
    return opened.first() is not None


def session_token(connection: Connection, id_hash: str, now: int) -> str | None:
    """The attestation token of a session that is attested and not expired."""
    row = connection.execute(_TOKEN, {"session": id_hash}).first()
    return row.token if row is not None and row.expires > now else None


def forget_expired(change: Change, now: int) -> None:
    """Drop sessions whose challenge could not be answered any more anyway."""
    change.connection.execute(delete(sessions).where(sessions.c.expires <= now))


def authorise(
    change: Change, request: ReleaseRequest, limiter: DenialLimiter, kind: str = entries.RELEASE
) -> ReleaseOutcome:
    """Decide on a release, or on a grant to use a key (`kind`).

    If allowed, use up one run and append its entry, else append the denial.
    """
    record = find_version(change.connection, request.namespace, request.name, request.version, change.now)
    decision = _decide(change, record, request)
    if record is None or not decision.allowed:
        index = deny(change, request, decision, limiter, tenant=record.tenant if record else "")
        return ReleaseOutcome(decision, None, index)
    count = record.policy_releases + 1
    change.connection.execute(_COUNT_RELEASE, {"key": record.id})
    policy = _authentic_policy(change, record).policy
    index = change.log(
        kind,
        {
            **_facts(request),
            "keyId": record.id,
            "tenant": record.tenant,
            "version": record.version,
            "versionState": str(record.version_state),
            "policy": record.policy_digest,
            "count": count,
            "jurisdiction": record.jurisdiction,
            **({"operations": policy.operations} if kind == entries.TRANSIT_OPENED else {}),
        },
        (request.namespace, request.name),
    )
    return ReleaseOutcome(decision, record, index, policy, change.leaves[-1]["data"])


def deny(change: Change, request: ReleaseRequest, decision: Decision, limiter: DenialLimiter, tenant: str) -> int:
    """Append a denial of a resource request, or count it when there are too many. Returns its index or -1."""
    where = f"{request.namespace}/{request.name}"
    if not limiter.admit(decision.reason, where):
        return -1
    fields = {**_facts(request), "reason": decision.reason, "details": list(decision.details), "tenant": tenant}
    return change.log(entries.DENIAL, fields, (request.namespace, request.name))


def deny_early(
    change: Change, stage: str, reason: str, detail: str, evidence: str, source: str, limiter: DenialLimiter
) -> int:
    """Append a refusal before any key was looked at (or count it): stage `attest` or `token`.

    `source` only feeds the limiter, never the log.
    """
    if not limiter.admit(reason, source):
        return -1
    fields = {"stage": stage, "reason": reason, "details": [detail[:300]], "evidence": evidence}
    return change.log(entries.DENIAL, fields)


def log_suppressed(change: Change, limiter: DenialLimiter) -> None:
    """Write the counts of denials that had no entry of their own."""
    if counts := limiter.drain():
        change.log(entries.DENIALS_SUPPRESSED, {"counts": counts})


def require_counts(connection: Connection) -> None:
    """Check every key's run count against its release entries. Raises StoreTampered.

    A database whose counter was turned back would otherwise release beyond the policy.
    """
    logged = {
        (row.namespace, row.name): row.total
        for row in connection.execute(
            select(log_leaves.c.namespace, log_leaves.c.name, func.count().label("total"))
            .where(log_leaves.c.kind.in_(entries.COUNTED))
            .group_by(log_leaves.c.namespace, log_leaves.c.name)
        )
    }
    for row in connection.execute(select(keys.c.namespace, keys.c.name, keys.c.releases, keys.c.policy_releases)):
        total = logged.pop((row.namespace, row.name), 0)
        if row.releases != total or row.policy_releases > total:
            raise StoreTampered(
                f"the run count is {row.releases}, the log has {total} releases",
                where=f"{row.namespace}/{row.name}",
                fix="restore the database",
            )
    if logged:
        raise StoreTampered("the log has releases of a key that the store lost", where="/".join(next(iter(logged))))


def history(
    connection: Connection, namespace: str | None, name: str | None, limit: int, before: int | None
) -> list[dict[str, Any]]:
    """Release and denial entries, newest first, each with its log index."""
    query = select(log_leaves.c.idx, log_leaves.c.data).where(
        log_leaves.c.kind.in_([*entries.COUNTED, entries.DENIAL, entries.DENIALS_SUPPRESSED])
    )
    if namespace is not None:
        query = query.where(log_leaves.c.namespace == namespace)
    if name is not None:
        query = query.where(log_leaves.c.name == name)
    if before is not None:
        query = query.where(log_leaves.c.idx < before)
    rows = connection.execute(query.order_by(log_leaves.c.idx.desc()).limit(limit))
    return [{"index": row.idx, **decode_entry(bytes(row.data))} for row in rows]


def _decide(change: Change, record: KeyRecord | None, request: ReleaseRequest) -> Decision:
    if record is None:
        return Decision(False, "KeyNotFound", ("no such key",))
    try:
        signed = _authentic_policy(change, record)
    except KekkaiError as error:
        return Decision(False, "PolicyNotAuthentic", (error.problem.reason,))
    facts = KeyFacts(
        record.namespace, record.name, record.tenant, str(record.state), record.jurisdiction, record.policy_releases
    )
    return decide(facts, signed.policy, request.claims, change.now, request.operation)


def _authentic_policy(change: Change, record: KeyRecord) -> SignedPolicy:
    """The key's policy, its digest and signatures checked in this very transaction. Raises KekkaiError."""
    name = f"{record.policy_digest} {record.custodian_set}"
    if name not in change.seen:
        change.seen[name] = authentic_policy(change.connection, record.policy_digest, record.custodian_set)
    found = change.seen[name]
    assert isinstance(found, SignedPolicy)
    return found


def _facts(request: ReleaseRequest) -> dict[str, Any]:
    claims = request.claims
    return {
        "key": f"{request.namespace}/{request.name}",
        "measurement": _measurement(claims),
        "initData": claims.get("init_data", ""),
        "root": claims.get("root", ""),
        "evidence": request.evidence,
        "session": request.session,
        "recipient": request.recipient,
        "wrapping": request.wrapping,
    }


# TEE → its claim of what was launched: the first register or digest that a release rule must name.
_LAUNCH_MEASUREMENT = {"snp": "measurement", "tdx": "mrtd", "sgx": "mrenclave", "nitro": "pcr0"}


def _measurement(claims: Mapping[str, Any]) -> str:
    for tee, field in _LAUNCH_MEASUREMENT.items():
        found = claims.get(tee)
        if isinstance(found, Mapping):
            return str(found.get(field, ""))
    return ""
