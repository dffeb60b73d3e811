"""The key service's side: ask a custodian's service, over TLS that only its own certificate satisfies."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from urllib.parse import urlsplit

import httpx

from crds.errors import InvalidInput, KekkaiError, Unavailable
from keymgmt.external.protocol import MAX_REPLY, PATH, ExternalRelease, check_reply
from keymgmt.policy.documents import ExternalKey

TIMEOUT = httpx.Timeout(10.0, connect=5.0)


class ExternalRefused(KekkaiError):
    """The custodian's service does not give the key."""

    reason = "ExternalRefused"
    http_status = 503


class ExternalKeys:
    """Asks services whose hosts the configuration allows; none are by default.

    The address comes from a document that a tenant's custodians signed: without a list of
    hosts it could make this service call anything within its reach.
    """

    def __init__(self, allowed_hosts: Sequence[str]) -> None:
        self._allowed = frozenset(allowed_hosts)

    def require_allowed(self, external: ExternalKey) -> None:
        """Raises InvalidInput for a host that the configuration does not list."""
        host = urlsplit(external.url).hostname
        if host not in self._allowed:
            raise InvalidInput(
                f"this service may not ask {host} for keys",
                where="policy.externalKey.url",
                fix="have its operator add the host to external.allowedHosts",
                reason="ExternalHostNotAllowed",
            )

    async def ask(self, external: ExternalKey, request: ExternalRelease, algorithm: str) -> bytes:
        """The JWE for the guest, of JOSE `algorithm`. Raises ExternalRefused, Unavailable, InvalidInput."""
        self.require_allowed(external)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        try:
            context.load_verify_locations(cadata=external.certificate)
        except ssl.SSLError:
            raise InvalidInput("not a PEM certificate", where="policy.externalKey.certificate") from None
        status, data = await self._exchange(context, external.url.rstrip("/") + PATH, request)
        if status >= 500:
            raise Unavailable(f"the custodian's key service answers HTTP {status}", reason="ExternalUnavailable")
        if status != 200:
            raise ExternalRefused(f"the custodian's key service refused (HTTP {status})")
        return check_reply(data, algorithm)

    @staticmethod
    async def _exchange(context: ssl.SSLContext, url: str, request: ExternalRelease) -> tuple[int, bytes]:
        data = bytearray()
        try:
            async with (
                httpx.AsyncClient(verify=context, timeout=TIMEOUT, trust_env=False) as client,
                client.stream("POST", url, json=request.as_dict()) as reply,
            ):
                async for part in reply.aiter_bytes():
                    data += part
                    if len(data) > MAX_REPLY:
                        raise ExternalRefused("the custodian's reply is too long")
                return reply.status_code, bytes(data)
        except (httpx.HTTPError, OSError) as error:
            raise Unavailable(
                f"the custodian's key service does not answer: {type(error).__name__}", reason="ExternalUnavailable"
            ) from None
