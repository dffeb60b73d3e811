"""Credentials of providers, read from Secrets of the one namespace that the operator may read."""

from __future__ import annotations

import base64
import binascii
import time

from operators.pools.providers.claims import NAMESPACE
from operators.pools.providers.protocol import OrderRefused, ProviderError
from operators.runtime import ApiFault, Cluster, ResourceType

_SECRET = ResourceType("", "v1", "secrets", "Secret", True)
_FRESH = 60.0  # seconds: a rotated credential is used this soon


class Credentials:
    """Reads Secrets and keeps each for a minute. What is in them is never logged."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._kept: dict[str, tuple[float, dict[str, bytes]]] = {}

    async def read(self, name: str, *required: str) -> dict[str, bytes]:
        """The data of Secret `name`. Raises OrderRefused when it, or a key of it, is missing."""
        at, data = self._kept.get(name, (-_FRESH, {}))
        if time.monotonic() - at >= _FRESH:
            data = await self._fetch(name)
        missing = [key for key in required if key not in data]
        if missing:
            self._kept.pop(name, None)
            raise OrderRefused(
                f"it has no {', '.join(missing)}", where=f"Secret {NAMESPACE}/{name}", fix="add what is missing"
            )
        self._kept[name] = (time.monotonic(), data)
        return data

    async def _fetch(self, name: str) -> dict[str, bytes]:
        where = f"Secret {NAMESPACE}/{name}"
        try:
            found = await self._cluster.get(_SECRET, name, NAMESPACE)
        except ApiFault as fault:
            raise ProviderError(f"it cannot be read: {fault.problem.reason}", where=where) from fault
        if found is None:
            raise OrderRefused("it does not exist", where=where, fix="make it")
        try:
            return {key: base64.b64decode(text, validate=True) for key, text in (found.get("data") or {}).items()}
        except (binascii.Error, ValueError):
            raise ProviderError("its data are not base64", where=where) from None
