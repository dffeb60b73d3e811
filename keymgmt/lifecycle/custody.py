"""Custodian sets and release policies in the store: who may say what about a tenant's keys."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection, bindparam, insert, select, update

from crds.errors import Conflict, KekkaiError, NotFound
from keymgmt import strict_json
from keymgmt.lifecycle.journal import Change
from keymgmt.lifecycle.schema import custodian_sets, policies, tenants
from keymgmt.policy.custodians import CustodianSet, digest_of, parse_custodian_set, require_quorum
from keymgmt.policy.documents import SignedPolicy, parse_policy
from keymgmt.policy.dsse import Envelope
from keymgmt.policy.payload_types import CUSTODIAN_SET_TYPE, POLICY_TYPE
from keymgmt.transparency import entries

_MAX_SUCCESSION = 1000
_SET = select(custodian_sets.c.document).where(custodian_sets.c.digest == bindparam("wanted"))
_POLICY = select(policies.c.envelope, policies.c.custodian_set).where(policies.c.digest == bindparam("wanted"))


class StoreTampered(KekkaiError):
    """A stored document does not have the digest or the signatures that it is filed under."""

    reason = "StoreTampered"


class CustodianChangeNeedsQuorum(Conflict):
    """A tenant's custodians are replaced only by themselves."""

    reason = "CustodianChangeNeedsQuorum"


class CustodiansNotRegistered(Conflict):
    """The tenant has no custodians yet."""

    reason = "CustodiansNotRegistered"


class PolicyNotFound(Conflict):
    """No policy of that digest was accepted."""

    reason = "PolicyNotFound"


def current_set(connection: Connection, tenant: str) -> CustodianSet:
    """The tenant's present custodians. Raises CustodiansNotRegistered."""
    digest = connection.execute(select(tenants.c.custodian_set).where(tenants.c.tenant == tenant)).scalar()
    if digest is None:
        raise CustodiansNotRegistered(
            f"tenant {tenant} has no custodians", fix="register them with `kekkai keys custodian register`"
        )
    return load_set(connection, digest)


def load_set(connection: Connection, digest: str) -> CustodianSet:
    """A custodian set by digest; the digest is checked. Raises NotFound or StoreTampered."""
    return _parsed_set(digest, _stored_set(connection, digest))


def load_policy(connection: Connection, digest: str) -> tuple[SignedPolicy, str]:
    """A policy and the digest of the set that signed it. Raises PolicyNotFound or StoreTampered."""
    envelope, custodian_set = _stored_policy(connection, digest)
    return _parsed_policy(digest, envelope), custodian_set


def authentic_policy(connection: Connection, digest: str, custodian_set: str) -> SignedPolicy:
    """A policy whose digest holds and which the quorum of that very set signed.

    The bytes are read from the store each time; what was found of the same bytes before is
    not computed again. Raises StoreTampered, QuorumNotMet, PolicyNotFound, NotFound.
    """
    envelope, signed_by = _stored_policy(connection, digest)
    if signed_by != custodian_set:
        raise StoreTampered("the policy was signed by another custodian set than the key is bound to")
    return _verified_policy(digest, envelope, custodian_set, _stored_set(connection, custodian_set))


@lru_cache(maxsize=512)
def _verified_policy(digest: str, envelope: str, set_digest: str, document: bytes) -> SignedPolicy:
    """A pure function of what the store holds; raises are not remembered."""
    signed = _parsed_policy(digest, envelope)
    require_quorum(signed.envelope, _parsed_set(set_digest, document))
    return signed


def _stored_set(connection: Connection, digest: str) -> bytes:
    row = connection.execute(_SET, {"wanted": digest}).first()
    if row is None:
        raise NotFound("no such custodian set", where=digest)
    return bytes(row.document)


def _parsed_set(digest: str, document: bytes) -> CustodianSet:
    if digest_of(document) != digest:
        raise StoreTampered("a stored custodian set was changed", where=digest)
    return parse_custodian_set(strict_json.parse_object(document))


def _stored_policy(connection: Connection, digest: str) -> tuple[str, str]:
    row = connection.execute(_POLICY, {"wanted": digest}).first()
    if row is None:
        raise PolicyNotFound(
            "no policy of that digest was accepted",
            where=digest,
            fix="submit it with `kekkai keys policy submit`",
        )
    return row.envelope, row.custodian_set


def _parsed_policy(digest: str, envelope: str) -> SignedPolicy:
    signed = parse_policy(Envelope.parse(json.loads(envelope), POLICY_TYPE))
    if signed.digest != digest:
        raise StoreTampered("a stored policy was changed", where=digest)
    return signed


def register(change: Change, wanted: CustodianSet, envelope: Envelope | None) -> str:
    """Set a tenant's custodians: freely the first time, by the old quorum ever after. Returns the digest."""
    connection = change.connection
    row = connection.execute(select(tenants.c.custodian_set).where(tenants.c.tenant == wanted.tenant)).first()
    if row is None:
        if wanted.replaces is not None:
            raise Conflict("the tenant has no custodians to replace", where="replaces", fix="use null")
        signers: list[str] = []
    else:
        present = load_set(connection, row.custodian_set)
        if _same(present, wanted):
            return present.digest
        if envelope is None or wanted.replaces != present.digest:
            raise CustodianChangeNeedsQuorum(
                f"tenant {wanted.tenant} has custodians already",
                where="custodians",
                fix=f"send a set that replaces {present.digest}, signed by its quorum",
            )
        signers = require_quorum(envelope, present)
    text = json.dumps(envelope.as_dict()) if envelope is not None else None
    known = connection.execute(select(custodian_sets.c.digest).where(custodian_sets.c.digest == wanted.digest)).first()
    if known is None:
        connection.execute(
            insert(custodian_sets).values(
                digest=wanted.digest, tenant=wanted.tenant, document=wanted.canonical, envelope=text
            )
        )
    if row is None:
        connection.execute(insert(tenants).values(tenant=wanted.tenant, custodian_set=wanted.digest))
    else:
        connection.execute(update(tenants).where(tenants.c.tenant == wanted.tenant).values(custodian_set=wanted.digest))
    change.log(
        entries.CUSTODIANS_SET,
        {
            "tenant": wanted.tenant,
            "custodianSet": wanted.digest,
            "threshold": wanted.threshold,
            "custodians": [c.keyid for c in wanted.custodians],
            "replaces": wanted.replaces,
            "signers": signers,
        },
    )
    return wanted.digest


def accept_policy(change: Change, signed: SignedPolicy, jurisdiction: str) -> dict[str, Any]:
    """File a policy that the tenant's present custodians signed. The same again is no change."""
    policy, connection = signed.policy, change.connection
    if policy.jurisdiction != jurisdiction:
        raise Conflict(
            f"this service is in {jurisdiction}, the policy is for {policy.jurisdiction}",
            where="policy.jurisdiction",
            fix="submit it to a key service of that jurisdiction",
            reason="JurisdictionMismatch",
        )
    present = current_set(connection, policy.tenant)
    signers = require_quorum(signed.envelope, present)
    reply = {"digest": signed.digest, "custodianSet": present.digest, "signers": signers}
    known = connection.execute(select(policies.c.custodian_set).where(policies.c.digest == signed.digest)).first()
    if known is not None:
        return {**reply, "custodianSet": known.custodian_set}
    if policy.replaces is not None:
        replaced, _ = load_policy(connection, policy.replaces)
        if replaced.policy.tenant != policy.tenant:
            raise Conflict("a policy replaces only one of its own tenant", where="policy.replaces")
    connection.execute(
        insert(policies).values(
            digest=signed.digest,
            tenant=policy.tenant,
            custodian_set=present.digest,
            envelope=json.dumps(signed.envelope.as_dict()),
        )
    )
    index = change.log(
        entries.POLICY_ACCEPTED,
        {
            **policy.model_dump(mode="json", by_alias=True, exclude={"api_version"}),
            "digest": signed.digest,
            "custodianSet": present.digest,
            "signers": signers,
        },
    )
    return {**reply, "logIndex": index}


def require_succession(connection: Connection, old: str, new: str) -> None:
    """Check that set `new` descends from `old`, each step signed by the quorum before it.

    Raises StoreTampered: a database that invents custodians for a tenant is caught here.
    """
    digest = new
    for _ in range(_MAX_SUCCESSION):
        if digest == old:
            return
        row = connection.execute(select(custodian_sets.c.envelope).where(custodian_sets.c.digest == digest)).first()
        step = load_set(connection, digest)
        if row is None or row.envelope is None or step.replaces is None:
            break
        envelope = Envelope.parse(json.loads(row.envelope), CUSTODIAN_SET_TYPE)
        if parse_custodian_set(strict_json.parse_object(envelope.payload)).digest != digest:
            break
        require_quorum(envelope, load_set(connection, step.replaces))
        digest = step.replaces
    raise StoreTampered("the custodians in force are not the signed successors of the key's", where=new)


def _same(present: CustodianSet, wanted: CustodianSet) -> bool:
    """The same people and threshold, whatever they replaced."""

    def essence(custodian_set: CustodianSet) -> tuple[int, list[str]]:
        return custodian_set.threshold, sorted(c.model_dump_json() for c in custodian_set.custodians)

    return essence(present) == essence(wanted)
