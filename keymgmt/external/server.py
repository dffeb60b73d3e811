"""A custodian's key service for HYOK: `kekkai keys external serve --config FILE`.

Small on purpose: keys in files of their own, one route, TLS 1.3. A custodian with an HSM
writes the same protocol in front of it.
"""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import uvicorn
import yaml
from fastapi import FastAPI, Request
from pydantic import Field, ValidationError
from starlette.responses import JSONResponse, Response

from crds.errors import InvalidInput, KekkaiError, NotFound
from keymgmt.broker.server import tls_context
from keymgmt.broker.tokens import TokenKey
from keymgmt.config import Listen, Section, Tls
from keymgmt.external.decide import Terms, agree
from keymgmt.external.ledger import Ledger
from keymgmt.external.protocol import MAX_REQUEST, PATH, ExternalRelease
from keymgmt.policy.rule import compile_rule
from keymgmt.transparency.entries import timestamp
from keymgmt.transparency.note import VerifierKey
from keymgmt.wrapping.jwe import encrypt
from keymgmt.wrapping.recipients import raw_point

KEY_BYTES = 32
GRACE_SECONDS = 3
Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]


class HeldKey(Section):
    """One key: its file (32 bytes, mode 0600) and what its custodian agrees to."""

    key: Annotated[str, Field(pattern=r"^[a-z0-9][-a-z0-9]{0,62}/[A-Za-z0-9_-][A-Za-z0-9_.-]{0,252}$")]
    file: Path
    policies: Annotated[tuple[Digest, ...], Field(min_length=1)]
    max_releases: Annotated[int, Field(ge=1)]
    rule: str | None = None


class ExternalConfig(Section):
    """The configuration file, YAML or JSON. `jwks` and `log_key` are the key service's, learned on a safe way."""

    listen: Listen = Listen()
    tls: Tls
    jwks: Path
    log_key: Path
    ledger: Path
    keys: Annotated[tuple[HeldKey, ...], Field(min_length=1)]


def load(path: Path) -> ExternalConfig:
    """Read and validate; relative paths start at the file's folder. Raises InvalidInput."""
    try:
        document = yaml.safe_load(path.read_bytes()[: 1 << 20])
        config = ExternalConfig.model_validate(document)
    except OSError as error:
        raise InvalidInput(f"cannot be read: {error.strerror}", where=str(path)) from None
    except yaml.YAMLError:
        raise InvalidInput("not YAML or JSON", where=str(path)) from None
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        raise InvalidInput(first["msg"], where=f"{path}: {'.'.join(map(str, first['loc']))}") from None
    base = path.resolve().parent
    keys = tuple(one.model_copy(update={"file": base / one.file}) for one in config.keys)
    tls = Tls(certificate=base / config.tls.certificate, key=base / config.tls.key)
    return config.model_copy(
        update={
            "tls": tls,
            "keys": keys,
            **{name: base / getattr(config, name) for name in ("jwks", "log_key", "ledger")},
        }
    )


def create_app(config: ExternalConfig, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> FastAPI:
    """The application. Raises InvalidInput if a key, rule or pin cannot be used."""
    log_key = VerifierKey.parse(_text(config.log_key).strip())
    token_key = _token_key(config.jwks, f"kekkai-keys/{log_key.name}")
    held = {one.key: (_terms(one), _key(one.file)) for one in config.keys}
    ledger = Ledger(config.ledger)
    app = FastAPI(title="Kekkai external keys", docs_url=None, redoc_url=None, openapi_url=None)

    async def release(request: Request) -> Response:
        body = bytearray()
        async for part in request.stream():
            body += part
            if len(body) > MAX_REQUEST:
                raise InvalidInput("the request is too long")
        wanted = ExternalRelease.parse(bytes(body))
        if wanted.key not in held:
            raise NotFound("no such key", where="key")
        terms, key = held[wanted.key]
        now = clock()
        agreed = agree(wanted, terms, ledger.served(terms.key), token_key, log_key, now)
        reply = encrypt(key, agreed.recipient)
        ledger.record(terms.key, agreed.index, timestamp(now), agreed.recipient.algorithm, terms.max_releases)
        return Response(reply, media_type="application/json")

    async def healthy() -> dict[str, str]:
        return {"status": "ok"}

    async def problem(_: Request, error: Exception) -> Response:
        assert isinstance(error, KekkaiError)
        return JSONResponse(error.problem.as_dict(), status_code=type(error).http_status)

    app.add_route(PATH, release, methods=["POST"])
    app.add_api_route("/healthz", healthy)
    app.add_exception_handler(KekkaiError, problem)
    return app


def serve(config: ExternalConfig) -> None:
    """Serve until interrupted."""
    context = tls_context(config.tls)
    settings = uvicorn.Config(
        create_app(config),
        host=config.listen.host,
        port=config.listen.port,
        ssl_context_factory=lambda *_: context,
        timeout_graceful_shutdown=GRACE_SECONDS,
        server_header=False,
        access_log=False,
        log_level="warning",
    )
    uvicorn.Server(settings).run()


def _terms(one: HeldKey) -> Terms:
    if one.rule is not None:
        compile_rule(one.rule)
    return Terms(one.key, frozenset(one.policies), one.max_releases, one.rule)


def _key(path: Path) -> bytes:
    try:
        mode, key = path.stat().st_mode, path.read_bytes()
    except OSError as error:
        raise InvalidInput(f"cannot be read: {error.strerror}", where=str(path)) from None
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise InvalidInput("others may read the key", where=str(path), fix="chmod 600")
    if len(key) != KEY_BYTES:
        raise InvalidInput(f"a key has {KEY_BYTES} bytes", where=str(path))
    return key


def _token_key(path: Path, issuer: str) -> TokenKey:
    try:
        keys: Any = json.loads(_text(path))["keys"]
        point = raw_point(keys[0])
    except (ValueError, KeyError, IndexError, TypeError):
        raise InvalidInput(
            "not the key service's JWKS", where=str(path), fix="save its /.well-known/jwks.json"
        ) from None
    return TokenKey(point, issuer)


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"cannot be read: {error}", where=str(path)) from None
