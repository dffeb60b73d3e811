"""HTTP client of the key service's administration, as role `operator`."""

from __future__ import annotations

import json
import ssl
from pathlib import Path
from typing import Any

import httpx

from crds.errors import KekkaiError, Unavailable

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
        """Stop releases. A key that it does not know needs no stopping."""
        try:
            await self._call("DELETE", namespace, name)
        except KeyServiceRefused as refused:
            if refused.status != 404:
                raise

    async def _call(self, method: str, namespace: str, name: str, body: Any = None) -> dict[str, Any]:
        # Read at each call, so that a rotated token is used at once.
        headers = {"Authorization": f"Bearer {self._token_file.read_text().strip()}"}
        path = f"/v1/keys/{namespace}/{name}"
        try:
            async with self._http.stream(method, path, headers=headers, json=body) as reply:
                data = b""
                async for chunk in reply.aiter_bytes():
                    data += chunk
                    if len(data) > _MAX_REPLY:
                        raise Unavailable("the key service's reply is larger than 64 KiB", where=path)
        except httpx.HTTPError as error:
            raise Unavailable(
                f"the key service does not answer: {type(error).__name__}",
                where=path,
                fix="check that it runs and that --keys-url and --keys-ca are right",
                reason="KeyServiceUnreachable",
            ) from None
        try:
            parsed = json.loads(data) if data else {}
        except ValueError:
            parsed = {}
        if not isinstance(parsed, dict):
            parsed = {}
        if reply.status_code >= 500:
            raise Unavailable(
                str(parsed.get("what", f"HTTP {reply.status_code}")), where=path, reason="KeyServiceUnavailable"
            )
        if reply.status_code >= 400:
            texts = {key: str(parsed.get(key, ""))[:512] for key in ("where", "fix")}
            what, reason = str(parsed.get("what", f"HTTP {reply.status_code}"))[:1024], str(parsed.get("reason", ""))
            raise KeyServiceRefused(reply.status_code, what, reason=reason or "Refused", **texts)
        return parsed
