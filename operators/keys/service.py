"""HTTP client of the key service's administration, as role `operator`."""

from __future__ import annotations

import json
import re
import ssl
from pathlib import Path
from typing import Any

import httpx

from crds.errors import KekkaiError, Unavailable

_REASON = re.compile(r"[A-Z][A-Za-z0-9]{0,63}")
_MAX_REPLY = 64 * 1024
_TIMEOUT = httpx.Timeout(20.0, connect=5.0)


class KeyServiceRefused(KekkaiError):
    """The key service said no; `reason`, `where` and `fix` are its own."""

    def __init__(self, status: int, what: str, *, where: str = "", fix: str = "", reason: str = "Refused") -> None:
        super().__init__(what, where=where, fix=fix, reason=reason)
        self.status = status


class KeyServiceClient:
    """PUT, GET and DELETE of keys. Raises Unavailable when it does not answer, KeyServiceRefused on a no."""

    def __init__(self, url: str, ca: Path | None, token_file: Path) -> None:
        context = ssl.create_default_context(cafile=str(ca) if ca else None)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        self._token_file = token_file
        self._http = httpx.AsyncClient(base_url=url, verify=context, timeout=_TIMEOUT, trust_env=False)

    async def close(self) -> None:
        await self._http.aclose()

    async def put(self, namespace: str, name: str, request: dict[str, Any]) -> dict[str, Any]:
        """Make the key be as asked; the reply is its state."""
        return await self._call("PUT", namespace, name, request)

    async def get(self, namespace: str, name: str) -> dict[str, Any]:
        return await self._call("GET", namespace, name)

    async def suspend(self, namespace: str, name: str) -> None:
        """Stop releases; PUT resumes them."""
        await self._call("DELETE", namespace, name)

    async def _call(self, method: str, namespace: str, name: str, body: Any = None) -> dict[str, Any]:
        path = f"/v1/keys/{namespace}/{name}"
        try:
            status, data = await self._exchange(method, path, body)
        except httpx.HTTPError:
            # All methods here are idempotent, and a connection kept from before its restart fails just once.
            try:
                status, data = await self._exchange(method, path, body)
            except httpx.HTTPError as error:
                raise Unavailable(
                    f"the key service does not answer: {type(error).__name__}",
                    where=path,
                    fix="check that it runs and that --keys-url and --keys-ca are right",
                    reason="KeyServiceUnreachable",
                ) from None
        return _read(status, data, path)

    async def _exchange(self, method: str, path: str, body: Any) -> tuple[int, bytes]:
        try:
            # Read at each call, so that a rotated token is used at once.
            headers = {"Authorization": f"Bearer {self._token_file.read_text().strip()}"}
        except OSError as error:
            raise Unavailable(
                f"the token of the key service cannot be read: {error.strerror}",
                where="--keys-token-file",
                reason="KeyServiceTokenUnreadable",
            ) from None
        data = b""
        async with self._http.stream(method, path, headers=headers, json=body) as reply:
            async for chunk in reply.aiter_bytes():
                data += chunk
                if len(data) > _MAX_REPLY:
                    raise Unavailable("the key service's reply is larger than 64 KiB", where=path)
        return reply.status_code, data


def _read(status: int, data: bytes, path: str) -> dict[str, Any]:
    """The reply's JSON object. Raises Unavailable on a fault of the service, KeyServiceRefused on a no."""
    try:
        parsed = json.loads(data) if data else {}
    except (ValueError, RecursionError):
        parsed = None
    if not isinstance(parsed, dict):
        if status < 400:
            raise Unavailable("the key service's reply is not a JSON object", where=path)
        parsed = {}
    what = str(parsed.get("what", f"HTTP {status}"))[:1024]
    if status >= 500:
        raise Unavailable(what, where=path, reason="KeyServiceUnavailable")
    if status >= 400:
        texts = {key: str(parsed.get(key, ""))[:512] for key in ("where", "fix")}
        reason = str(parsed.get("reason") or "")
        known = reason if _REASON.fullmatch(reason) else "Refused"  # it becomes a condition's reason
        raise KeyServiceRefused(status, what, reason=known, **texts)
    return parsed
