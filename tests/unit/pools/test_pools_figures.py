"""Gauges of a pool, and the dashboard that shows them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from prometheus_client import REGISTRY

import operators.pools.machines
import operators.pools.repair  # noqa: F401 - their metrics are in the registry
from operators.pools.figures import PoolFigures
from operators.pools.providers import ProviderError, Providers
from operators.pools.providers.watched import Watched
from tests.unit.pools.pool_objects import MemoryProvider, machine, pool

STATUS = {"machines": {"wanted": 3, "coming": 1, "ready": 2, "idle": 1, "going": 0}, "devices": 16, "devicesUsed": 8}


def value(name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(name, labels)


def waiting(reason: str) -> dict[str, Any]:
    one = machine()
    one["status"]["conditions"] = [{"type": "Launched", "status": "False", "reason": reason}]
    return one


async def test_states_cost_and_reasons_follow_the_pool() -> None:
    figures = PoolFigures(Providers([MemoryProvider()]))
    await figures.show(pool(), STATUS, [machine("Launched"), machine("Launched"), waiting("OutOfCapacity")])
    assert value("kekkai_pool_machines", pool="h200", state="idle") == 1
    assert value("kekkai_pool_cost_per_hour", pool="h200", currency="USD") == 2 * 42.4
    assert value("kekkai_pool_machines_not_launched", pool="h200", reason="OutOfCapacity") == 1
    await figures.show(pool(), STATUS, [machine("Launched", going=True)])
    assert value("kekkai_pool_cost_per_hour", pool="h200", currency="USD") == 0
    assert value("kekkai_pool_machines_not_launched", pool="h200", reason="OutOfCapacity") is None
    figures.forget("h200")
    assert value("kekkai_pool_machines", pool="h200", state="idle") is None


async def test_the_providers_price_goes_before_the_specs_and_is_asked_for_seldom() -> None:
    now, asked = [0.0], []

    class Priced(MemoryProvider):
        async def price(self, pool: Any) -> float | None:
            asked.append(now[0])
            if now[0] > 1000:
                raise ProviderError("503")
            return 31.5

    figures = PoolFigures(Providers([Watched(Priced())]), lambda: now[0])
    assert await figures.price(pool()) == (31.5, "provider")
    now[0] = 599.0
    assert await figures.price(pool()) == (31.5, "provider")
    now[0] = 1300.0
    assert await figures.price(pool()) == (42.4, "spec")
    assert asked == [0.0, 1300.0]


def test_every_metric_of_the_dashboard_exists() -> None:
    board = json.loads((Path(__file__).resolve().parents[3] / "docs" / "dashboards" / "pools.json").read_text())
    used = {
        name
        for panel in board["panels"]
        for target in panel["targets"]
        for name in re.findall(r"\bkekkai_[a-z_]+", target["expr"])
    }
    known = {f"{family.name}{end}" for family in REGISTRY.collect() for end in ("", "_total", "_bucket", "_count")}
    assert used
    assert used <= known
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
