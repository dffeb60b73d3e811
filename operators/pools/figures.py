"""What a pool's metrics say: machines by state, what they cost an hour, and why some are not launched."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from prometheus_client import Gauge

from crds.conditions import LAUNCHED, find
from crds.errors import NotFound
from crds.quantities import micro
from operators.pools.providers import ProviderError, Providers
from scheduler.objects.fleet_objects import is_going

Object = Mapping[str, Any]
MACHINES = Gauge("kekkai_pool_machines", "Machines of a pool by where they are in their life.", ["pool", "state"])
DEVICES = Gauge(
    "kekkai_pool_devices", "Devices on ready nodes of a pool, and of those the held ones.", ["pool", "state"]
)
COST = Gauge("kekkai_pool_cost_per_hour", "Price of the pool's machines for an hour.", ["pool", "currency"])
PRICE = Gauge("kekkai_pool_node_price_per_hour", "Price of one node for an hour.", ["pool", "currency", "source"])
HELD_BACK = Gauge("kekkai_pool_machines_not_launched", "Machines that are not launched, and why.", ["pool", "reason"])
_PRICE_FRESH = 600.0  # seconds


class PoolFigures:
    """Sets the gauges of pools. Prices that providers tell are asked for at most every ten minutes."""

    def __init__(self, providers: Providers, clock: Callable[[], float] = time.monotonic) -> None:
        self._providers = providers
        self._clock = clock
        self._told: dict[str, tuple[float, float | None]] = {}  # pool → (when, the provider's price)
        self._series: dict[str, set[tuple[Gauge, tuple[str, ...]]]] = {}

    async def show(self, pool: Object, status: Object, machines: Iterable[Object]) -> None:
        """Set all gauges of this pool; series that are no longer true are removed."""
        name, spec = pool["metadata"]["name"], pool["spec"]
        standing = [machine for machine in machines if not is_going(machine)]
        now: set[tuple[Gauge, tuple[str, ...]]] = set()

        def say(gauge: Gauge, value: float, *labels: str) -> None:
            gauge.labels(*labels).set(value)
            now.add((gauge, labels))

        for state, count in status["machines"].items():
            say(MACHINES, count, name, state)
        say(DEVICES, status["devices"], name, "ready")
        say(DEVICES, status["devicesUsed"], name, "used")
        price, source = await self.price(pool)
        currency = (spec.get("price") or {}).get("currency", "USD")
        say(PRICE, price, name, currency, source)
        say(COST, price * sum(1 for machine in standing if _is_paid_for(machine)), name, currency)
        for reason, count in Counter(filter(None, map(_why_not, standing))).items():
            say(HELD_BACK, count, name, reason)
        self._drop(self._series.get(name, set()) - now)
        self._series[name] = now

    async def price(self, pool: Object) -> tuple[float, str]:
        """(price of a node and hour, who says so: provider or spec)."""
        name = pool["metadata"]["name"]
        at, told = self._told.get(name, (self._clock() - _PRICE_FRESH, None))
        if self._clock() - at >= _PRICE_FRESH:
            try:
                told = await self._providers.of_pool(pool).price(pool)
            except (NotFound, ProviderError):
                told = None  # the spec's price holds meanwhile
            self._told[name] = (self._clock(), told)
        if told is not None:
            return told, "provider"
        return micro((pool["spec"].get("price") or {}).get("perNodeHour", "0")) / 1e6, "spec"

    def forget(self, name: str) -> None:
        """The pool is gone."""
        self._drop(self._series.pop(name, set()))
        self._told.pop(name, None)

    def _drop(self, series: Iterable[tuple[Gauge, tuple[str, ...]]]) -> None:
        for gauge, labels in series:
            gauge.remove(*labels)


def _is_paid_for(machine: Object) -> bool:
    return _why_not(machine) == ""


def _why_not(machine: Object) -> str:
    """The reason for which it is not launched; empty when it is."""
    found = find((machine.get("status") or {}).get("conditions"), LAUNCHED)
    if found is None:
        return "Pending"
    return "" if found["status"] == "True" else str(found["reason"])
