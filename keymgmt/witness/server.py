"""A witness as a service: `kekkai log witness --config FILE`, for a custodian or any other third party.

It holds no tenant's secret and sees only checkpoints. TLS 1.3 when a certificate is given; without one it
answers on the loopback alone, for a proxy in front of it.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import os
import stat
import time
from pathlib import Path
from typing import Annotated

import uvicorn
import yaml
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey
from fastapi import FastAPI, Request
from pydantic import Field, ValidationError, model_validator
from starlette.responses import Response

from crds.errors import InvalidInput, KekkaiError
from keymgmt.broker.server import tls_context
from keymgmt.config import Listen, Section, Tls
from keymgmt.lifecycle.folder_lock import take
from keymgmt.transparency.cosignature import ED25519, ML_DSA_44, WitnessKey
from keymgmt.transparency.note import VerifierKey
from keymgmt.transparency.witness import Witness, WitnessIdentity, WitnessState
from keymgmt.transparency.witness_protocol import MAX_REQUEST, PATH, Answer

logger = logging.getLogger(__name__)
LATEST = "/latest/{origin:path}"
_KINDS = {"ed25519": ED25519, "ml-dsa-44": ML_DSA_44}


class WitnessConfig(Section):
    """The configuration file, YAML or JSON. `keys` from `kekkai log witness-key`; `logs` are log vkeys or files."""

    listen: Listen = Listen()
    tls: Tls | None = None
    state: Path
    keys: Annotated[tuple[Path, ...], Field(min_length=1, max_length=4)]
    logs: Annotated[tuple[str, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _open_only_with_tls(self) -> WitnessConfig:
        if self.tls is None and self.listen.host not in ("127.0.0.1", "::1", "localhost"):
            raise ValueError("without tls, listen.host must be the loopback")
        return self


def load(path: Path) -> WitnessConfig:
    """Read and validate; relative paths start at the file's folder. Raises InvalidInput."""
    try:
        config = WitnessConfig.model_validate(yaml.safe_load(path.read_bytes()[: 1 << 20]))
    except OSError as error:
        raise InvalidInput(f"cannot be read: {error.strerror}", where=str(path)) from None
    except yaml.YAMLError:
        raise InvalidInput("not YAML or JSON", where=str(path)) from None
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        raise InvalidInput(first["msg"], where=f"{path}: {field}", fix="see docs/transparency-log.md") from None
    base = path.resolve().parent
    tls = config.tls
    if tls is not None:
        tls = Tls(certificate=base / tls.certificate, key=base / tls.key)
    keys = tuple(base / one for one in config.keys)
    logs = tuple(one if "+" in one else str(base / one) for one in config.logs)
    return config.model_copy(update={"state": base / config.state, "keys": keys, "logs": logs, "tls": tls})


def new_key(path: Path, name: str, kind: str) -> WitnessKey:
    """Make a key of kind `ed25519` or `ml-dsa-44` in a file of mode 0600. Raises InvalidInput if the file exists."""
    if kind not in _KINDS:
        raise InvalidInput("a witness key is ed25519 or ml-dsa-44", where="kind")
    seed = os.urandom(32)
    identity = _identity(name, kind, seed)
    WitnessKey.parse(str(identity.key))
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise InvalidInput("the file exists", where=str(path), fix="a witness key is never overwritten") from None
    with os.fdopen(descriptor, "w") as file:
        file.write(f"kekkai-witness-key {kind} {name} {base64.b64encode(seed).decode()}\n")
    return identity.key


def read_key(path: Path) -> WitnessIdentity:
    """A key that `new_key` wrote. Raises InvalidInput; nothing of the key is in the message."""
    try:
        if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise InvalidInput("others can read the witness's key", where=str(path), fix="chmod 600")
        parts = path.read_text()[:1024].split()
        seed = base64.b64decode(parts[3], validate=True)
        if len(parts) != 4 or parts[0] != "kekkai-witness-key" or parts[1] not in _KINDS or len(seed) != 32:
            raise ValueError
    except OSError as error:
        raise InvalidInput(f"cannot be read: {error.strerror}", where=str(path)) from None
    except (ValueError, IndexError):
        raise InvalidInput("not a witness key", where=str(path), fix="make one: kekkai log witness-key") from None
    return _identity(parts[2], parts[1], seed)


def build(config: WitnessConfig) -> Witness:
    """The witness of a configuration. Raises InvalidInput."""
    logs = [VerifierKey.parse(one if "+" in one else _text(Path(one))) for one in config.logs]
    return Witness([read_key(one) for one in config.keys], logs, WitnessState(config.state), time.time)


def create_app(witness: Witness) -> FastAPI:
    """The routes: `POST /add-checkpoint`, and `GET /latest/{origin}` for monitors."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    @app.post(PATH)
    async def add_checkpoint(request: Request) -> Response:
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_REQUEST:
                return Response("too long\n", 413)
        try:
            answer = await asyncio.to_thread(witness.add_checkpoint, body)
        except (KekkaiError, OSError) as error:
            logger.error("nothing was cosigned: %s", type(error).__name__)
            answer = Answer(500, b"the witness's memory cannot be used\n")
        return Response(answer.body, answer.status, {"content-type": answer.content_type})

    @app.get(LATEST)
    async def latest(origin: str) -> Response:
        content = await asyncio.to_thread(witness.latest, origin)
        return Response(content or b"", 200 if content else 404, media_type="text/plain; charset=utf-8")

    return app


def serve(config: WitnessConfig) -> None:
    """Serve until interrupted. Raises AlreadyRunning if another process has the state's folder."""
    context = tls_context(config.tls) if config.tls is not None else None
    with take(config.state):
        settings = uvicorn.Config(
            create_app(build(config)),
            host=config.listen.host,
            port=config.listen.port,
            ssl_context_factory=(lambda *_: context) if context is not None else None,
            server_header=False,
            access_log=False,
            log_level="warning",
            limit_concurrency=256,
        )
        uvicorn.Server(settings).run()


def _identity(name: str, kind: str, seed: bytes) -> WitnessIdentity:
    if kind == "ed25519":
        ed = Ed25519PrivateKey.from_private_bytes(seed)
        return WitnessIdentity(WitnessKey(name, ED25519, ed.public_key().public_bytes_raw()), ed.sign)
    ml = MLDSA44PrivateKey.from_seed_bytes(seed)
    return WitnessIdentity(WitnessKey(name, ML_DSA_44, ml.public_key().public_bytes_raw()), ml.sign)


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError as error:
        raise InvalidInput(f"cannot be read: {error.strerror}", where=str(path)) from None
