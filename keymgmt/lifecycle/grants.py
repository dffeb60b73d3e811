"""Grants: an attested session's right to have a key used for it, opened by one logged, counted decision.

The first operation of a session on a key is decided and logged as a release is, and uses up
one run. Until the session ends, further operations that the policy names rest on that grant,
as long as the key is active and its policy is the same.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, delete, insert, select

from keymgmt.lifecycle.denials import DenialLimiter
from keymgmt.lifecycle.journal import Change
from keymgmt.lifecycle.key_records import KeyRecord
from keymgmt.lifecycle.releases import ReleaseOutcome, ReleaseRequest, authorise
from keymgmt.lifecycle.schema import grants
from keymgmt.lifecycle.states import KeyState
from keymgmt.lifecycle.versions import find_version
from keymgmt.transparency import entries


@dataclass(frozen=True, slots=True)
class Use:
    """An operation on a key by a session. `expires`: when the session's token does, Unix seconds."""

    request: ReleaseRequest
    expires: int


def held(change_connection: Connection, record: KeyRecord, use: Use, now: int) -> bool:
    """Whether the session may use the key for the operation without a new decision."""
    row = change_connection.execute(
        select(grants.c.policy_digest, grants.c.operations, grants.c.expires).where(
            grants.c.session == use.request.session, grants.c.key_id == record.id
        )
    ).first()
    return (
        row is not None
        and record.state is KeyState.ACTIVE
        and row.policy_digest == record.policy_digest
        and use.request.operation in row.operations.split(",")
        and row.expires > now
    )


def open_grant(change: Change, use: Use, limiter: DenialLimiter) -> ReleaseOutcome:
    """Decide, count and log; keep the grant for the session's further operations."""
    request, now = use.request, int(change.now.timestamp())
    record = find_version(change.connection, request.namespace, request.name, request.version, change.now)
    if record is not None and held(change.connection, record, use, now):
        return ReleaseOutcome.of(record)
    outcome = authorise(change, request, limiter, entries.TRANSIT_OPENED)
    if outcome.record is not None and outcome.policy is not None:
        mine = (grants.c.session == request.session, grants.c.key_id == outcome.record.id)
        change.connection.execute(delete(grants).where(*mine))
        change.connection.execute(
            insert(grants).values(
                session=request.session,
                key_id=outcome.record.id,
                policy_digest=outcome.record.policy_digest,
                operations=",".join(outcome.policy.operations),
                expires=use.expires,
            )
        )
    return outcome


def forget_expired(change: Change, now: int) -> None:
    """Drop grants of sessions that ended."""
    change.connection.execute(delete(grants).where(grants.c.expires <= now))
