"""Serving the application over TLS 1.3, with a graceful end."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import ssl
from pathlib import Path

import uvicorn

from crds.errors import InvalidInput
from keymgmt.broker.app import create_app
from keymgmt.broker.service import KeyService
from keymgmt.config import KeyServiceConfig, Tls
from keymgmt.wrapping.client import WorkerClient

_GRACE_SECONDS = 2
_BACKLOG = 1024


def tls_context(config: Tls) -> ssl.SSLContext:
    """A server context that speaks TLS 1.3 only. Raises InvalidInput."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    try:
        context.load_cert_chain(config.certificate, config.key)
    except (OSError, ssl.SSLError) as error:
        raise InvalidInput(
            f"the TLS certificate or key cannot be loaded: {error}", where="tls", fix="check tls.certificate, tls.key"
        ) from None
    return context


def listen(config: KeyServiceConfig) -> socket.socket:
    """A bound socket. Raises InvalidInput."""
    family = socket.AF_INET6 if ":" in config.listen.host else socket.AF_INET
    # With the protocol named, asyncio turns Nagle's algorithm off on accepted connections.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((config.listen.host, config.listen.port))
    except OSError as error:
        listener.close()
        raise InvalidInput(
            f"cannot listen on {config.listen.host}:{config.listen.port}: {error.strerror}", where="listen"
        ) from None
    listener.set_inheritable(False)
    return listener


class _Server(uvicorn.Server):
    """Tells the world where it listens once it does."""

    def __init__(self, config: uvicorn.Config, ready_file: Path | None, url: str) -> None:
        super().__init__(config)
        self._ready_file, self._url = ready_file, url

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        if self.started and self._ready_file is not None:
            temporary = self._ready_file.with_name(f".{self._ready_file.name}.tmp")
            temporary.write_text(json.dumps({"url": self._url, "pid": os.getpid()}))
            temporary.replace(self._ready_file)


def run(config: KeyServiceConfig, worker: WorkerClient) -> None:
    """Start the service and serve until SIGTERM or SIGINT. Raises KekkaiError if it cannot start."""
    context = tls_context(config.tls)
    listener = listen(config)
    if config.ready_file is not None:
        config.ready_file.unlink(missing_ok=True)
    service = KeyService(config, worker)
    # uvicorn raises the signal that ended it once more afterwards; we end by returning.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    try:
        service.start()
        host, port = listener.getsockname()[:2]
        url = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
        settings = uvicorn.Config(
            create_app(service),
            ssl_context_factory=lambda *_: context,
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,  # whom a request comes from is what the connection says
            ws="none",
            backlog=_BACKLOG,
            timeout_keep_alive=15,
            timeout_graceful_shutdown=_GRACE_SECONDS,
            h11_max_incomplete_event_size=48 * 1024,
        )
        asyncio.run(_Server(settings, config.ready_file, url).serve(sockets=[listener]))
    finally:
        service.close()
        listener.close()
        if config.ready_file is not None:
            config.ready_file.unlink(missing_ok=True)
