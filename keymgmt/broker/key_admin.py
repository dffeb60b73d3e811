"""Administration of keys: creation, policy change, suspension, import, destruction.

Each act that touches the HSM is in two steps (see lifecycle.keys): an HSM key made for a
change that is then refused is destroyed again.
"""

from __future__ import annotations

import base64
import binascii
import logging
import secrets
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from crds.errors import Conflict, InvalidInput, KekkaiError
from keymgmt.broker.service import KeyService
from keymgmt.lifecycle import custody, versions
from keymgmt.lifecycle import keys as acts
from keymgmt.lifecycle.journal import Change
from keymgmt.lifecycle.key_records import KeyRecord, KeySpec, find, get
from keymgmt.lifecycle.states import KeyState
from keymgmt.policy.custodians import digest_of, raw_digest
from keymgmt.policy.documents import DestroyOrder, ImportOrder, parse_document
from keymgmt.policy.dsse import Envelope
from keymgmt.sealing.format import KeyContext

logger = logging.getLogger(__name__)
T = TypeVar("T")
_ATTEMPTS = 4
_DORMANT = (KeyState.PRE_ACTIVATION, KeyState.DEACTIVATED, KeyState.COMPROMISED, KeyState.DESTROYED)


class KeyAdmin:
    """Works on one service."""

    def __init__(self, service: KeyService) -> None:
        self._service = service

    async def put(self, spec: KeySpec) -> KeyRecord:
        """Make the key be as `spec` says. Idempotent. Raises KekkaiError."""
        if spec.jurisdiction != self._service.config.jurisdiction:
            raise Conflict(
                f"this service is in {self._service.config.jurisdiction}, the key is for {spec.jurisdiction}",
                where="jurisdiction",
                reason="JurisdictionMismatch",
            )
        for attempt in range(_ATTEMPTS):
            try:
                return await self._put_once(spec)
            except Conflict as error:
                # Another request changed the key between our look and our change.
                if error.problem.reason != Conflict.reason or attempt == _ATTEMPTS - 1:
                    raise
        raise AssertionError("unreachable")

    async def _put_once(self, spec: KeySpec) -> KeyRecord:
        service = self._service
        record = await service.read(lambda connection: find(connection, spec.namespace, spec.name))
        if record is None:
            return await self._create(spec)
        acts.require_same_key(record, spec)
        if record.policy_digest != spec.policy_digest:
            record = await self._change_policy(record, spec)
        if record.state is KeyState.SUSPENDED:
            record = await service.change(
                lambda change: acts.set_state(change, spec.namespace, spec.name, KeyState.ACTIVE, "operator")
            )
        if (record.rotation_days, record.grace_days) != (spec.rotation_days, spec.grace_days):
            present = record
            await service.change(lambda change: versions.schedule(change, present, spec.rotation_days, spec.grace_days))
            record = await self.get(spec.namespace, spec.name)
        if record.uid != spec.uid:
            present = record
            await service.change(lambda change: acts.set_uid(change, present, spec.uid))
            record = await self.get(spec.namespace, spec.name)
        return record

    async def _create(self, spec: KeySpec) -> KeyRecord:
        service = self._service
        signed, custodian_set = await service.read(lambda connection: acts.check_policy(connection, spec))
        key_id = f"{spec.namespace}/{spec.name}/{secrets.token_hex(8)}"
        if signed.policy.external_key is not None:
            service.external.require_allowed(signed.policy.external_key)
        made: dict[str, Any] = {"sealed": b"", "hsm_key_id": b""}
        if spec.origin == "generate":
            made = await service.hsm("generate", context=_new_context(spec, key_id, custodian_set))
        return await self._file(
            [made["hsm_key_id"]],
            lambda change: acts.create(change, spec, key_id, custodian_set, made["sealed"], made["hsm_key_id"]),
        )

    async def _change_policy(self, record: KeyRecord, spec: KeySpec) -> KeyRecord:
        """Seal every version to the replacement policy under new HSM keys, then destroy the old ones."""
        custodian_set = await self._service.read(lambda connection: acts.require_replacement(connection, record, spec))
        made = await self._resealed(record, spec.policy_digest, custodian_set)
        changed, former = await self._file(
            [one.hsm_key_id for one in made], lambda change: acts.change_policy(change, spec, record, made)
        )
        await self._discard(former)
        return changed

    async def _resealed(self, record: KeyRecord, policy_digest: str, custodian_set: str) -> list[versions.Resealed]:
        """Every version sealed to a policy and custodian set under an HSM key of its own."""
        service = self._service
        made: list[versions.Resealed] = []
        for one in await service.read(lambda connection: versions.versions(connection, record.id)):
            of_version = replace(record, version=one.number)
            try:
                done = await service.hsm(
                    "reseal",
                    sealed=one.sealed,
                    context=of_version.context.as_map(),
                    new_context=of_version.context_with(policy_digest, custodian_set).as_map(),
                )
            except KekkaiError:
                await self._discard([before.hsm_key_id for before in made])
                raise
            made.append(versions.Resealed(one.number, done["sealed"], done["hsm_key_id"]))
        return made

    async def rotate(self, namespace: str, name: str, cause: str) -> KeyRecord:
        """Make the next version of a generated key. Raises Conflict for an imported one."""
        record = await self.get(namespace, name)
        if record.origin != "generate":
            if record.origin == "external":
                raise Conflict(
                    "the key stays with its custodians, who rotate it in their own service",
                    where=f"{namespace}/{name}",
                    reason="ExternalKey",
                )
            raise Conflict(
                "an imported key is rotated by its custodians",
                where=f"{namespace}/{name}",
                fix=f"import version {record.version + 1}: kekkai keys import --version {record.version + 1}",
                reason="ImportNeeded",
            )
        context = replace(record, version=record.version + 1).context
        made = await self._service.hsm("generate", context=context.as_map())
        return await self._file(
            [made["hsm_key_id"]],
            lambda change: versions.rotate(change, record, made["sealed"], made["hsm_key_id"], cause),
        )

    async def rotate_due(self, limit: int) -> int:
        """Rotate what is due, a few at a time. Returns how many were."""
        service = self._service
        found = await service.read(lambda connection: versions.due(connection, service.now(), limit))
        for record in found:
            await self.rotate(record.namespace, record.name, "schedule")
        return len(found)

    async def rewrap(self, namespace: str, name: str) -> KeyRecord:
        """Put every version of a key under new HSM keys and delete the former ones. The key itself stays."""
        record = await self.get(namespace, name)
        made = await self._resealed(record, record.policy_digest, record.custodian_set)
        former = await self._file(
            [one.hsm_key_id for one in made], lambda change: versions.rewrap(change, record, made)
        )
        await self._discard(former)
        return await self.get(namespace, name)

    async def set_state(self, namespace: str, name: str, wanted: KeyState, cause: str) -> KeyRecord:
        """Deactivate a key or report it compromised; neither is released again. Raises IllegalTransition."""
        return await self._service.change(lambda change: acts.set_state(change, namespace, name, wanted, cause))

    async def get(self, namespace: str, name: str) -> KeyRecord:
        """A key. Raises KeyNotFound."""
        return await self._service.read(lambda connection: get(connection, namespace, name))

    async def view(self, record: KeyRecord) -> dict[str, Any]:
        """The reply for a key: its record and its policy's limit."""
        signed, _ = await self._service.read(lambda c: custody.load_policy(c, record.policy_digest))
        return {**record.as_dict(), "maxReleases": signed.policy.max_releases}

    async def suspend(self, namespace: str, name: str) -> KeyRecord:
        """Stop releases. A key that is not active already gives none, and stays as it is."""
        record = await self.get(namespace, name)
        if record.state in _DORMANT:
            return record
        return await self._service.change(
            lambda change: acts.set_state(change, namespace, name, KeyState.SUSPENDED, "operator")
        )

    async def complete_import(self, namespace: str, name: str, envelope: Envelope) -> KeyRecord:
        """Carry out a custodian-signed import order. Raises KekkaiError."""
        service = self._service
        order = parse_document(envelope, ImportOrder, "order")
        record = await self.get(namespace, name)
        signers = await service.read(lambda c: acts.check_import(c, record, order, envelope))
        digest = digest_of(envelope.payload)
        if record.state is KeyState.ACTIVE and await service.read(lambda c: acts.imported_by(c, record, digest)):
            return record
        rotates = record.state is KeyState.ACTIVE and record.origin == "import" and order.version == record.version + 1
        if record.state is not KeyState.PRE_ACTIVATION and not rotates:
            raise Conflict(
                f"the key is {record.state}: only a key that awaits its import takes one, or an active one its next",
                where=f"{namespace}/{name}",
                reason="ImportNotExpected",
            )
        try:
            wrapped = base64.b64decode(order.wrapped_key, validate=True)
        except (binascii.Error, ValueError):
            raise InvalidInput("not standard base64", where="order.wrappedKey") from None
        context = replace(record, version=order.version).context
        made = await service.hsm("import", context=context.as_map(), kid=order.kid, wrapped=wrapped)

        def file(change: Change) -> KeyRecord:
            if rotates:
                return versions.rotate(change, record, made["sealed"], made["hsm_key_id"], digest, signers)
            return acts.complete_import(change, record, digest, signers, made["sealed"], made["hsm_key_id"])

        return await self._file([made["hsm_key_id"]], file)

    async def destroy(self, namespace: str, name: str, envelope: Envelope) -> dict[str, Any]:
        """Carry out a custodian-signed destroy order. Returns the destruction record."""
        order = parse_document(envelope, DestroyOrder, "order")
        if order.key != f"{namespace}/{name}":
            raise Conflict("the order is for another key", where="order.key", reason="OrderDoesNotMatch")
        record, held = await self._service.change(lambda change: acts.destroy(change, order, envelope))
        await self._discard(held)
        return {**record.as_dict(), "hsmKeyDeleted": True}

    async def _file(self, made: Sequence[bytes], act: Callable[[Change], T]) -> T:
        """Run a change; if it is refused, the HSM keys made for it go again."""
        try:
            return await self._service.change(act)
        except KekkaiError as error:
            # After a failed commit it is unknown whether the change is in: the next start tells.
            if error.problem.reason != "StoreUnavailable":
                await self._discard(made)
            raise

    async def _discard(self, hsm_keys: Sequence[bytes]) -> None:
        """Destroy HSM keys now; if that fails, the next start of an embedded HSM does it."""
        for hsm_key_id in filter(None, hsm_keys):
            try:
                await self._service.hsm("destroy", hsm_key_id=hsm_key_id)
            except KekkaiError as error:
                logger.error("an HSM key could not be deleted: %s", error.problem.reason)


def _new_context(spec: KeySpec, key_id: str, custodian_set: str) -> dict[int, Any]:
    return KeyContext(
        tenant=spec.tenant,
        key_id=key_id,
        version=1,
        policy_digest=raw_digest(spec.policy_digest),
        custodian_set=raw_digest(custodian_set),
        jurisdiction=spec.jurisdiction,
        algorithm=spec.algorithm,
    ).as_map()
