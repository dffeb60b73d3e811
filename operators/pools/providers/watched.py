"""Any provider, with what a caller may rely on: each call ends, fails only as ProviderError, and is counted."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Iterable, Mapping
from typing import Any, TypeVar

from prometheus_client import Counter, Histogram

from operators.pools.providers.protocol import Instance, Provider, ProviderError, ProviderOrder

T = TypeVar("T")
CALLS = Counter("kekkai_provider_calls_total", "Calls to a provider by how they ended.", ["provider", "call", "result"])
SECONDS = Histogram(
    "kekkai_provider_call_seconds",
    "Time that a call to a provider took.",
    ["provider", "call"],
    buckets=(0.01, 0.05, 0.2, 1, 5, 20, 60, 120),
)
LIMIT = 120.0  # seconds, above the limits that providers set themselves


class Watched:
    """Wraps one provider."""

    def __init__(self, provider: Provider, limit: float = LIMIT) -> None:
        self.inner = provider
        self.scheme = provider.scheme
        self._limit = limit

    async def create(self, order: ProviderOrder) -> Instance:
        return await self._call("create", self.inner.create(order))

    async def get(self, pool: str, client_token: str) -> Instance | None:
        return await self._call("get", self.inner.get(pool, client_token))

    async def delete(self, pool: str, client_token: str) -> bool:
        return await self._call("delete", self.inner.delete(pool, client_token))

    async def list(self) -> Iterable[tuple[str, Instance]]:
        return await self._call("list", self.inner.list())

    async def price(self, pool: Mapping[str, Any]) -> float | None:
        return await self._call("price", self.inner.price(pool))

    async def _call(self, name: str, work: Awaitable[T]) -> T:
        began = time.monotonic()
        result = "ok"
        try:
            return await asyncio.wait_for(work, self._limit)
        except ProviderError as error:
            result = error.problem.reason
            raise
        except TimeoutError as error:
            result = "Timeout"
            raise ProviderError(f"{name}: no answer within {self._limit:.0f} s", where=self.scheme) from error
        except Exception as error:
            # A provider's own fault must not look like a fault of the Machine.
            result = type(error).__name__
            raise ProviderError(f"{name} failed: {error!r}"[:512], where=self.scheme) from error
        finally:
            CALLS.labels(self.scheme, name, result).inc()
            SECONDS.labels(self.scheme, name).observe(time.monotonic() - began)
