"""Versions of a key: rotation makes the next one, the ones before only decrypt, each can be sealed anew or destroyed.

After NIST SP 800-57 part 1, section 5.3.6: a version is Active until its successor has been for
the key's grace period, then Deactivated: what was encrypted under it can still be read. An
older version is asked for by number and released under the same policy and run count.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from sqlalchemy import Connection, bindparam, delete, insert, select, update

from crds.errors import Conflict, NotFound
from keymgmt.lifecycle.journal import Change
from keymgmt.lifecycle.key_records import KeyRecord, find, get
from keymgmt.lifecycle.schema import key_versions, keys
from keymgmt.lifecycle.states import KeyState, require_transition
from keymgmt.transparency import entries

MAX_VERSIONS = 1000


class VersionNotFound(NotFound):
    """The key has no such version (any more)."""

    reason = "VersionNotFound"


@dataclass(frozen=True, slots=True)
class KeyVersion:
    """One stored version. `deactivates_at`: when its grace ends (ISO text); None for the present version."""

    number: int
    hsm_key_id: bytes
    sealed: bytes
    created_at: str
    deactivates_at: str | None

    def state(self, now: datetime) -> KeyState:
        """Active or Deactivated."""
        ended = self.deactivates_at is not None and self.deactivates_at <= entries.timestamp(now)
        return KeyState.DEACTIVATED if ended else KeyState.ACTIVE


@dataclass(frozen=True, slots=True)
class Resealed:
    """What the worker made of a version: its number, the new sealed bytes, the new HSM key."""

    number: int
    sealed: bytes
    hsm_key_id: bytes


_VERSIONS = select(key_versions).where(key_versions.c.key_id == bindparam("key")).order_by(key_versions.c.version)


def versions(connection: Connection, key_id: str) -> list[KeyVersion]:
    """The stored versions, oldest first."""
    return [
        KeyVersion(row.version, bytes(row.hsm_key_id), bytes(row.sealed), row.created_at, row.deactivates_at)
        for row in connection.execute(_VERSIONS, {"key": key_id})
    ]


def find_version(
    connection: Connection, namespace: str, name: str, number: int | None, now: datetime
) -> KeyRecord | None:
    """A key with the sealed bytes of one version; None if there is no such key or version."""
    record = find(connection, namespace, name)
    if record is None or number is None or number == record.version:
        return record
    found = next((one for one in versions(connection, record.id) if one.number == number), None)
    if found is None:
        return None
    return replace(
        record,
        version=found.number,
        sealed=found.sealed,
        hsm_key_id=found.hsm_key_id,
        version_state=found.state(now),
    )


def rotate(
    change: Change, seen: KeyRecord, sealed: bytes, hsm_key_id: bytes, cause: str, signers: Sequence[str] = ()
) -> KeyRecord:
    """File the next version and make it the present one. Raises Conflict if the key changed meanwhile.

    `cause`: `schedule`, `operator`, or the digest of the import order that its `signers` signed.
    """
    record = require_unchanged(change.connection, seen)
    where = f"{record.namespace}/{record.name}"
    if record.state is not KeyState.ACTIVE:
        raise Conflict(f"the key is {record.state}: only an active key is rotated", where=where, reason="KeyNotActive")
    if record.version >= MAX_VERSIONS:
        raise Conflict(f"a key has at most {MAX_VERSIONS} versions", where=where, fix="make a new key")
    now = entries.timestamp(change.now)
    ends = entries.timestamp(change.now + timedelta(days=record.grace_days))
    following = record.version + 1
    index = change.log(
        entries.KEY_ROTATED,
        {
            "key": where,
            "keyId": record.id,
            "tenant": record.tenant,
            "policy": record.policy_digest,
            "version": following,
            "previous": record.version,
            "previousUntil": ends,
            "cause": cause,
            **({"signers": list(signers)} if signers else {}),
        },
        (record.namespace, record.name),
    )
    connection = change.connection
    connection.execute(
        update(key_versions)
        .where(key_versions.c.key_id == record.id, key_versions.c.version == record.version)
        .values(deactivates_at=ends)
    )
    connection.execute(
        insert(key_versions).values(
            key_id=record.id, version=following, hsm_key_id=hsm_key_id, sealed=sealed, created_at=now
        )
    )
    connection.execute(
        update(keys)
        .where(keys.c.id == record.id)
        .values(version=following, log_index=index, rotates_at=next_rotation(change.now, record.rotation_days))
    )
    return get(connection, record.namespace, record.name)


def schedule(change: Change, record: KeyRecord, rotation_days: int | None, grace_days: int) -> None:
    """Set how often a key is rotated and how long its former version stays active."""
    change.connection.execute(
        update(keys)
        .where(keys.c.id == record.id)
        .values(
            rotation_days=rotation_days,
            grace_days=grace_days,
            rotates_at=next_rotation(change.now, rotation_days),
        )
    )


def next_rotation(now: datetime, rotation_days: int | None) -> str | None:
    """When a key that is rotated every so many days is due again; None for never."""
    return None if rotation_days is None else entries.timestamp(now + timedelta(days=rotation_days))


def due(connection: Connection, now: datetime, limit: int) -> list[KeyRecord]:
    """Active generated keys whose rotation is due, longest due first. An imported key waits for its custodians."""
    rows = connection.execute(
        select(keys.c.namespace, keys.c.name)
        .where(
            keys.c.rotates_at <= entries.timestamp(now),
            keys.c.state == str(KeyState.ACTIVE),
            keys.c.origin == "generate",
        )
        .order_by(keys.c.rotates_at, keys.c.id)
        .limit(limit)
    )
    return [get(connection, row.namespace, row.name) for row in rows]


def rewrap(change: Change, seen: KeyRecord, made: Sequence[Resealed]) -> list[bytes]:
    """Put every version under the new HSM keys in `made`. Returns the former HSM keys, to be deleted now.

    Raises Conflict if the key or its versions changed meanwhile.
    """
    record = require_unchanged(change.connection, seen)
    former = versions(change.connection, record.id)
    if [one.number for one in former] != [one.number for one in made]:
        raise Conflict("the key's versions changed meanwhile", where=f"{record.namespace}/{record.name}", fix="retry")
    replace_versions(change.connection, record.id, made)
    change.log(
        entries.KEY_REWRAPPED,
        {
            "key": f"{record.namespace}/{record.name}",
            "keyId": record.id,
            "tenant": record.tenant,
            "versions": [one.number for one in made],
            "hsmKeys": [one.hsm_key_id.hex() for one in made],
        },
        (record.namespace, record.name),
    )
    return [one.hsm_key_id for one in former]


def replace_versions(connection: Connection, key_id: str, made: Sequence[Resealed]) -> None:
    """Store new sealed bytes of versions that exist."""
    for one in made:
        connection.execute(
            update(key_versions)
            .where(key_versions.c.key_id == key_id, key_versions.c.version == one.number)
            .values(sealed=one.sealed, hsm_key_id=one.hsm_key_id)
        )


def destroy_version(change: Change, record: KeyRecord, number: int, signers: list[str], reason: str) -> bytes:
    """Destroy one former version. Returns its HSM key, to be deleted now. Raises VersionNotFound, Conflict."""
    where = f"{record.namespace}/{record.name}"
    if number == record.version:
        raise Conflict(
            "the present version goes only with the whole key",
            where=where,
            fix="rotate it first, or leave version out of the order",
        )
    found = next((one for one in versions(change.connection, record.id) if one.number == number), None)
    if found is None:
        raise VersionNotFound("no such version", where=where)
    require_transition(KeyState.DEACTIVATED, KeyState.DESTROYED, where)
    change.log(
        entries.KEY_VERSION_DESTROYED,
        {
            "key": where,
            "keyId": record.id,
            "tenant": record.tenant,
            "version": number,
            "signers": signers,
            "hsmKey": found.hsm_key_id.hex(),
            "reason": reason,
        },
        (record.namespace, record.name),
    )
    change.connection.execute(
        delete(key_versions).where(key_versions.c.key_id == record.id, key_versions.c.version == number)
    )
    return found.hsm_key_id


def require_unchanged(connection: Connection, seen: KeyRecord) -> KeyRecord:
    """The key as it is now. Raises Conflict if it is not what was seen before the worker was asked."""
    record = get(connection, seen.namespace, seen.name)
    before = (seen.id, seen.state, seen.policy_digest, seen.version, seen.hsm_key_id)
    if (record.id, record.state, record.policy_digest, record.version, record.hsm_key_id) != before:
        raise Conflict("the key changed meanwhile", where=f"{seen.namespace}/{seen.name}", fix="retry")
    return record
