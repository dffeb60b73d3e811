"""The KBS protocol 0.4.0 for guests (confidential-containers/trustee): auth, attest, resource.

Each refusal is in the log before the guest hears of it; each key leaves only after its entry.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from crds.errors import KekkaiError
from keymgmt import strict_json
from keymgmt.attestation import AttestationRefused, composite
from keymgmt.broker import kbs_errors as kbs
from keymgmt.broker import paths
from keymgmt.broker.appraisal import Appraised, AttestRequest, rule_claims
from keymgmt.broker.challenge import SESSION_ID, SUPPORTED_TEES
from keymgmt.broker.service import KeyService
from keymgmt.broker.tokens import TokenInvalid, tee_key_of
from keymgmt.external.protocol import ExternalRelease
from keymgmt.lifecycle import releases
from keymgmt.lifecycle.journal import Change
from keymgmt.policy.decision import Decision
from keymgmt.wrapping.recipients import TeeKeyInvalid, parse_tee_key, thumbprint

logger = logging.getLogger(__name__)
_SEGMENT = re.compile(r"[A-Za-z0-9_\-]+[A-Za-z0-9_\-.]*", re.ASCII)
_KEY_VERSION = re.compile(paths.KEY_RESOURCE_TYPE + r"\.([1-9][0-9]{0,8})", re.ASCII)
_MAX_SEGMENTS = (63, 63, 253)
_HASHES = "supported-hash-algorithms"


def router(service: KeyService) -> APIRouter:
    """The routes."""
    routes = APIRouter(tags=["kbs"])
    guest = Guest(service)
    # Plain routes: the protocol's bodies are parsed by us, and every release passes here.
    routes.add_route(paths.KBS_AUTH, guest.auth, methods=["POST"])
    routes.add_route(paths.KBS_ATTEST, guest.attest, methods=["POST"])
    routes.add_route(paths.KBS_RESOURCE, guest.resource, methods=["GET"])
    for path in ("/kbs/v0/attestation-policy", "/kbs/v0/resource-policy"):
        routes.add_api_route(path, refuse_policy, methods=["GET", "POST"], summary="Always refused")
    return routes


async def refuse_policy() -> Response:
    """Trustee's policy endpoints: here a policy is CEL and signed by the tenant's custodians."""
    return kbs.kbs_error(
        kbs.SET_POLICY, f"only CEL policies signed by a custodian quorum are accepted: POST {paths.POLICIES}"
    )


class Guest:
    """Handlers of the guests' requests."""

    def __init__(self, service: KeyService) -> None:
        self._service = service

    async def auth(self, request: Request) -> Response:
        body = await request.body()
        try:
            document = strict_json.parse_object(body)
        except KekkaiError as error:
            return kbs.kbs_error(kbs.RCAR_AUTH_FAILED, f"malformed request: {error.problem.what}")
        if document.get("version") != paths.KBS_VERSION:
            return kbs.kbs_error(
                kbs.RCAR_AUTH_FAILED, f"protocol version mismatch: this service speaks {paths.KBS_VERSION}"
            )
        tee = document.get("tee")
        if tee not in SUPPORTED_TEES:
            return kbs.kbs_error(kbs.RCAR_AUTH_FAILED, f"TEE not supported; supported: {', '.join(SUPPORTED_TEES)}")
        try:
            extra = _negotiate_hash(document.get("extra-params"))
        except ValueError as error:
            return kbs.kbs_error(kbs.RCAR_AUTH_FAILED, str(error))
        challenge = self._service.challenger.issue(tee, self._service.seconds())
        reply = JSONResponse({"nonce": challenge.nonce, "extra-params": extra})
        reply.set_cookie(
            paths.KBS_COOKIE,
            challenge.session_id,
            max_age=self._service.config.limits.session_seconds,
            path="/kbs",
            secure=True,
            httponly=True,
            samesite="strict",
        )
        return reply

    async def attest(self, request: Request) -> Response:
        service, body = self._service, await request.body()
        session_id = request.cookies.get(paths.KBS_COOKIE, "")
        if not SESSION_ID.fullmatch(session_id):
            return await self._refuse(request, "SessionUnknown", "no session cookie", body)
        session = releases.session_hash(session_id)
        try:
            parsed = AttestRequest.parse(body, service.config.limits.body_bytes)
            tee, expires = service.challenger.check(session_id, parsed.nonce, service.seconds())
        except KekkaiError as error:
            # The challenge stays open: what came was no answer to it.
            return await self._refuse(request, error.problem.reason, str(error), body)
        try:
            parse_tee_key(parsed.tee_key)
            appraised = await self._appraised(tee, parsed)
        except (AttestationRefused, TeeKeyInvalid) as error:
            return await self._refuse(request, error.problem.reason, str(error), body, (session, expires))
        token = await self._token(parsed, appraised, session)
        if not await service.change(lambda change: releases.open_session(change, session, expires, token)):
            return await self._refuse(request, "NonceReplayed", "the challenge was answered before", body)
        service.metrics.attestations.labels(tee).inc()
        return JSONResponse({"token": token})

    async def _appraised(self, tee: str, parsed: AttestRequest) -> Appraised:
        appraise, now = self._service.appraiser.appraise, self._service.now()
        if tee == "snp" and parsed.additional_evidence in ("", "{}"):
            return appraise(tee, parsed, now)  # a millisecond: less than what a thread costs
        return await asyncio.to_thread(appraise, tee, parsed, now)

    async def _token(self, parsed: AttestRequest, appraised: Appraised, session: str) -> str:
        service = self._service
        signing_input = service.token_key.unsigned(
            appraised.submod,
            appraised.evidence,
            parsed.tee_key,
            parsed.nonce,
            session,
            service.seconds(),
            appraised.devices,
        )
        signed = await service.hsm("sign-es256", message=signing_input)
        return service.token_key.assemble(signing_input, signed["signature"])

    async def _refuse(
        self,
        request: Request,
        reason: str,
        detail: str,
        body: bytes,
        used: tuple[str, int] | None = None,
    ) -> Response:
        """Log a refused attestation; `used` is the session and expiry of a challenge that is now spent."""
        service = self._service
        evidence = hashlib.sha256(body).hexdigest()
        source = request.client.host if request.client else ""

        def record(change: Change) -> str:
            told = reason
            if used is not None and not releases.open_session(change, *used, None):
                told = "NonceReplayed"
            releases.deny_early(change, "attest", told, detail, evidence, source, service.limiter)
            return told

        told = await service.change(record)
        service.metrics.denials.labels("attest", told).inc()
        # The reason code helps an honest guest's owner and tells an attacker nothing new: it
        # depends only on what the guest itself sent.
        return kbs.kbs_error(kbs.RCAR_ATTEST_FAILED, f"attestation failed: {told}")

    async def resource(self, request: Request) -> Response:
        service = self._service
        repository, kind, tag = (request.path_params[name] for name in ("repository", "kind", "tag"))
        for segment, limit in zip((repository, kind, tag), _MAX_SEGMENTS, strict=True):
            if not _SEGMENT.fullmatch(segment) or len(segment) > limit:
                return kbs.kbs_error(kbs.INVALID_REQUEST_PATH, "Request path is invalid", 404)
        try:
            claims = await session_claims(service, request)
        except TokenInvalid as error:
            await log_invalid_token(service, request, error, f"{repository}/{kind}/{tag}")
            return kbs.kbs_error(kbs.TOKEN_VERIFIER_ERROR)
        if claims is None:
            return kbs.kbs_error(kbs.TOKEN_NOT_FOUND)
        wanted = release_request(repository, kind, tag, claims)
        if not service.worker.ready:
            return kbs.kbs_error(kbs.PLUGIN_INTERNAL_ERROR, "the HSM is not ready", 503)
        outcome = await service.change(lambda change: self._authorise(change, kind, wanted))
        if outcome.record is None:
            service.metrics.denials.labels("resource", outcome.decision.reason).inc()
            return kbs.kbs_error(kbs.POLICY_DENY)
        try:
            reply = await self._wrapped(outcome, claims, request)
        except KekkaiError as error:
            # The run is used up: whether the guest got the key is what must never be in doubt.
            logger.error("an authorised release failed: %s", error.problem.reason)
            service.metrics.denials.labels("unseal", error.problem.reason).inc()
            return kbs.kbs_error(kbs.PLUGIN_INTERNAL_ERROR, "the key could not be unsealed", 503)
        service.metrics.releases.inc()
        return Response(reply, media_type="application/json")

    async def _wrapped(self, outcome: releases.ReleaseOutcome, claims: dict[str, Any], request: Request) -> str | bytes:
        """The key for the guest: re-wrapped by the worker, or by the custodians who hold it themselves."""
        service, record, key = self._service, outcome.record, tee_key_of(claims)
        assert record is not None
        if outcome.policy is None or outcome.policy.external_key is None:
            context = record.context.as_map()
            return str((await service.hsm("release", sealed=record.sealed, context=context, jwk=key))["jwe"])
        token = await session_token(service, request)
        proof = await asyncio.to_thread(service.prove, outcome.log_index)
        asked = ExternalRelease(f"{record.namespace}/{record.name}", record.id, token or "", outcome.entry, proof)
        return await service.external.ask(outcome.policy.external_key, asked, key["alg"])

    def _authorise(self, change: Change, kind: str, wanted: releases.ReleaseRequest) -> releases.ReleaseOutcome:
        if _version_of(kind) < 0:
            decision = Decision(False, "ResourceTypeUnknown", (f"there is no resource type {kind}",))
            index = releases.deny(change, wanted, decision, self._service.limiter, tenant="")
            return releases.ReleaseOutcome(decision, None, index)
        return releases.authorise(change, wanted, self._service.limiter)


async def session_token(service: KeyService, request: Request) -> str | None:
    """The bearer token, or the session's; None if there is neither. Nothing is verified."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return token.strip()
    session_id = request.cookies.get(paths.KBS_COOKIE, "")
    if not SESSION_ID.fullmatch(session_id):
        return None
    session, now = releases.session_hash(session_id), service.seconds()
    return await service.read(lambda connection: releases.session_token(connection, session, now))


async def session_claims(service: KeyService, request: Request) -> dict[str, Any] | None:
    """Claims of the request's token; None if it has none. Raises TokenInvalid."""
    token = await session_token(service, request)
    return None if token is None else service.token_key.verify(token, service.seconds())


async def log_invalid_token(service: KeyService, request: Request, error: TokenInvalid, wanted: str) -> None:
    """Append a denial for a token that is not ours, changed or expired."""
    reason = error.problem.reason
    presented = hashlib.sha256(request.headers.get("authorization", "").encode()).hexdigest()
    source = request.client.host if request.client else ""
    await service.change(
        lambda change: releases.deny_early(change, "token", reason, wanted, presented, source, service.limiter)
    )
    service.metrics.denials.labels("token", reason).inc()


def _version_of(kind: str) -> int:
    """The version that a resource type asks for: 0 for the present one (`key`), -1 if it is no key."""
    if kind == paths.KEY_RESOURCE_TYPE:
        return 0
    found = _KEY_VERSION.fullmatch(kind)
    return int(found[1]) if found else -1


def release_request(repository: str, kind: str, tag: str, claims: dict[str, Any]) -> releases.ReleaseRequest:
    """What the holder of a token asks for by a resource's three segments."""
    key, version = tee_key_of(claims), _version_of(kind)
    return releases.ReleaseRequest(
        namespace=repository,
        name=tag if version >= 0 else f"{kind}/{tag}"[:253],
        claims={**composite.rule_claims(claims["submods"]), **rule_claims(claims["submods"]["cpu0"])},
        evidence=claims["kekkai.evidence"],
        session=claims["jti"],
        recipient=thumbprint(key),
        wrapping=key["alg"],
        version=version if version > 0 else None,
    )


def _negotiate_hash(extra: object) -> Any:
    """Trustee sends "" unless the client lists hash algorithms; then the chosen one is named."""
    if not isinstance(extra, dict) or _HASHES not in extra:
        return ""
    offered = extra[_HASHES]
    names = [str(item).lower().replace("-", "") for item in offered] if isinstance(offered, list) else []
    if "sha384" not in names:
        raise ValueError("no common hash algorithm: this service uses sha384")
    return {"selected-hash-algorithm": "sha384"}
