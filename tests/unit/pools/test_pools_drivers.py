"""Exactly one driver a pool: what an external autoscaler sizes is used by the plan, never bought for or taken from."""

from __future__ import annotations

import pytest

from scheduler import Memory, plan
from scheduler.objects.fleet_objects import pool_state
from tests.unit.pools.pool_objects import pool
from tests.unit.scheduler.fleets import add_node, fleet, job

SITE = {"spec": {"jurisdiction": "JP"}}
A_YEAR = 365 * 86400.0


@pytest.mark.parametrize(("driver", "bought"), [("Kekkai", True), ("External", False)])
def test_the_plan_buys_only_for_its_own_pools(driver: str, bought: bool) -> None:
    scaling = {"min": 2, "max": 6, "headroom": 1, "driver": driver}
    made = fleet(pools=[pool_state(pool(scaling=scaling), SITE)])
    made.upsert_workload(job("a", 1))
    decided, _ = plan(made, Memory(), 0.0)
    assert bool(decided.machine_requests) is bought


@pytest.mark.parametrize(("driver", "taken"), [("Kekkai", True), ("External", False)])
def test_the_plan_takes_only_from_its_own_pools_and_uses_the_others(driver: str, taken: bool) -> None:
    scaling = {"max": 6, "scaleDownDelaySeconds": 5, "driver": driver}
    state = pool_state(pool(scaling=scaling), SITE)
    made = fleet(pools=[state])
    for index in range(2):
        add_node(made, state, index)
    made.upsert_workload(job("a", 1))
    decided, memory = plan(made, Memory(), 0.0)
    assert len(decided.admissions) == 1
    decided, _ = plan(made, memory, A_YEAR)
    assert bool(decided.machine_removals) is taken
