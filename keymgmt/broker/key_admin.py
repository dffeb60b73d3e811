"""Administration of keys: creation, policy change, suspension, import, destruction.

Each act that touches the HSM is in two steps (see lifecycle.keys): an HSM key made for a
change that is then refused is destroyed again.
"""

from __future__ import annotations

import base64
import binascii
import logging
import secrets
from collections.abc import Callable
from typing import Any

from crds.errors import Conflict, InvalidInput, KekkaiError
from keymgmt.broker.service import KeyService
from keymgmt.lifecycle import custody
from keymgmt.lifecycle import keys as acts
from keymgmt.lifecycle.journal import Change
from keymgmt.lifecycle.key_records import KeyRecord, KeySpec, find, get
from keymgmt.lifecycle.states import KeyState
from keymgmt.policy.custodians import digest_of, raw_digest
from keymgmt.policy.documents import DestroyOrder, ImportOrder, parse_document
from keymgmt.policy.dsse import Envelope
from keymgmt.sealing.format import KeyContext

logger = logging.getLogger(__name__)
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
        if record.uid != spec.uid:
            present = record
            await service.change(lambda change: acts.set_uid(change, present, spec.uid))
            record = await self.get(spec.namespace, spec.name)
        return record

    async def _create(self, spec: KeySpec) -> KeyRecord:
        service = self._service
        _, custodian_set = await service.read(lambda connection: acts.check_policy(connection, spec))
        key_id = f"{spec.namespace}/{spec.name}/{secrets.token_hex(8)}"
        made: dict[str, Any] = {"sealed": b"", "hsm_key_id": b""}
        if spec.origin == "generate":
            made = await service.hsm("generate", context=_new_context(spec, key_id, custodian_set))
        return await self._file(
            made,
            lambda change: acts.create(change, spec, key_id, custodian_set, made["sealed"], made["hsm_key_id"]),
        )

    async def _change_policy(self, record: KeyRecord, spec: KeySpec) -> KeyRecord:
        """Seal the key to the replacement policy under a new HSM key, then destroy the old one."""
        service = self._service
        custodian_set = await service.read(lambda connection: acts.require_replacement(connection, record, spec))
        made: dict[str, Any] = {"sealed": b"", "hsm_key_id": b""}
        if record.sealed:
            made = await service.hsm(
                "reseal",
                sealed=record.sealed,
                context=record.context.as_map(),
                new_context=record.context_with(spec.policy_digest, custodian_set).as_map(),
            )
        changed = await self._file(
            made,
            lambda change: acts.change_policy(change, spec, record, made["sealed"], made["hsm_key_id"]),
        )
        await self._discard(record.hsm_key_id)
        return changed

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
        if record.state is not KeyState.PRE_ACTIVATION:
            raise Conflict(
                f"the key is {record.state}: only a key that awaits its import takes one",
                where=f"{namespace}/{name}",
                reason="ImportNotExpected",
            )
        try:
            wrapped = base64.b64decode(order.wrapped_key, validate=True)
        except (binascii.Error, ValueError):
            raise InvalidInput("not standard base64", where="order.wrappedKey") from None
        made = await service.hsm("import", context=record.context.as_map(), kid=order.kid, wrapped=wrapped)
        return await self._file(
            made,
            lambda change: acts.complete_import(change, record, digest, signers, made["sealed"], made["hsm_key_id"]),
        )

    async def destroy(self, namespace: str, name: str, envelope: Envelope) -> dict[str, Any]:
        """Carry out a custodian-signed destroy order. Returns the destruction record."""
        order = parse_document(envelope, DestroyOrder, "order")
        if order.key != f"{namespace}/{name}":
            raise Conflict("the order is for another key", where="order.key", reason="OrderDoesNotMatch")
        record, hsm_key_id = await self._service.change(lambda change: acts.destroy(change, order, envelope))
        await self._discard(hsm_key_id)
        return {**record.as_dict(), "hsmKeyDeleted": True}

    async def _file(self, made: dict[str, Any], act: Callable[[Change], KeyRecord]) -> KeyRecord:
        try:
            return await self._service.change(act)
        except KekkaiError as error:
            # After a failed commit it is unknown whether the change is in: the next start tells.
            if error.problem.reason != "StoreUnavailable":
                await self._discard(made["hsm_key_id"])
            raise

    async def _discard(self, hsm_key_id: bytes) -> None:
        """Destroy an HSM key now; if that fails, the next start of an embedded HSM does it."""
        if not hsm_key_id:
            return
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
