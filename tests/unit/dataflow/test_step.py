"""The data-flow decision in virtual time: it follows demand up and down, holds when it is blind, and does not flap."""

from __future__ import annotations

import itertools
import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crds.errors import InvalidInput
from scheduler.dataflow import FlowSpec, RateClass, Sample, SignalSpec, start
from tests.unit.dataflow.flows import Line, reversals

MB = 1e6


def spec(**changes: object) -> FlowSpec:
    given = {
        "signals": (SignalSpec("load", "requests", capacity=10.0),),
        "min_replicas": 1,
        "max_replicas": 50,
        "startup": 60.0,
        "window": 180.0,
        "replica_cost": 1_000_000,
    }
    return FlowSpec(**{**given, **changes})  # type: ignore[arg-type]


def flow_spec() -> FlowSpec:
    """Ingress that needs bandwidth, and writes to volumes of each replica."""
    return spec(
        signals=(
            SignalSpec("ingress", "ingressBytes", capacity=100 * MB),
            SignalSpec("writes", "storageWriteBytes"),
        ),
        bandwidth=(RateClass("b1", 60 * MB, 0), RateClass("b2", 125 * MB, 50_000), RateClass("b4", 400 * MB, 400_000)),
        volume_io=(RateClass("slow", 40 * MB, 0), RateClass("fast", 200 * MB, 200_000)),
        volume_io_interval=600.0,
        bandwidth_interval=60.0,
    )


@pytest.mark.parametrize("seed", range(2))
def test_a_step_of_demand_is_followed_up_and_down(seed: int) -> None:
    noise = random.Random(seed)
    line = Line(spec(), lambda t: {"load": (40 if t < 1200 or t > 3600 else 200) * noise.uniform(0.97, 1.03)})
    line.run(1185)
    low = line.replicas
    line.run(315)
    assert line.ready * 10 >= 200
    line.run(2100)
    high = line.replicas
    line.run(2400)
    assert 4 <= low <= 7
    assert 20 <= high <= 28
    assert 4 <= line.replicas <= 7


def test_a_ramp_is_met_before_it_has_come() -> None:
    line = Line(spec(), lambda t: {"load": 50 + t / 12})
    short = 0
    for _ in range(240):
        line.run(15)
        short += line.ready * 10 < line.demand(line.now - 1_000_000.0)["load"]
    assert short <= 8, "spans of 15 s without enough replicas, of 240"


def test_a_sinusoid_turns_the_count_at_its_turns_only() -> None:
    line = Line(spec(), lambda t: {"load": 150 + 100 * math.sin(t / 3600 * 2 * math.pi)})
    line.run(3 * 3600)
    assert max(line.counts) >= 25
    assert min(line.counts[240:]) <= 8
    assert reversals(line.counts) <= 8, "two turns an hour, and the beginning"


@settings(max_examples=5, deadline=None)
@given(
    level=st.floats(5, 400),
    width=st.floats(0, 0.05),
    quantile=st.sampled_from([0.5, 0.8, 0.9, 0.95]),
    seed=st.integers(0, 2**32),
)
def test_steady_demand_with_noise_never_makes_it_flap(level: float, width: float, quantile: float, seed: int) -> None:
    noise = random.Random(seed)
    line = Line(spec(quantile=quantile, band=0.2), lambda _: {"load": level * noise.uniform(1 - width, 1 + width)})
    line.run(1800)
    line.counts.clear()
    line.run(3600)
    assert reversals(line.counts) == 0
    assert line.replicas * 10 >= min(level * (1 - width), 500)


@pytest.mark.parametrize("spread", [0.1, 0.2])
def test_demand_that_is_noisy_turns_the_count_hardly_ever(spread: float) -> None:
    noise = random.Random(3)
    line = Line(
        spec(max_replicas=200, quantile=0.9, window=300.0), lambda _: {"load": max(0.0, 300 * noise.gauss(1, spread))}
    )
    line.run(1800)
    line.counts.clear()
    line.run(7200)
    assert reversals(line.counts) <= 2
    assert max(line.counts) - min(line.counts) <= 8


@settings(max_examples=3, deadline=None)
@given(level=st.floats(20, 900), seed=st.integers(0, 2**32))
def test_classes_come_to_rest_under_noise(level: float, seed: int) -> None:
    noise = random.Random(seed)

    def demand(_: float) -> dict[str, float]:
        return {name: level * MB * noise.uniform(0.96, 1.04) for name in ("ingress", "writes")}

    line = Line(flow_spec(), demand, bandwidth="b1", volume_io="slow")
    line.run(1800)
    line.links.clear()
    line.disks.clear()
    line.run(3600)
    assert len(set(line.links)) <= 2
    assert reversals(line.links) == reversals(line.disks) == 0


def test_bandwidth_and_volume_classes_follow_the_flow_up_and_down() -> None:
    def demand(t: float) -> dict[str, float]:
        busy = 1800 <= t < 5400
        return {"ingress": (3000 if busy else 30) * MB, "writes": (3000 if busy else 20) * MB}

    line = Line(flow_spec(), demand, bandwidth="b1", volume_io="slow")
    line.run(1785)
    assert (line.links[-1], line.disks[-1]) == ("b1", "slow")
    line.run(1200)
    assert line.links[-1] == "b2"
    assert line.disks[-1] == "fast"
    line.run(6000)
    assert (line.links[-1], line.disks[-1]) == ("b1", "slow")


def test_a_volume_class_changes_no_more_often_than_its_backend_allows() -> None:
    def demand(t: float) -> dict[str, float]:
        return {"ingress": 50 * MB, "writes": (900 if int(t / 1000) % 2 else 20) * MB}

    line = Line(flow_spec(), demand, bandwidth="b1", volume_io="slow")
    line.run(2 * 3600)
    changes = [turn for turn, (a, b) in enumerate(zip(line.disks, line.disks[1:], strict=False)) if a != b]
    assert changes, "it does change"
    assert all(b - a >= 600 / 15 for a, b in itertools.pairwise(changes))


def test_it_holds_while_prometheus_is_silent_and_shrinks_only_when_it_speaks_again() -> None:
    line = Line(spec(), lambda _: {"load": 200.0})
    line.run(1800)
    high = line.replicas
    for _ in range(200):
        line.now += 15
        target = line.turn({"load": None})
        assert target.replicas == high
        assert target.states == {"load": "Missing"}
        assert "load is missing" in target.held
    line.demand = lambda _: {"load": 20.0}
    line.run(120)
    assert line.replicas == high, "what has not been seen for the whole window is no reason to shrink"
    line.run(1800)
    assert line.replicas <= 3


@pytest.mark.parametrize(
    ("sample", "state"),
    [
        (None, "Missing"),
        (Sample(math.nan, 0), "Invalid"),
        (Sample(math.inf, 0), "Invalid"),
        (Sample(-1.0, 0), "Invalid"),
        (Sample(5.0, -61), "Stale"),
        (Sample(5.0, 31), "Invalid"),
        (Sample(5.0, math.nan), "Invalid"),
        (Sample(5.0, 20), "Fresh"),
    ],
)
def test_a_sample_that_cannot_be_trusted_is_named_and_not_used(sample: Sample | None, state: str) -> None:
    line = Line(spec(), lambda _: {"load": 200.0})
    line.run(1800)
    before = line.replicas
    line.now += 15
    placed = Sample(sample.value, line.now + sample.at) if sample is not None else None
    target = line.turn({"load": placed})
    assert target.states == {"load": state}
    assert target.replicas == before


def test_one_silent_signal_stops_shrinking_but_not_growing() -> None:
    two = spec(signals=(SignalSpec("load", "requests", capacity=10.0), SignalSpec("tokens", "tokens", capacity=100.0)))
    line = Line(two, lambda _: {"load": 50.0, "tokens": 100.0})
    line.run(1200)
    line.demand = lambda _: {"load": 300.0}
    line.run(120)
    assert line.replicas >= 30
    line.demand = lambda _: {"load": 10.0}
    line.run(1800)
    assert line.replicas >= 30


def test_a_backlog_is_worked_off() -> None:
    queued = spec(signals=(SignalSpec("load", "requests", capacity=10.0), SignalSpec("q", "queueDepth", of="load")))
    line = Line(queued, lambda _: {"load": 50.0, "q": 6000.0})
    line.run(15)
    assert line.replicas >= (50 + 6000 / 60) / 10


def test_lag_counts_as_work_of_its_demand() -> None:
    lagging = spec(
        signals=(SignalSpec("load", "ingressBytes", capacity=10.0), SignalSpec("lag", "lagSeconds", of="load"))
    )
    line = Line(lagging, lambda _: {"load": 50.0, "lag": 120.0})
    line.run(15)
    assert line.replicas >= (50 + 120 * 50 / 60) / 10


@pytest.mark.parametrize("jump", [-7200.0, 86_400.0])
def test_a_clock_that_jumps_changes_nothing_at_once(jump: float) -> None:
    line = Line(spec(), lambda _: {"load": 200.0})
    line.run(3600)
    before = line.replicas
    line.now += jump
    assert line.turn({"load": Sample(200.0, line.now)}).replicas >= before - 1
    for _ in range(120):
        line.now += 15
        line.turn({"load": Sample(200.0, line.now)})
    assert 20 <= line.replicas <= 28
    assert reversals(line.counts[-100:]) == 0


def test_scale_to_zero_and_back() -> None:
    line = Line(spec(min_replicas=0), lambda t: {"load": 0.0 if t < 1800 else 25.0})
    line.run(1785)
    assert line.replicas == 0
    line.run(45)
    assert line.replicas >= 2


def test_demand_beyond_the_limit_says_so() -> None:
    line = Line(spec(max_replicas=5), lambda _: {"load": 900.0})
    line.run(30)
    assert line.replicas == 5
    assert line.targets[-1].short


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.one_of(st.none(), st.floats(allow_nan=True, allow_infinity=True)),
            st.floats(allow_nan=True, allow_infinity=True, width=32),
            st.floats(-1e7, 1e7),
        ),
        max_size=30,
    )
)
def test_no_sample_and_no_clock_breaks_it(readings: list[tuple[float | None, float, float]]) -> None:
    signals = (SignalSpec("load", "requests", capacity=10.0), SignalSpec("q", "queueDepth", of="load"))
    line = Line(spec(signals=(*signals, SignalSpec("p95", "latencySeconds", target=1.0))), lambda _: {})
    for value, other, jump in readings:
        line.now += jump
        sample = None if value is None else Sample(value, line.now)
        target = line.turn({"load": sample, "q": Sample(other, line.now), "p95": Sample(other, line.now)})
        assert 1 <= target.replicas <= 50
        assert all(math.isfinite(one) and one > 0 for one in target.capacities.values())


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"signals": (SignalSpec("a", "requests"),)}, "signals[a].capacity"),
        ({"signals": (SignalSpec("a", "latencySeconds"),)}, "signals[a].target"),
        ({"signals": (SignalSpec("a", "queueDepth"),)}, "signals[a].of"),
        ({"signals": (SignalSpec("a", "lagSeconds", of="b"),)}, "signals[a].of"),
        ({"signals": (SignalSpec("a", "tokens", capacity=math.nan),)}, "signals[a].capacity"),
        ({"signals": (SignalSpec("a", "tokens", 1.0), SignalSpec("a", "tokens", 1.0))}, "signals"),
        ({"min_replicas": 9, "max_replicas": 3}, "maxReplicas"),
        ({"quantile": 1.0}, "quantile"),
        ({"startup": math.inf}, "startup"),
        ({"bandwidth": (RateClass("x", 0.0),)}, "bandwidth"),
        ({"volume_io": (RateClass("x", 1.0), RateClass("x", 2.0))}, "volumeIO"),
    ],
)
def test_a_wrong_declaration_names_the_field(changes: dict[str, object], where: str) -> None:
    with pytest.raises(InvalidInput) as error:
        spec(**changes)
    assert error.value.problem.where == f"dataFlow.{where}"
    assert error.value.problem.fix


def test_a_restart_goes_on_with_what_was_learned() -> None:
    memory = start(spec(), {"load": 25.0})
    assert memory.knees["load"].saturated * memory.knees["load"].share == pytest.approx(25.0)
    assert start(spec(), {"load": 1e9}).knees["load"].saturated <= 10.0 * 8 / 0.8
