"""Services that follow the flow of their data: the data-flow decision beside HPA on the Azure LLM traces.

    python bench/data_flow.py [--startup 90] [--all]

The service, what counts as out of target, and HPA with its sources: bench/service_traces.py.
Both traces are replayed whole, as recorded, in virtual time. HPA runs with each of three
metrics (requests in flight, busy slots, requests/s; a replica) at several targets, 25
settings in all: its user would have to find the best. The data-flow decision is told one
of two guesses of what a replica carries, the same for both traces though the truth differs
sixfold between them (0.6 and 3.5 requests/s), and learns the rest; its setting is the
quantile, 18 settings in all. Printed first is its default, the same for both traces.

Compared: each HPA setting that misses the target at most a twentieth of the time (nobody keeps
one that misses it more) against the data-flow setting that costs no more replica-hours.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.service_traces import Hpa, Outcome, Request, Scrape, Service, azure, replay
from scheduler.dataflow import FlowSpec, Observation, Sample, SignalSpec, start, step

HPA = (
    *(("inFlight", target) for target in (6, 5, 4.5, 4, 3.6, 3.2, 2.8, 2.4, 2, 1.6, 1.2)),
    *(("busy", target) for target in (3.4, 3, 2.6, 2.2, 1.8)),
    *(("requests", target) for target in (3, 2, 1.5, 1, 0.7, 0.5, 0.4, 0.3, 0.2)),
)
OURS = tuple(
    (quantile, guess) for guess in (1.0, 2.0) for quantile in (0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 0.98)
)
DEFAULT = (0.9, 1.0)
FIRST = 10  # replicas at the start of each replay
TOLERABLE = 0.05  # of the time


class DataFlow:
    """The pure decision behind the benchmark's policy interface."""

    def __init__(self, service: Service, quantile: float, guess: float) -> None:
        self.spec = FlowSpec(
            signals=(
                SignalSpec("requests", "requests", capacity=guess),
                SignalSpec("waiting", "queueDepth", of="requests"),
                SignalSpec("ttft", "latencySeconds", target=service.target),
            ),
            min_replicas=service.least,
            max_replicas=service.most,
            startup=service.startup + 15.0,
            quantile=quantile,
            window=300.0,
        )
        self.memory = start(self.spec)

    def replicas(self, scrape: Scrape) -> int:
        values = {"requests": scrape.rate, "waiting": float(scrape.waiting), "ttft": scrape.latency}
        samples = {name: Sample(value, scrape.now) for name, value in values.items()}
        seen = Observation(scrape.now, samples, scrape.replicas, scrape.ready)
        target, self.memory = step(self.spec, self.memory, seen)
        return target.replicas


def compare(
    requests: Sequence[Request], service: Service
) -> tuple[dict[tuple[str, float], Outcome], dict[tuple[float, float], Outcome]]:
    """HPA's outcome by (metric, target), and ours by quantile."""
    theirs = {one: replay(requests, service, Hpa(*one, service), FIRST) for one in HPA}
    ours = {one: replay(requests, service, DataFlow(service, *one), FIRST) for one in OURS}
    return theirs, ours


def worst_ratio(
    theirs: dict[tuple[str, float], Outcome], ours: dict[tuple[float, float], Outcome]
) -> tuple[float, str]:
    """Our time out of target by HPA's, at equal or lower replica-hours: the worst of HPA's tolerable settings."""
    worst, where = 0.0, "none"
    for (metric, target), peer in theirs.items():
        if not 0 < peer.out_of_target <= TOLERABLE * peer.seconds:
            continue
        cheap = [one for one in ours.values() if one.replica_hours <= peer.replica_hours]
        ratio = min((one.out_of_target / peer.out_of_target for one in cheap), default=math.inf)
        if ratio >= worst:
            worst, where = ratio, f"{metric} at {target:g}"
    return worst, where


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--startup", type=float, default=90.0, help="seconds until a new replica serves")
    parser.add_argument("--all", action="store_true", help="print every setting")
    options = parser.parse_args()
    service = Service(startup=options.startup)
    for name in ("conv", "code"):
        begun = time.process_time()
        theirs, ours = compare(azure(name), service)
        if options.all:
            for (metric, target), one in theirs.items():
                _show(f"HPA {metric} {target:g}", one)
            for (quantile, guess), one in ours.items():
                _show(f"data flow {quantile:g}, guess {guess:g}", one)
        ratio, where = worst_ratio(theirs, ours)
        mine = ours[DEFAULT]
        rivals = {key: one for key, one in theirs.items() if one.replica_hours <= mine.replica_hours}
        best = min(rivals, key=lambda key: (rivals[key].out_of_target, rivals[key].replica_hours))
        free = min((one.replica_hours for one in theirs.values() if not one.out_of_target), default=math.inf)
        our_free = min((one.replica_hours for one in ours.values() if not one.out_of_target), default=math.inf)
        print(f"azure {name}, start-up {service.startup:.0f} s")
        _show(f"  data flow, quantile {DEFAULT[0]}, guess {DEFAULT[1]:g}", mine)
        _show(f"  HPA, the best of its settings that cost no more ({best[0]} {best[1]:g})", rivals[best])
        print(f"  never out of target: {our_free:.2f} replica-hours, HPA's cheapest {free:.2f}")
        print(
            f"  out of target / HPA's, at equal or lower replica-hours, worst setting ({where}): {ratio:.2f} (<= 0.50)"
        )
        print(f"  {time.process_time() - begun:.1f} CPU-seconds")


def _show(what: str, one: Outcome) -> None:
    print(
        f"{what}: {one.replica_hours:.2f} replica-hours, {one.out_of_target:.0f} s out of target, "
        f"p95 {one.p95:.2f} s, {one.changes} changes, {one.reversals} reversals"
    )


if __name__ == "__main__":
    main()
