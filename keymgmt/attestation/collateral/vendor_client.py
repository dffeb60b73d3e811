"""The HTTP client of all fetchers: bounded in time and size, no redirects, patient with rate limits.

A fetcher brings bytes and decides nothing: what it brings is authenticated before it is kept.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

import httpx

from crds.errors import InvalidInput, KekkaiError

MAX_REPLY_BYTES: Final = 1 << 20
MAX_HEADER: Final = 16 * 1024
_RETRIED: Final = {429, 500, 502, 503, 504}
_LOOPBACK: Final = {"127.0.0.1", "localhost", "::1"}
_SECONDS: Final = re.compile(r"\d{1,4}", re.ASCII)


class CollateralUnavailable(KekkaiError):
    """The vendor's service did not give the piece. Retrying later may help."""

    reason = "CollateralUnavailable"
    http_status = 503


@dataclass(frozen=True, slots=True)
class Reply:
    """A body and its headers (names in lower case)."""

    body: bytes
    headers: Mapping[str, str]


class VendorClient:
    """GET from one vendor. `base_url` must be https (http only on this host, for caches and tests).

    `timeout` (seconds) bounds each attempt as a whole, `attempts` how often a busy or failing
    service is asked; between them it waits as Retry-After says, at most `patience` seconds.
    """

    def __init__(
        self,
        base_url: str,
        *,
        timeout: float = 20.0,
        attempts: int = 3,
        patience: float = 30.0,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        parts = urlsplit(base_url)
        if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _LOOPBACK):
            raise InvalidInput("an https address is needed", where="base_url", fix="such as https://kdsintf.amd.com")
        self._base, self._timeout, self._attempts = base_url.rstrip("/"), timeout, attempts
        self._patience, self._sleep = patience, sleep
        self._http = httpx.Client(
            timeout=httpx.Timeout(timeout, connect=min(timeout, 5.0)),
            follow_redirects=False,
            trust_env=False,
            transport=transport,
            headers={"user-agent": "kekkai", "accept-encoding": "identity"},
        )

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> VendorClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def get(self, path: str, query: Mapping[str, str] | None = None, *, limit: int = MAX_REPLY_BYTES) -> Reply:
        """The reply to a GET with status 200, at most `limit` bytes. Raises CollateralUnavailable."""
        told = "no attempt was made"
        for attempt in range(self._attempts):
            wait = min(2.0**attempt, self._patience)
            try:
                status, headers, body = self._attempt(path, query, limit)
            except httpx.HTTPError as error:
                told = f"{type(error).__name__}"
            else:
                if status == 200:
                    return Reply(body, headers)
                told = f"status {status}"
                if status not in _RETRIED:
                    break
                if _SECONDS.fullmatch(after := headers.get("retry-after", "")):
                    wait = min(float(after), self._patience)
            if attempt + 1 < self._attempts:
                self._sleep(wait)
        raise CollateralUnavailable(
            f"not served: {told}", where=f"{self._base}{path}", fix="check the network, or import an offline bundle"
        )

    def _attempt(self, path: str, query: Mapping[str, str] | None, limit: int) -> tuple[int, Mapping[str, str], bytes]:
        deadline = time.monotonic() + self._timeout
        with self._http.stream("GET", f"{self._base}{path}", params=query) as reply:
            headers = {name.lower(): value for name, value in reply.headers.items()}
            if any(len(value) > MAX_HEADER for value in headers.values()):
                raise self._too_large(path, MAX_HEADER)
            if reply.headers.get("content-encoding", "identity") != "identity":
                raise CollateralUnavailable("the reply is compressed, unasked", where=f"{self._base}{path}")
            body = bytearray()
            for part in reply.iter_raw():
                body += part
                if len(body) > limit:
                    raise self._too_large(path, limit)
                if time.monotonic() > deadline:  # a server that drips keeps each single read in time
                    raise httpx.ReadTimeout("the reply takes too long")
            return reply.status_code, headers, bytes(body)

    def _too_large(self, path: str, limit: int) -> CollateralUnavailable:
        return CollateralUnavailable(f"the reply is larger than {limit} bytes", where=f"{self._base}{path}")
