"""Growth over all that waits, forecasts, cooldowns, and no flapping, through plan()."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler import Fleet, Memory, Plan, plan
from scheduler.autoscale.forecast import Arrivals, Outlook, machines_short, observed
from scheduler.objects.fleet_objects import pool_state
from tests.unit.scheduler.fleets import GPU, apply, fleet, job, pool

SMALL = {"cpu": 8_000, "memory": 2**36, "pods": 110, GPU: 1}


def asked(decided: Plan) -> Counter[str]:
    return Counter(request.pool for request in decided.machine_requests)


def two_sizes() -> list:
    return [
        pool("large", price_micro=20_000_000),
        pool("small", price_micro=3_000_000, per_node=1, allocatable=SMALL, maximum=100),
    ]


def waiting(made: Fleet, count: int, devices: int = 1) -> None:
    for index in range(count):
        made.upsert_workload(job(f"job-{index}", devices=devices))


def test_what_waits_is_bought_for_together() -> None:
    made = fleet(pools=two_sizes())
    waiting(made, 8)
    decided, _ = plan(made, Memory(), 1000.0)
    assert asked(decided) == {"large": 1}
    made = fleet(pools=two_sizes())
    waiting(made, 3)
    decided, _ = plan(made, Memory(), 1000.0)
    assert asked(decided) == {"small": 3}


def test_what_is_bought_is_used_and_nothing_is_bought_twice() -> None:
    made = fleet(pools=two_sizes())
    waiting(made, 11)
    decided, memory = plan(made, Memory(), 1000.0)
    assert asked(decided) == {"large": 1, "small": 3}
    apply(made, decided, boot=False)
    decided, memory = plan(made, memory, 1001.0)
    assert not decided.machine_requests  # what is coming counts
    made = fleet(pools=two_sizes())
    waiting(made, 11)
    decided, memory = plan(made, Memory(), 1000.0)
    apply(made, decided)
    decided, _ = plan(made, memory, 1060.0)
    assert len(decided.admissions) == 11
    assert not decided.idle


def test_nothing_goes_within_the_cooldown_after_growth() -> None:
    made = fleet(pools=[pool(scale_down_delay=60.0, cooldown=900.0)], nodes=1)
    made.upsert_workload(job("first", count=2))
    decided, memory = plan(made, Memory(), 1000.0)
    assert len(decided.machine_requests) == 1
    apply(made, decided)
    made.remove_workload("train/first")
    _, memory = plan(made, memory, 1010.0)
    decided, memory = plan(made, memory, 1500.0)
    assert not decided.machine_removals
    assert decided.next_wake == 1900.0
    decided, _ = plan(made, memory, 1900.0)
    assert len(decided.machine_removals) == 2


def test_the_forecast_keeps_devices_free_and_lets_them_go_when_nobody_comes() -> None:
    shape = pool(forecast_quantile=0.9, forecast_half_life=600.0, provisioning=100.0, scale_down_delay=10.0)
    made = fleet(pools=[shape], nodes=2)
    memory, now = Memory(), 1000.0
    for index in range(12):
        made.upsert_workload(job(f"job-{index}", devices=4))
        decided, memory = plan(made, memory, now)
        apply(made, decided)
        made.remove_workload(f"train/job-{index}")
        now += 100.0
    assert memory.arrivals["h200"].need(Outlook(0.9, 100.0, 600.0)) == 4
    kept = 0
    while made.machines and now < 30_000.0:
        decided, memory = plan(made, memory, now)
        apply(made, decided)
        kept += len(made.machines) == 1
        now = decided.next_wake or now + 100.0
    assert kept > 3  # one machine stays for what may come
    assert not made.machines  # and goes in the end


def test_forecast_quantiles() -> None:
    outlook = Outlook(0.9, 60.0, 3600.0)
    known = Arrivals(0.0)
    assert known.need(outlook) == 0
    for minute in range(1, 101):
        known = known.add(20 if minute % 20 == 0 else 3).at(60.0 * minute, outlook)
    assert known.need(outlook) == 3
    assert known.need(Outlook(0.99, 60.0, 3600.0)) == 20
    assert known.need(Outlook()) == 0
    assert machines_short(20, 3, 8) == 3
    assert machines_short(3, 20, 8) == 0
    assert observed({"gone": known}, {"here": outlook}, {"here": 5}, 10.0) == {"here": Arrivals(10.0, 5)}
    late = known.at(60.0 * 100 + 24 * 3600, outlook)
    assert late.need(outlook) == 0


@settings(max_examples=8, deadline=None)
@given(
    st.lists(st.integers(0, 3), min_size=8, max_size=16),
    st.integers(1, 3),
    st.sampled_from((0.0, 0.9)),
)
def test_noise_that_peaks_within_the_delay_moves_no_machine(noise: list[int], base: int, quantile: float) -> None:
    """Demand of `base` to `base + 3` nodes, anything in between each minute, the peak once in five."""
    shape = pool(scale_down_delay=420.0, forecast_quantile=quantile, provisioning=60.0)
    made = fleet(pools=[shape])
    memory, now, came, gone, running = Memory(), 0.0, 0, 0, 0
    for step, extra in enumerate(noise):
        for index in range(running):
            made.remove_workload(f"train/job-{step - 1}-{index}")
        running = base + (3 if step % 5 == 0 else extra)
        for index in range(running):
            made.upsert_workload(job(f"job-{step}-{index}", devices=8))
        for second in (0.0, 30.0):
            decided, memory = plan(made, memory, now + second)
            apply(made, decided)
            if step:
                came += len(decided.machine_requests)
                gone += len(decided.machine_removals)
        now += 60.0
    # After the first peak only what the forecast keeps free for two minutes' starts comes, once, and may go again.
    assert came <= (2 * (base + 3) if quantile else 0)
    assert gone <= came
    assert len(made.machines) >= base + 3


def pool_object(**scaling: object) -> dict[str, object]:
    return {
        "metadata": {"name": "h200"},
        "spec": {
            "site": "tokyo",
            "accelerator": {"type": "H200", "perNode": 8},
            "scaling": {"max": 10, **scaling},
            "provider": {"kwok": {"bootSeconds": 90}},
            "price": {"perNodeHour": "12.5"},
            "power": {"maxWatts": 10_000},
        },
    }


def test_a_pools_budgets_and_forecast_as_its_object_says() -> None:
    site = {"spec": {"jurisdiction": "JP"}}
    plain = pool_state(pool_object(), site)
    assert (plain.maximum, plain.forecast_quantile, plain.cooldown, plain.provisioning) == (10, 0.0, 0.0, 90.0)
    assert pool_state(pool_object(budget={"costPerHour": "49.9"}), site).maximum == 3
    assert pool_state(pool_object(budget={"watts": 25_000, "costPerHour": "1000"}), site).maximum == 2
    made = pool_state(pool_object(forecast={"quantilePercent": 95}, cooldownSeconds=120), site)
    assert (made.forecast_quantile, made.forecast_half_life, made.cooldown) == (0.95, 3600.0, 120.0)
