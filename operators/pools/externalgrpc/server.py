"""The listening side: mutual TLS, and only clients that were named."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc  # type: ignore[import-untyped]

from crds.errors import InvalidInput
from operators.pools.externalgrpc.service import CloudProvider
from operators.pools.externalgrpc.wire.externalgrpc_pb2_grpc import add_CloudProviderServicer_to_server


@dataclass(frozen=True, slots=True)
class Listening:
    """Where to listen and whom to let in. Certificates are PEM files."""

    address: str  # host:port; port 0: any
    certificate: Path
    key: Path
    client_ca: Path
    clients: Sequence[str] = field(default=())  # common names; none: whoever has a certificate of the client CA


async def listen(service: CloudProvider, how: Listening) -> tuple[Any, int]:
    """The running grpc.aio server, and its port. Raises InvalidInput when a file or the address is of no use."""
    try:
        pair = (how.key.read_bytes(), how.certificate.read_bytes())
        roots = how.client_ca.read_bytes()
    except OSError as error:
        raise InvalidInput(f"it cannot be read: {error.strerror}", where=str(error.filename)) from error
    credentials = grpc.ssl_server_credentials([pair], root_certificates=roots, require_client_auth=True)
    server = grpc.aio.server(interceptors=[_Named(frozenset(how.clients))] if how.clients else [])
    add_CloudProviderServicer_to_server(service, server)
    try:
        port = server.add_secure_port(how.address, credentials)
    except RuntimeError as error:
        raise InvalidInput(f"it cannot be listened on: {error}", where=how.address) from error
    await server.start()
    return server, port


class _Named(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Lets in clients whose certificate has one of these common names."""

    def __init__(self, names: frozenset[str]) -> None:
        self._names = names

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], details: Any) -> Any:
        handler = await continuation(details)
        if handler is None or handler.unary_unary is None:
            return handler
        inner = handler.unary_unary

        async def guarded(request: Any, context: Any) -> Any:
            said = context.auth_context().get("x509_common_name", ())
            if not any(name.decode(errors="replace") in self._names for name in said):
                await context.abort(
                    grpc.StatusCode.PERMISSION_DENIED, "this client's certificate is not one of those named"
                )
            return await inner(request, context)

        return grpc.unary_unary_rpc_method_handler(
            guarded, request_deserializer=handler.request_deserializer, response_serializer=handler.response_serializer
        )
