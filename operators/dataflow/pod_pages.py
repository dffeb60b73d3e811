"""Reads a metric from the page of each ready pod of a service, and adds it up.

The address is the pod's own as its kubelet reports it, never one that a user writes: the
operator must not be made to call what only it can reach.
"""

from __future__ import annotations

import asyncio
import ipaddress
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from crds.dataflow import PodsRead
from scheduler.dataflow import Sample
from scheduler.dataflow.samples import Counter

Object = Mapping[str, Any]
_TIMEOUT = httpx.Timeout(2.0, connect=1.0)
_MAX_PAGE = 1024 * 1024
_AT_ONCE = 32
_ENOUGH = 0.5  # of the pods; the rest are taken to be like those


def pod_address(pod: Object) -> str | None:
    """The pod's own address; None for the host's network and for addresses that are not a pod's."""
    status = pod.get("status") or {}
    address = str(status.get("podIP") or "")
    if not address or pod["spec"].get("hostNetwork") or address == status.get("hostIP"):
        return None
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return None
    if parsed.is_loopback or parsed.is_link_local or parsed.is_multicast or parsed.is_unspecified:
        return None
    return f"[{parsed}]" if parsed.version == 6 else str(parsed)


class PodPages:
    """Pages of pods, read a few at once. Counters are remembered by pod, so that a new pod is no fall of the sum."""

    def __init__(self, address: Callable[[Object], str | None] = pod_address) -> None:
        self._address = address
        self._http = httpx.AsyncClient(timeout=_TIMEOUT, trust_env=False, follow_redirects=False)
        self._room = asyncio.Semaphore(_AT_ONCE)

    async def close(self) -> None:
        await self._http.aclose()

    async def read(
        self, read: PodsRead, pods: Sequence[Object], counters: dict[str, Counter], now: float
    ) -> Sample | None:
        """The sum over the pods; None when fewer than half can be read. `counters`: pod uid → its counter, updated."""
        found = await asyncio.gather(*(self._value(read, pod) for pod in pods))
        values: list[float] = []
        alive: dict[str, Counter] = {}
        for pod, value in zip(pods, found, strict=True):
            if value is None:
                continue
            if read.read == "gauge":
                values.append(value)
                continue
            uid = str(pod["metadata"]["uid"])
            alive[uid], rate = counters.get(uid, Counter()).read(value, now)
            if rate is not None:
                values.append(rate)
        counters.clear()
        counters.update(alive)
        if not values or len(values) < _ENOUGH * len(pods):
            return None
        return Sample(sum(values) * len(pods) / len(values), now)

    async def _value(self, read: PodsRead, pod: Object) -> float | None:
        address = self._address(pod)
        if address is None:
            return None
        async with self._room:
            try:
                page = await asyncio.wait_for(self._page(f"http://{address}:{read.port}{read.path}"), timeout=4.0)
            except (httpx.HTTPError, TimeoutError, OSError):
                return None
        return value_of(page, read) if page is not None else None

    async def _page(self, url: str) -> str | None:
        async with self._http.stream("GET", url, headers={"Accept": "text/plain"}) as reply:
            if reply.status_code != 200:
                return None
            body = b""
            async for chunk in reply.aiter_bytes():
                body += chunk
                if len(body) > _MAX_PAGE:
                    return None
            return body.decode(errors="replace")


def value_of(page: str, read: PodsRead) -> float | None:
    """The sum of the metric's series with these labels; None when there is none or the page is no metrics page."""
    found: list[float] = []
    try:
        for family in text_string_to_metric_families(page):
            for one in family.samples:
                if one.name == read.metric and all(one.labels.get(k) == v for k, v in read.match_labels.items()):
                    found.append(float(one.value))
    except (ValueError, KeyError, IndexError, TypeError):
        return None
    return sum(found) if found and all(math.isfinite(value) for value in found) else None
