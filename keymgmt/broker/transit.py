"""/v1/transit: a key used for an attested guest, without leaving the service.

The guest shows its attestation token (bearer, or the session's cookie), as for a resource. The
first operation of a session on a key opens a grant: decided, counted and logged like a
release. Bodies and replies are JSON; bytes are standard base64. What decrypts or makes a key
answers with a JWE for the guest's attested key, so that only the enclave reads it.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from crds.errors import Forbidden, InvalidInput, NotFound, Unauthenticated, Unavailable
from keymgmt import strict_json
from keymgmt.broker import paths
from keymgmt.broker.kbs import log_invalid_token, release_request, session_claims
from keymgmt.broker.service import KeyService
from keymgmt.broker.tokens import TokenInvalid, tee_key_of
from keymgmt.lifecycle.grants import Use, held, open_grant
from keymgmt.lifecycle.key_records import KeyRecord, get
from keymgmt.lifecycle.versions import find_version
from keymgmt.wrapping import transit

OPERATIONS = ("encrypt", "decrypt", "data-key", "sign")
Reply = dict[str, Any]


class OperationDenied(Forbidden):
    """The release policy does not allow it to this guest now. Why is in the log, for the key's owner."""

    reason = "OperationDenied"


def router(service: KeyService) -> APIRouter:
    """The routes."""
    routes = APIRouter(tags=["transit"])
    handlers = _Transit(service)
    routes.add_api_route(
        paths.TRANSIT, handlers.use, methods=["POST"], summary="Encrypt, decrypt, data-key or sign (attested guest)"
    )
    routes.add_api_route(paths.KEY_PUBLIC, handlers.public_key, methods=["GET"], summary="A signing key's public half")
    return routes


class _Transit:
    def __init__(self, service: KeyService) -> None:
        self._service = service
        self._acts: Mapping[str, Callable[[KeyRecord, Mapping[str, Any], Reply], Awaitable[Reply]]] = {
            "encrypt": self._encrypt,
            "decrypt": self._decrypt,
            "data-key": self._data_key,
            "sign": self._sign,
        }

    async def use(self, request: Request, namespace: str, name: str, operation: str) -> Response:
        act = self._acts.get(operation)
        if act is None:
            raise NotFound("no such operation", where=operation[:32], fix=f"use one of {', '.join(OPERATIONS)}")
        try:
            claims = await session_claims(self._service, request)
        except TokenInvalid as error:
            await log_invalid_token(self._service, request, error, f"{namespace}/{name}/{operation}")
            raise
        if claims is None:
            raise Unauthenticated("an attested session is needed", fix="attest at /kbs/v0/auth and /kbs/v0/attest")
        body = strict_json.parse_object(await request.body(), limit=self._service.config.limits.body_bytes)
        version = transit.version_of(_bytes(body, "ciphertext")) if operation == "decrypt" else None
        wanted = replace(release_request(namespace, "key", name, claims), version=version, operation=operation)
        record = await self._granted(Use(wanted, int(claims["exp"])))
        return JSONResponse(await act(record, claims, body))

    async def _granted(self, use: Use) -> KeyRecord:
        service, request = self._service, use.request
        if not service.worker.ready:
            raise Unavailable("the HSM is not ready", fix="retry later")

        def look(connection: Any) -> KeyRecord | None:
            found = find_version(connection, request.namespace, request.name, request.version, service.now())
            return found if found is not None and held(connection, found, use, service.seconds()) else None

        record = await service.read(look)
        if record is None:
            outcome = await service.change(lambda change: open_grant(change, use, service.limiter))
            record = outcome.record
            if record is None:
                service.metrics.denials.labels("transit", outcome.decision.reason).inc()
                raise OperationDenied("denied by the key's policy", fix="the key's owner reads why in the release log")
        service.metrics.transits.labels(request.operation).inc()
        return record

    async def _encrypt(self, record: KeyRecord, _: Mapping[str, Any], body: Reply) -> Reply:
        done = await self._worker("encrypt", record, message=_bytes(body, "message"), associated=_associated(body))
        return {"ciphertext": _text(done["ciphertext"]), "version": record.version}

    async def _decrypt(self, record: KeyRecord, claims: Mapping[str, Any], body: Reply) -> Reply:
        done = await self._worker(
            "decrypt",
            record,
            ciphertext=_bytes(body, "ciphertext"),
            associated=_associated(body),
            jwk=tee_key_of(claims),
        )
        return {"message": strict_json.parse_object(done["jwe"].encode()), "version": record.version}

    async def _data_key(self, record: KeyRecord, claims: Mapping[str, Any], body: Reply) -> Reply:
        done = await self._worker("data-key", record, associated=_associated(body), jwk=tee_key_of(claims))
        return {
            "dataKey": strict_json.parse_object(done["jwe"].encode()),
            "ciphertext": _text(done["ciphertext"]),
            "version": record.version,
        }

    async def _sign(self, record: KeyRecord, _: Mapping[str, Any], body: Reply) -> Reply:
        done = await self._worker("sign", record, message=_bytes(body, "message"))
        return {"signature": _text(done["signature"]), "algorithm": record.algorithm, "version": record.version}

    async def public_key(self, namespace: str, name: str) -> Response:
        """Anyone may verify what a key signed."""
        record = await self._service.read(lambda connection: get(connection, namespace, name))
        if record.algorithm == "AES-256-GCM" or not record.sealed:
            raise NotFound("the key has no public half", where=f"{namespace}/{name}")
        done = await self._worker("public-key", record)
        return JSONResponse(
            {"publicKey": _text(done["public_key"]), "algorithm": record.algorithm, "version": record.version}
        )

    async def _worker(self, operation: str, record: KeyRecord, **arguments: Any) -> dict[str, Any]:
        return await self._service.hsm(
            operation,
            sealed=record.sealed,
            context=record.context.as_map(),
            name=f"{record.namespace}/{record.name}",
            **arguments,
        )


def _bytes(body: Mapping[str, Any], name: str) -> bytes:
    value = body.get(name)
    if not isinstance(value, str) or len(value) > 2 * transit.MAX_MESSAGE:
        raise InvalidInput(f"base64 of at most {transit.MAX_MESSAGE} bytes is expected", where=name)
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidInput("not standard base64", where=name) from None


def _associated(body: Mapping[str, Any]) -> bytes:
    return _bytes(body, "associatedData") if "associatedData" in body else b""


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
