"""Life-cycle acts on keys, each one change of the journal with its log entry.

Acts that need the HSM run in two steps: the worker makes sealed bytes first, then the change
files them; if the change is refused, the caller has the worker destroy the HSM key again.
Destruction is the other way round: the entry first, then the HSM key.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update

from crds.errors import Conflict
from keymgmt.lifecycle.custody import current_set, load_policy, require_succession
from keymgmt.lifecycle.journal import Change
from keymgmt.lifecycle.key_records import KeyRecord, KeySpec, find, get
from keymgmt.lifecycle.schema import key_versions, keys, log_leaves
from keymgmt.lifecycle.states import KeyState, require_transition, way_to_destroyed
from keymgmt.lifecycle.versions import (
    Resealed,
    destroy_version,
    next_rotation,
    replace_versions,
    require_unchanged,
    versions,
)
from keymgmt.policy.custodians import require_quorum
from keymgmt.policy.documents import DestroyOrder, ImportOrder, SignedPolicy
from keymgmt.policy.dsse import Envelope
from keymgmt.transparency import entries


class KeyBelongsToAnotherTenant(Conflict):
    """The name is another tenant's."""

    reason = "KeyBelongsToAnotherTenant"


class PolicyChangeNeedsQuorum(Conflict):
    """A key's policy is replaced only by one that its custodians signed as the replacement."""

    reason = "PolicyChangeNeedsQuorum"


class KeyDestroyed(Conflict):
    """The key was destroyed; its name is not used again."""

    reason = "KeyDestroyed"


def check_policy(connection: Connection, spec: KeySpec) -> tuple[SignedPolicy, str]:
    """The policy that a key asks for, if it is meant for that key. Raises Conflict."""
    signed, custodian_set = load_policy(connection, spec.policy_digest)
    where = f"{spec.namespace}/{spec.name}"
    if signed.policy.tenant != spec.tenant or where not in signed.policy.keys:
        raise Conflict(
            "the policy is not for this tenant and key",
            where=where,
            fix="have the tenant's custodians sign a policy that names it",
            reason="PolicyDoesNotNameKey",
        )
    if signed.policy.jurisdiction != spec.jurisdiction:
        raise Conflict(
            f"the policy is for {signed.policy.jurisdiction}, the key for {spec.jurisdiction}",
            where=where,
            reason="JurisdictionMismatch",
        )
    if (spec.origin == "external") != (signed.policy.external_key is not None):
        raise Conflict(
            "a key of origin external needs a policy with externalKey, and no other may have one",
            where=f"{where}.origin",
            fix="have the custodians sign a policy that fits the key's origin",
            reason="OriginMismatch",
        )
    return signed, custodian_set


def create(
    change: Change, spec: KeySpec, key_id: str, custodian_set: str, sealed: bytes, hsm_key_id: bytes
) -> KeyRecord:
    """File a new key; without sealed bytes it awaits its import, unless it stays with its custodians.

    Raises Conflict if the name is taken.
    """
    connection = change.connection
    if find(connection, spec.namespace, spec.name) is not None:
        raise Conflict("the key was made meanwhile", where=f"{spec.namespace}/{spec.name}", fix="retry")
    state = KeyState.ACTIVE if sealed or spec.origin == "external" else KeyState.PRE_ACTIVATION
    index = change.log(
        entries.KEY_CREATED,
        {
            "key": f"{spec.namespace}/{spec.name}",
            "keyId": key_id,
            "tenant": spec.tenant,
            "version": 1,
            "state": str(state),
            "origin": spec.origin,
            "algorithm": spec.algorithm,
            "policy": spec.policy_digest,
            "custodianSet": custodian_set,
            "jurisdiction": spec.jurisdiction,
        },
        (spec.namespace, spec.name),
    )
    connection.execute(
        insert(keys).values(
            id=key_id,
            namespace=spec.namespace,
            name=spec.name,
            tenant=spec.tenant,
            uid=spec.uid,
            purpose=spec.purpose,
            algorithm=spec.algorithm,
            origin=spec.origin,
            jurisdiction=spec.jurisdiction,
            policy_digest=spec.policy_digest,
            custodian_set=custodian_set,
            state=str(state),
            version=1,
            releases=0,
            policy_releases=0,
            created_at=entries.timestamp(change.now),
            log_index=index,
            rotation_days=spec.rotation_days,
            grace_days=spec.grace_days,
            rotates_at=next_rotation(change.now, spec.rotation_days),
        )
    )
    if sealed:
        _file_version(change, get(connection, spec.namespace, spec.name), sealed, hsm_key_id)
    return get(connection, spec.namespace, spec.name)


def require_same_key(record: KeyRecord, spec: KeySpec) -> None:
    """Check that a request for an existing key does not ask for another one. Raises Conflict."""
    where = f"{spec.namespace}/{spec.name}"
    if record.tenant != spec.tenant:
        raise KeyBelongsToAnotherTenant("the key belongs to another tenant", where=where, fix="use another name")
    if record.state is KeyState.DESTROYED:
        raise KeyDestroyed("the key was destroyed", where=where, fix="use another name")
    for name in ("algorithm", "origin", "jurisdiction"):
        if getattr(record, name) != getattr(spec, name):
            raise Conflict(
                f"{name} of a key cannot change", where=f"{where}.{name}", fix=f"keep {getattr(record, name)}"
            )


def require_replacement(connection: Connection, record: KeyRecord, spec: KeySpec) -> str:
    """Check that the policy asked for replaces the one in force. Returns its custodian set.

    Raises PolicyChangeNeedsQuorum: this is what stops a cluster administrator who edits the
    digest in a ProtectedKey.
    """
    where = f"{spec.namespace}/{spec.name}.policyDigest"
    try:
        signed, custodian_set = check_policy(connection, spec)
    except Conflict as error:
        raise PolicyChangeNeedsQuorum(
            f"the policy in force stays: {error.problem.what}",
            where=where,
            fix=f"submit a policy that replaces {record.policy_digest}, signed by the tenant's custodians",
        ) from None
    if signed.policy.replaces != record.policy_digest:
        raise PolicyChangeNeedsQuorum(
            "the policy in force stays: the other one was not signed as its replacement",
            where=where,
            fix=f"have the custodians sign a policy with replaces: {record.policy_digest}",
        )
    require_succession(connection, record.custodian_set, custodian_set)
    return custodian_set


def change_policy(
    change: Change, spec: KeySpec, seen: KeyRecord, made: Sequence[Resealed]
) -> tuple[KeyRecord, list[bytes]]:
    """Put a replacement policy in force with every version newly sealed to it.

    Returns the key and the former HSM keys, to be deleted now. Raises Conflict if the key changed.
    """
    record = require_unchanged(change.connection, seen)
    former = versions(change.connection, record.id)
    if [one.number for one in former] != [one.number for one in made]:
        raise Conflict("the key's versions changed meanwhile", where=f"{record.namespace}/{record.name}", fix="retry")
    custodian_set = require_replacement(change.connection, record, spec)
    index = change.log(
        entries.KEY_POLICY,
        {
            "key": f"{record.namespace}/{record.name}",
            "keyId": record.id,
            "tenant": record.tenant,
            "policy": spec.policy_digest,
            "replaces": record.policy_digest,
            "custodianSet": custodian_set,
        },
        (record.namespace, record.name),
    )
    change.connection.execute(
        update(keys)
        .where(keys.c.id == record.id)
        .values(policy_digest=spec.policy_digest, custodian_set=custodian_set, policy_releases=0, log_index=index)
    )
    replace_versions(change.connection, record.id, made)
    return get(change.connection, record.namespace, record.name), [one.hsm_key_id for one in former]


def complete_import(
    change: Change, seen: KeyRecord, order: str, signers: list[str], sealed: bytes, hsm_key_id: bytes
) -> KeyRecord:
    """File an imported key and activate it. `order` is the digest of the signed order."""
    record = require_unchanged(change.connection, seen)
    require_transition(record.state, KeyState.ACTIVE, f"{record.namespace}/{record.name}")
    _file_version(change, record, sealed, hsm_key_id)
    index = change.log(
        entries.KEY_IMPORTED,
        {**_identity(record), "state": "Active", "order": order, "signers": signers},
        _names(record),
    )
    _set_state(change.connection, record, KeyState.ACTIVE, index)
    return get(change.connection, record.namespace, record.name)


def set_state(change: Change, namespace: str, name: str, wanted: KeyState, cause: str) -> KeyRecord:
    """Move a key to a state; being there already is no change. Raises KeyNotFound, IllegalTransition."""
    record = get(change.connection, namespace, name)
    if record.state is wanted:
        return record
    require_transition(record.state, wanted, f"{namespace}/{name}")
    index = change.log(entries.KEY_STATE, {**_identity(record), "state": str(wanted), "cause": cause}, _names(record))
    _set_state(change.connection, record, wanted, index)
    return get(change.connection, namespace, name)


def set_uid(change: Change, record: KeyRecord, uid: str) -> None:
    """Remember the cluster object that stands for the key now."""
    change.connection.execute(update(keys).where(keys.c.id == record.id).values(uid=uid))


def imported_by(connection: Connection, record: KeyRecord, order: str) -> bool:
    """Whether this very order brought the key: its sender lost the reply and asks again."""
    rows = connection.execute(
        select(log_leaves.c.data).where(
            log_leaves.c.kind.in_([entries.KEY_IMPORTED, entries.KEY_ROTATED]),
            log_leaves.c.namespace == record.namespace,
            log_leaves.c.name == record.name,
        )
    )
    found = [entries.decode_entry(bytes(row.data)) for row in rows]
    return any(order in (entry.get("order"), entry.get("cause")) for entry in found)


def check_import(connection: Connection, record: KeyRecord, order: ImportOrder, envelope: Envelope) -> list[str]:
    """Check an import order against the key and the tenant's quorum. Returns the signers."""
    where = f"{record.namespace}/{record.name}"
    following = record.version if record.state is KeyState.PRE_ACTIVATION else record.version + 1
    if order.version not in (record.version, following):
        raise Conflict(
            f"the import order is for version {order.version}, the next is {following}",
            where=f"{where}.version",
            reason="OrderDoesNotMatch",
        )
    if order.tenant != record.tenant or order.key != where:
        raise Conflict("the import order is for another key", where=where, reason="OrderDoesNotMatch")
    if order.policy_digest != record.policy_digest:
        raise Conflict(
            "the import order names another policy than the one in force",
            where=f"{where}.policyDigest",
            fix=f"sign an order for {record.policy_digest}",
            reason="OrderDoesNotMatch",
        )
    return require_quorum(envelope, current_set(connection, record.tenant))


def destroy(change: Change, order: DestroyOrder, envelope: Envelope) -> tuple[KeyRecord, list[bytes]]:
    """Destroy a key, or one former version of it, by its custodians' order.

    Returns the record and the HSM keys to delete now.

    The stored bytes go in the same change; what remains in old copies of the database is
    worthless once the HSM key is deleted.
    """
    namespace, _, name = order.key.partition("/")
    record = get(change.connection, namespace, name)
    if order.tenant != record.tenant or order.key_id != record.id:
        raise Conflict(
            "the destroy order is for another key", where=order.key, fix="check keyId", reason="OrderDoesNotMatch"
        )
    signers = require_quorum(envelope, current_set(change.connection, record.tenant))
    if order.version is not None:
        gone = destroy_version(change, record, order.version, signers, order.reason)
        return get(change.connection, namespace, name), [gone]
    held = [one.hsm_key_id for one in versions(change.connection, record.id)]
    way = way_to_destroyed(record.state)
    index = record.log_index
    for state in way:
        kind = entries.KEY_DESTROYED if state is KeyState.DESTROYED else entries.KEY_STATE
        fields: dict[str, Any] = {**_identity(record), "state": str(state), "signers": signers}
        if kind == entries.KEY_DESTROYED:
            fields["hsmKeys"] = [one.hex() for one in held]
            fields["reason"] = order.reason
        index = change.log(kind, fields, _names(record))
    if way:
        _set_state(change.connection, record, KeyState.DESTROYED, index)
        change.connection.execute(delete(key_versions).where(key_versions.c.key_id == record.id))
    return get(change.connection, namespace, name), held


def live_hsm_keys(connection: Connection) -> set[bytes]:
    """Ids of the HSM keys that some stored version needs."""
    return {bytes(row[0]) for row in connection.execute(select(key_versions.c.hsm_key_id))}


def _file_version(change: Change, record: KeyRecord, sealed: bytes, hsm_key_id: bytes) -> None:
    change.connection.execute(
        insert(key_versions).values(
            key_id=record.id,
            version=record.version,
            hsm_key_id=hsm_key_id,
            sealed=sealed,
            created_at=entries.timestamp(change.now),
        )
    )


def _set_state(connection: Connection, record: KeyRecord, state: KeyState, index: int) -> None:
    connection.execute(update(keys).where(keys.c.id == record.id).values(state=str(state), log_index=index))


def _identity(record: KeyRecord) -> dict[str, Any]:
    return {
        "key": f"{record.namespace}/{record.name}",
        "keyId": record.id,
        "tenant": record.tenant,
        "version": record.version,
        "policy": record.policy_digest,
    }


def _names(record: KeyRecord) -> tuple[str, str]:
    return record.namespace, record.name
