"""The parts of the data-flow decision: what a replica carries, forecasts, the cheapest size, counters."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.dataflow import FlowSpec, RateClass, SignalSpec
from scheduler.dataflow import forecast as forecasting
from scheduler.dataflow import knee as learning
from scheduler.dataflow.model import Forecast
from scheduler.dataflow.samples import Counter
from scheduler.dataflow.sizing import Demand, cheapest, size

CLASSES = st.lists(
    st.tuples(st.sampled_from([10.0, 30.0, 100.0, 250.0]), st.integers(0, 500)),
    max_size=4,
    unique_by=lambda one: one[0],
).map(lambda rows: tuple(RateClass(f"c{rate:g}", rate, cost) for rate, cost in rows))


def _enough(spec: FlowSpec, demand: Demand, count: int, link: RateClass | None, disk: RateClass | None) -> bool:
    """By the words of the documentation, without the code's arithmetic."""
    carried = math.inf if link is None else count * link.rate * spec.usable
    volumes = 1 if spec.shared_volume else count
    stored = math.inf if disk is None else volumes * disk.rate * spec.usable
    return count >= demand.replicas and carried * (1 + 1e-9) >= demand.ingress and stored * (1 + 1e-9) >= demand.storage


@settings(max_examples=60, deadline=None)
@given(
    links=CLASSES,
    disks=CLASSES,
    shared=st.booleans(),
    demand=st.builds(Demand, st.integers(0, 12), st.floats(0, 2000), st.floats(0, 2000)),
)
def test_the_size_is_the_cheapest_of_all(
    links: tuple[RateClass, ...], disks: tuple[RateClass, ...], shared: bool, demand: Demand
) -> None:
    spec = FlowSpec((), 1, 20, replica_cost=100, bandwidth=links, volume_io=disks, shared_volume=shared)
    found = cheapest(spec, demand, links or (None,), disks or (None,))
    costs = [
        count * (100 + (link.cost if link else 0)) + (1 if shared else count) * (disk.cost if disk else 0)
        for count in range(1, 21)
        for link in links or (None,)
        for disk in disks or (None,)
        if _enough(spec, demand, count, link, disk)
    ]
    assert found.short == (not costs)
    if costs:
        assert found.cost == min(costs)
    else:
        assert found.bandwidth == max(links, key=lambda one: one.rate, default=RateClass("", 1)).name


def test_short_of_demand_all_replicas_are_asked_for() -> None:
    spec = FlowSpec((), 1, 5, replica_cost=100)
    assert size(spec, Demand(9), None, None).replicas == 5


@pytest.mark.parametrize("truth", [4.0, 10.0, 45.0])
def test_what_a_replica_serves_flat_out_is_learned_while_work_waits(truth: float) -> None:
    knee, noise = learning.first(10.0), random.Random(1)
    for _ in range(60):
        knee = learning.measured(knee, truth * noise.uniform(0.9, 1.1), 10.0)
    assert knee.saturated == pytest.approx(truth, rel=0.1)


def test_nothing_that_is_measured_leads_out_of_the_bounds() -> None:
    knee = learning.first(10.0)
    for served in (1e12, 0.0, -5.0, 1e-9, 150.0, 99.0) * 50:
        knee = learning.measured(knee, served, 10.0)
        assert 10.0 / 0.8 / 8 <= knee.saturated <= 10.0 / 0.8 * 8


def test_the_share_finds_the_load_at_which_the_target_is_missed() -> None:
    """A queue whose latency is 1 / (100 - load) s: the target of 0.1 s is met up to a load of 90."""
    knee = learning.Knee(100.0, 0.3, measured=True)
    loads = []
    for _ in range(4000):
        load = learning.carried(knee)
        loads.append(load)
        knee = learning.judged(knee, load, 1 / (100 - min(load, 99.9)) <= 0.1)
    assert max(loads[-500:]) <= 91.0
    assert min(loads[-500:]) >= 80.0


def test_a_forecast_follows_a_trend_and_stays_positive() -> None:
    rising, falling = Forecast(), Forecast()
    for turn in range(80):
        rising = forecasting.observe(rising, 100.0 + 2 * turn, turn * 15.0, 60.0)
        falling = forecasting.observe(falling, max(0.0, 100.0 - 4 * turn), turn * 15.0, 60.0)
    assert 258 < forecasting.point(rising, 60.0) < 275
    assert forecasting.point(falling, 60.0) == pytest.approx(0.0, abs=1.0)


def test_the_margin_covers_the_quantile_of_what_comes() -> None:
    noise = random.Random(7)
    forecast, missed, total = Forecast(), 0, 0
    waiting: list[tuple[float, float]] = []
    for turn in range(1000):
        now, value = turn * 15.0, max(0.0, noise.gauss(100, 20))
        for said in [said for when, said in waiting if when == now]:
            total += 1
            missed += value > said
        waiting = [one for one in waiting if one[0] > now]
        forecast = forecasting.observe(forecast, value, now, 60.0)
        if turn > 300:
            waiting.append((now + 60.0, forecasting.upper(forecast, 60.0, 0.9)))
    assert 0.05 <= missed / total <= 0.17


def test_a_counter_that_starts_anew_gives_no_negative_rate() -> None:
    counter, rate = Counter().read(100.0, 10.0)
    assert rate is None
    counter, rate = counter.read(400.0, 20.0)
    assert rate == pytest.approx(30.0)
    counter, rate = counter.read(50.0, 30.0)
    assert rate == pytest.approx(5.0)
    again, rate = counter.read(80.0, 30.0)
    assert rate is None, "no time has passed"
    same, rate = again.read(math.nan, 40.0)
    assert rate is None
    assert same == again
    assert again.read(100.0, 5.0)[1] is None, "the clock went back"


def test_signals_are_declared_once() -> None:
    assert FlowSpec((SignalSpec("a", "requests", 1.0),)).signals[0].max_age == 60.0
