"""The HPA that the benchmark compares with does what its documentation says."""

from __future__ import annotations

import math

import pytest

from bench.service_traces import Hpa, Request, Scrape, Service, replay

SERVICE = Service(most=100)


def scrape(now: float, replicas: int, total: float, ready: int | None = None) -> Scrape:
    ready = replicas if ready is None else ready
    return Scrape(now, replicas, ready, round(total), 0, 0, total, math.nan)


def hpa() -> Hpa:
    return Hpa("requests", 10.0, SERVICE)


@pytest.mark.parametrize(
    ("replicas", "total", "wanted"),
    [
        (3, 60.0, 6),  # twice the target: twice the replicas
        (6, 67.0, 7),  # rounded up
        (10, 109.0, 10),  # within the tolerance of 10 %
        (10, 91.0, 10),
        (3, 500.0, 7),  # at most 4 pods or 100 % in one sync
        (20, 900.0, 40),
    ],
)
def test_the_formula_and_the_limits_of_growth(replicas: int, total: float, wanted: int) -> None:
    assert hpa().replicas(scrape(15.0, replicas, total)) == wanted


def test_it_shrinks_to_the_highest_that_was_wanted_in_five_minutes() -> None:
    one = hpa()
    assert one.replicas(scrape(0.0, 8, 80.0)) == 8
    for turn in range(1, 21):
        assert one.replicas(scrape(turn * 15.0, 8, 20.0)) == 8
    assert one.replicas(scrape(316.0, 8, 20.0)) == 2


def test_pods_that_are_not_ready_count_as_idle_when_it_grows() -> None:
    assert hpa().replicas(scrape(15.0, 6, 60.0, ready=3)) == 6, "three are on their way; that is enough"
    assert hpa().replicas(scrape(15.0, 6, 90.0, ready=3)) == 9


def test_a_replay_pays_for_replicas_from_the_asking_and_judges_first_tokens() -> None:
    requests = [Request(float(at), 700, 33) for at in range(0, 1200)]
    service = Service(slots=4, startup=60.0, warm_up=0.0)

    class Still:
        def replicas(self, scrape: Scrape) -> int:
            return scrape.replicas

    enough = replay(requests, service, Still(), 1)
    assert enough.out_of_target == 0
    assert enough.p95 == pytest.approx(0.1)
    assert enough.replica_hours == pytest.approx(1199 / 3600)
    late = replay([Request(at / 8, 700, 33) for at in range(9600)], service, Still(), 1)
    assert late.out_of_target > 1000, "8 requests/s on 3.6 a second"
