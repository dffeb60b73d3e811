"""Who holds what, where a provider cannot remember a token itself: one ConfigMap a pool, one entry a token.

A claim is written before the provider is asked, so that a restart finds it; it is taken
off after the provider has let go. The resourceVersion makes each change atomic, also
against another replica that does not know yet that it has lost its Lease.
"""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from crds.labels import MANAGED_BY, MANAGED_BY_VALUE, MANAGER_POOLS, POOL
from operators.pools.providers.protocol import ProviderError
from operators.runtime import RESOURCES, ApiFault, Cluster

NAMESPACE = "kekkai-machines"
Claim = dict[str, Any]
Ledger = dict[str, Claim]  # client token → what it holds
_CONFIG_MAP = RESOURCES["ConfigMap"]
_TRIES = 8


class Claims:
    """The ledgers of one provider's pools."""

    def __init__(self, cluster: Cluster, scheme: str) -> None:
        self._cluster = cluster
        self._scheme = scheme.lower()
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def read(self, pool: str) -> Ledger:
        """What the pool's tokens hold now. Raises ProviderError when the API server does not say."""
        return _ledger(await self._get(pool))

    async def pools(self) -> list[str]:
        """Pools that have a ledger, also those that are gone."""
        try:
            found = await self._cluster.list(_CONFIG_MAP, NAMESPACE, f"{MANAGED_BY}={MANAGED_BY_VALUE},{POOL}")
        except ApiFault as fault:
            raise ProviderError(f"claims cannot be listed: {fault}") from fault
        prefix = f"{self._scheme}."
        return sorted(one["metadata"]["labels"][POOL] for one in found if one["metadata"]["name"].startswith(prefix))

    async def change(self, pool: str, edit: Callable[[Ledger], Ledger]) -> Ledger:
        """Write what `edit` makes of the ledger; it is called again when another writer came first."""
        async with self._locks[pool]:
            for _ in range(_TRIES):
                found = await self._get(pool)
                old = _ledger(found)
                new = edit(dict(old))
                if new == old:
                    return old
                try:
                    await self._write(pool, found, old, new)
                except ApiFault as fault:
                    if fault.conflict:
                        continue
                    raise ProviderError(f"a claim cannot be written: {fault}") from fault
                return new
        raise ProviderError(f"the claims of pool {pool} change too fast")

    async def _get(self, pool: str) -> dict[str, Any] | None:
        try:
            return await self._cluster.get(_CONFIG_MAP, self._name(pool), NAMESPACE)
        except ApiFault as fault:
            raise ProviderError(f"claims cannot be read: {fault}") from fault

    async def _write(self, pool: str, found: dict[str, Any] | None, old: Ledger, new: Ledger) -> None:
        if found is None:
            labels = {MANAGED_BY: MANAGED_BY_VALUE, POOL: pool}
            meta = {"name": self._name(pool), "namespace": NAMESPACE, "labels": labels}
            data = {token: _text(claim) for token, claim in new.items()}
            await self._cluster.create(
                {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data}, MANAGER_POOLS
            )
            return
        data_change: dict[str, str | None] = {
            token: _text(claim) for token, claim in new.items() if old.get(token) != claim
        }
        data_change |= {token: None for token in old if token not in new}
        patch = {"metadata": {"resourceVersion": found["metadata"]["resourceVersion"]}, "data": data_change}
        await self._cluster.merge_patch(_CONFIG_MAP, self._name(pool), patch, MANAGER_POOLS, NAMESPACE)

    def _name(self, pool: str) -> str:
        return f"{self._scheme}.{pool}"


def _ledger(found: dict[str, Any] | None) -> Ledger:
    data = (found or {}).get("data") or {}
    try:
        return {token: json.loads(text) for token, text in sorted(data.items())}
    except ValueError as error:
        name = (found or {})["metadata"]["name"]
        raise ProviderError(
            "a claim is not JSON", where=f"ConfigMap {NAMESPACE}/{name}", fix="mend or remove the entry"
        ) from error


def _text(claim: Claim) -> str:
    return json.dumps(claim, sort_keys=True, separators=(",", ":"))
