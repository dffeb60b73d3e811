"""Keys as stored: what an operator asks for, what the store holds, and finding one by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, bindparam, literal, select, tuple_

from crds.errors import NotFound
from keymgmt.lifecycle.schema import key_versions, keys
from keymgmt.lifecycle.states import KeyState
from keymgmt.policy.custodians import raw_digest
from keymgmt.sealing.format import KeyContext


class KeyNotFound(NotFound):
    """No key of that name."""

    reason = "KeyNotFound"


@dataclass(frozen=True, slots=True)
class KeySpec:
    """What an operator asks for."""

    namespace: str
    name: str
    tenant: str
    uid: str
    purpose: str
    algorithm: str
    origin: str
    policy_digest: str
    jurisdiction: str
    rotation_days: int | None = None
    grace_days: int = 0


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """A key as stored. `sealed` and `hsm_key_id` are empty before import and after destruction."""

    id: str
    namespace: str
    name: str
    tenant: str
    uid: str
    purpose: str
    algorithm: str
    origin: str
    jurisdiction: str
    policy_digest: str
    custodian_set: str
    state: KeyState
    version: int
    releases: int
    policy_releases: int
    created_at: str
    log_index: int
    rotation_days: int | None = None
    grace_days: int = 0
    rotates_at: str | None = None
    version_state: KeyState = KeyState.ACTIVE  # of the version whose sealed bytes these are
    sealed: bytes = b""
    hsm_key_id: bytes = b""

    @property
    def context(self) -> KeyContext:
        """What the present version is sealed to."""
        return self.context_with(self.policy_digest, self.custodian_set)

    def context_with(self, policy_digest: str, custodian_set: str) -> KeyContext:
        """The context under another policy."""
        return KeyContext(
            tenant=self.tenant,
            key_id=self.id,
            version=self.version,
            policy_digest=raw_digest(policy_digest),
            custodian_set=raw_digest(custodian_set),
            jurisdiction=self.jurisdiction,
            algorithm=self.algorithm,
        )

    def as_dict(self) -> dict[str, Any]:
        """The administrative view."""
        return {
            "keyId": self.id,
            "namespace": self.namespace,
            "name": self.name,
            "tenant": self.tenant,
            "uid": self.uid,
            "purpose": self.purpose,
            "algorithm": self.algorithm,
            "origin": self.origin,
            "jurisdiction": self.jurisdiction,
            "version": self.version,
            "rotationDays": self.rotation_days,
            "graceDays": self.grace_days,
            "rotatesAt": self.rotates_at,
            "state": str(self.state),
            "policyDigest": self.policy_digest,
            "custodianSet": self.custodian_set,
            "releases": self.releases,
            "releasesUnderPolicy": self.policy_releases,
            "createdAt": self.created_at,
            "logIndex": self.log_index,
        }


# Built once: constructing a statement costs more than executing it.
_FIND = (
    select(keys, key_versions.c.sealed, key_versions.c.hsm_key_id)
    .outerjoin(key_versions, (key_versions.c.key_id == keys.c.id) & (key_versions.c.version == keys.c.version))
    .where(keys.c.namespace == bindparam("namespace"), keys.c.name == bindparam("name"))
)


def find(connection: Connection, namespace: str, name: str) -> KeyRecord | None:
    """A key by name, with its present sealed version."""
    row = connection.execute(_FIND, {"namespace": namespace, "name": name}).first()
    if row is None:
        return None
    fields = dict(row._mapping)
    fields["state"] = KeyState(fields["state"])
    fields["sealed"] = bytes(fields["sealed"] or b"")
    fields["hsm_key_id"] = bytes(fields["hsm_key_id"] or b"")
    return KeyRecord(**fields)


def list_records(connection: Connection, after: str, limit: int) -> list[KeyRecord]:
    """Keys in the order of namespace and name, those after `after` (namespace/name)."""
    namespace, _, name = after.partition("/")
    rows = connection.execute(
        select(keys.c.namespace, keys.c.name)
        .where(tuple_(keys.c.namespace, keys.c.name) > tuple_(literal(namespace), literal(name)))
        .order_by(keys.c.namespace, keys.c.name)
        .limit(limit)
    ).all()
    return [get(connection, row.namespace, row.name) for row in rows]


def get(connection: Connection, namespace: str, name: str) -> KeyRecord:
    """As `find`; raises KeyNotFound."""
    record = find(connection, namespace, name)
    if record is None:
        raise KeyNotFound("no such key", where=f"{namespace}/{name}", fix="apply its ProtectedKey first")
    return record
