"""/v1: custodians, policies, keys, history, status. Errors are our typed ones as JSON.

Documents that a custodian quorum signed (policies, import and destroy orders) prove
themselves and need no bearer token; everything else needs one with the role named here.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from pydantic import Field, ValidationError, model_validator
from starlette.responses import JSONResponse, Response

from crds.errors import InvalidInput
from keymgmt import strict_json
from keymgmt.broker import paths
from keymgmt.broker.authorization import require_role
from keymgmt.broker.key_admin import KeyAdmin
from keymgmt.broker.service import KeyService
from keymgmt.lifecycle import custody, releases
from keymgmt.lifecycle.key_records import KeySpec, list_records
from keymgmt.lifecycle.states import KeyState
from keymgmt.policy import payload_types as types
from keymgmt.policy.custodians import Digest, Document, TenantName, invalid, parse_custodian_set
from keymgmt.policy.documents import Jurisdiction, parse_policy
from keymgmt.policy.dsse import Envelope

MAX_HISTORY = 1000


class KeyBody(Document):
    """Body of `PUT /v1/keys/{namespace}/{name}`."""

    tenant: TenantName
    uid: Annotated[str, Field(min_length=1, max_length=64)]
    purpose: Annotated[str, Field(min_length=1, max_length=64)] = "data-encryption"
    algorithm: Literal["AES-256-GCM", "ED25519", "ML-DSA-65"] = "AES-256-GCM"
    origin: Literal["generate", "import", "external"] = "generate"
    policy_digest: Digest
    jurisdiction: Jurisdiction
    rotation_days: Annotated[int, Field(ge=1, le=3650)] | None = None
    grace_days: Annotated[int, Field(ge=0, le=3650)] = 0

    @model_validator(mode="after")
    def _one_use(self) -> KeyBody:
        signs = self.algorithm != "AES-256-GCM"
        if signs != (self.purpose == "signature"):
            raise ValueError("purpose signature goes with ED25519 or ML-DSA-65, every other with AES-256-GCM")
        return self


class StateBody(Document):
    """Body of `POST /v1/keys/{namespace}/{name}/state`: states from which a key is released no more."""

    state: Literal["Deactivated", "Compromised"]
    cause: Annotated[str, Field(min_length=1, max_length=256)]


class _Name(Document):
    namespace: Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")]
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9_.-]{0,252}$")]


def router(service: KeyService) -> APIRouter:
    """The routes."""
    routes = APIRouter(tags=["admin"])
    admin = _Admin(service)
    for path, handler, method, summary in (
        (paths.CUSTODIANS, admin.put_custodians, "PUT", "Register or replace a tenant's custodians (registrar)"),
        (paths.CUSTODIANS, admin.get_custodians, "GET", "A tenant's custodians (any role)"),
        (paths.POLICIES, admin.post_policy, "POST", "Submit a release policy (custodian quorum)"),
        (paths.POLICY, admin.get_policy, "GET", "A release policy (any role)"),
        (paths.KEY, admin.put_key, "PUT", "Create, resume or re-policy a key (operator)"),
        (paths.KEY, admin.get_key, "GET", "A key (operator, auditor)"),
        (paths.KEY, admin.delete_key, "DELETE", "Suspend a key (operator)"),
        (paths.KEY_DESTROY, admin.destroy_key, "POST", "Destroy a key (custodian quorum)"),
        (paths.KEY_IMPORT, admin.import_key, "POST", "Import a key (custodian quorum)"),
        (paths.KEY_ROTATE, admin.rotate_key, "POST", "Make a key's next version (operator)"),
        (paths.KEY_REWRAP, admin.rewrap_key, "POST", "Put a key under new HSM keys (operator)"),
        (paths.KEY_STATE, admin.set_key_state, "POST", "Deactivate a key, or report it compromised (operator)"),
        (paths.KEYS, admin.list_keys, "GET", "All keys (operator, auditor)"),
        (paths.IMPORT_KEY, admin.get_import_key, "GET", "The public key to wrap imports for"),
        (paths.RELEASES, admin.get_releases, "GET", "Releases and denials (auditor)"),
        (paths.STATUS, admin.get_status, "GET", "Mechanisms, fallbacks, hardening (any role)"),
    ):
        routes.add_api_route(path, handler, methods=[method], summary=summary)
    return routes


class _Admin:
    def __init__(self, service: KeyService) -> None:
        self._service, self._config = service, service.config
        self._keys = KeyAdmin(service)

    async def put_custodians(self, request: Request, tenant: str) -> Response:
        require_role(request, self._config, "registrar")
        body = await _body(request)
        envelope = None
        if "envelope" in body:
            envelope = Envelope.parse(body["envelope"], types.CUSTODIAN_SET_TYPE)
            body = strict_json.parse_object(envelope.payload, where="custodians")
        if body.setdefault("tenant", tenant) != tenant:
            raise InvalidInput("the set is for another tenant", where="tenant")
        wanted = parse_custodian_set(body)
        digest = await self._service.change(lambda change: custody.register(change, wanted, envelope))
        return JSONResponse({"custodianSet": digest, "tenant": tenant})

    async def get_custodians(self, request: Request, tenant: str) -> Response:
        require_role(request, self._config, "operator", "registrar", "auditor")
        present = await self._service.read(lambda c: custody.current_set(c, tenant))
        return JSONResponse({"custodianSet": present.digest, **present.model_dump(mode="json", by_alias=True)})

    async def post_policy(self, request: Request) -> Response:
        signed = parse_policy(Envelope.parse(await _body(request), types.POLICY_TYPE))
        reply = await self._service.change(
            lambda change: custody.accept_policy(change, signed, self._config.jurisdiction)
        )
        return JSONResponse(reply, status_code=201 if "logIndex" in reply else 200)

    async def get_policy(self, request: Request, digest: str) -> Response:
        require_role(request, self._config, "operator", "registrar", "auditor")
        signed, custodian_set = await self._service.read(lambda c: custody.load_policy(c, digest))
        policy = signed.policy.model_dump(mode="json", by_alias=True)
        envelope = signed.envelope.as_dict()
        return JSONResponse(
            {"digest": signed.digest, "custodianSet": custodian_set, "policy": policy, "envelope": envelope}
        )

    async def put_key(self, request: Request, namespace: str, name: str) -> Response:
        require_role(request, self._config, "operator")
        _check_name(namespace, name)
        body = await _body(request)
        try:
            wanted = KeyBody.model_validate(body)
        except ValidationError as error:
            raise invalid(error, "key") from None
        spec = KeySpec(namespace=namespace, name=name, **wanted.model_dump())
        return JSONResponse(await self._keys.view(await self._keys.put(spec)))

    async def get_key(self, request: Request, namespace: str, name: str) -> Response:
        require_role(request, self._config, "operator", "auditor")
        _check_name(namespace, name)
        return JSONResponse(await self._keys.view(await self._keys.get(namespace, name)))

    async def delete_key(self, request: Request, namespace: str, name: str) -> Response:
        require_role(request, self._config, "operator")
        _check_name(namespace, name)
        return JSONResponse(await self._keys.view(await self._keys.suspend(namespace, name)))

    async def destroy_key(self, request: Request, namespace: str, name: str) -> Response:
        _check_name(namespace, name)
        envelope = Envelope.parse(await _body(request), types.DESTROY_ORDER_TYPE)
        return JSONResponse(await self._keys.destroy(namespace, name, envelope))

    async def import_key(self, request: Request, namespace: str, name: str) -> Response:
        _check_name(namespace, name)
        envelope = Envelope.parse(await _body(request), types.IMPORT_ORDER_TYPE)
        return JSONResponse(await self._keys.view(await self._keys.complete_import(namespace, name, envelope)))

    async def rotate_key(self, request: Request, namespace: str, name: str) -> Response:
        require_role(request, self._config, "operator")
        _check_name(namespace, name)
        return JSONResponse(await self._keys.view(await self._keys.rotate(namespace, name, "operator")))

    async def rewrap_key(self, request: Request, namespace: str, name: str) -> Response:
        require_role(request, self._config, "operator")
        _check_name(namespace, name)
        return JSONResponse(await self._keys.view(await self._keys.rewrap(namespace, name)))

    async def set_key_state(self, request: Request, namespace: str, name: str) -> Response:
        require_role(request, self._config, "operator")
        _check_name(namespace, name)
        try:
            wanted = StateBody.model_validate(await _body(request))
        except ValidationError as error:
            raise invalid(error, "state") from None
        state = KeyState(wanted.state)
        return JSONResponse(await self._keys.view(await self._keys.set_state(namespace, name, state, wanted.cause)))

    async def list_keys(self, request: Request) -> Response:
        require_role(request, self._config, "operator", "auditor")
        limit = min(_number(request.query_params.get("limit"), "limit") or MAX_HISTORY, MAX_HISTORY)
        after = request.query_params.get("after", "")[:320]
        found = await self._service.read(lambda c: list_records(c, after, limit))
        items = [record.as_dict() for record in found]
        following = f"{found[-1].namespace}/{found[-1].name}" if len(found) == limit else None
        return JSONResponse({"items": items, "next": following})

    async def get_import_key(self) -> Response:
        key = await self._service.hsm("import-key")
        return JSONResponse({"kid": key["kid"], "algorithm": key["algorithm"], "publicKey": key["public_key"]})

    async def get_releases(self, request: Request) -> Response:
        require_role(request, self._config, "auditor")
        query = request.query_params
        limit = min(_number(query.get("limit"), "limit") or MAX_HISTORY, MAX_HISTORY)
        before = _number(query.get("before"), "before")
        namespace, name = query.get("namespace"), query.get("name")
        found = await self._service.read(lambda c: releases.history(c, namespace, name, limit, before))
        return JSONResponse({"entries": found, "next": found[-1]["index"] if len(found) == limit else None})

    async def get_status(self, request: Request) -> Response:
        require_role(request, self._config, "operator", "registrar", "auditor")
        return JSONResponse(self._service.status())


async def _body(request: Request) -> dict[str, Any]:
    return strict_json.parse_object(await request.body())


def _check_name(namespace: str, name: str) -> None:
    try:
        _Name(namespace=namespace, name=name)
    except ValidationError as error:
        raise invalid(error, "path") from None


def _number(text: str | None, where: str) -> int | None:
    if text is None:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise InvalidInput("a number is expected", where=where)
    return int(text)
