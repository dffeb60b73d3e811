"""Client of a Prometheus server's instant queries: bounded in time, size and number."""

from __future__ import annotations

import asyncio
import json
import math
import ssl
from pathlib import Path
from typing import Any

import httpx

from crds.errors import KekkaiError, Unavailable
from operators.dataflow.promql import MARK
from scheduler.dataflow import Sample

_TIMEOUT = httpx.Timeout(5.0, connect=2.0)
_MAX_REPLY = 64 * 1024
_AT_ONCE = 16


class QueryRefused(KekkaiError):
    """Prometheus understood the request and said no, or said something that is no answer."""

    reason = "QueryRefused"
    http_status = 502


class Prometheus:
    """`/api/v1/query` of https://prometheus.io/docs/prometheus/latest/querying/api/."""

    def __init__(self, url: str, ca: Path | None = None, token_file: Path | None = None) -> None:
        context: ssl.SSLContext | bool = ssl.create_default_context(cafile=str(ca)) if ca else True
        self._token_file = token_file
        self._http = httpx.AsyncClient(base_url=url.rstrip("/"), verify=context, timeout=_TIMEOUT, trust_env=False)
        self._room = asyncio.Semaphore(_AT_ONCE)

    async def close(self) -> None:
        await self._http.aclose()

    async def read(self, query: str, now: float) -> Sample | None:
        """The value of a `promql.query` and when it was scraped, on our clock; None when no series matches.

        Raises Unavailable when Prometheus does not answer in time, QueryRefused when it does not answer the question.
        """
        async with self._room:
            try:
                body = await asyncio.wait_for(self._ask(query), timeout=10.0)
            except (httpx.HTTPError, TimeoutError) as error:
                raise Unavailable(
                    f"Prometheus does not answer: {type(error).__name__}",
                    where="--prometheus-url",
                    fix="check that it runs and can be reached",
                    reason="PrometheusUnreachable",
                ) from None
        return sample_of(body, now)

    async def _ask(self, query: str) -> bytes:
        headers = {}
        if self._token_file is not None:
            headers["Authorization"] = f"Bearer {self._token_file.read_text().strip()}"
        async with self._http.stream("POST", "/api/v1/query", data={"query": query}, headers=headers) as reply:
            body = b""
            async for chunk in reply.aiter_bytes():
                body += chunk
                if len(body) > _MAX_REPLY:
                    raise QueryRefused(f"Prometheus replied more than {_MAX_REPLY} bytes")
            if reply.status_code >= 500 or reply.status_code == 429:
                raise httpx.HTTPStatusError("server error", request=reply.request, response=reply)
            if reply.status_code != 200:
                raise QueryRefused(f"Prometheus replied with status {reply.status_code}: {_said(body)}")
            return body


def sample_of(body: bytes, now: float) -> Sample | None:
    """The reply as a sample on our clock: its age by Prometheus' own clock is what counts, so skew does no harm."""
    try:
        reply: Any = json.loads(body)
        data = reply["data"]
        if reply["status"] != "success" or data["resultType"] != "vector":
            raise ValueError(reply.get("error", "no vector"))
        found = {one["metric"].get(MARK): (float(one["value"][0]), float(one["value"][1])) for one in data["result"]}
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
        raise QueryRefused(f"Prometheus replied what is no answer: {type(error).__name__}") from None
    if "value" not in found:
        return None
    asked, value = found["value"]
    scraped = found["at"][1] if "at" in found else math.nan
    return Sample(value, now - max(0.0, asked - scraped) if math.isfinite(scraped) else math.nan)


def _said(body: bytes) -> str:
    try:
        return str(json.loads(body).get("error", ""))[:200]
    except (ValueError, AttributeError, RecursionError):
        return ""
