"""Idle accelerator-hours on Philly arrivals, beside a Cluster-Autoscaler rule, in virtual time.

    python bench/idle_hours.py [--from 2017-10-09] [--hours 48] [--warm-up 12] [--boot 120]

The trace is Microsoft's Philly (shared/traces/philly.csv): all jobs submitted in the window,
with their durations. Both sides start without a node, the warm-up is replayed and not
counted. One pool of nodes with 8 devices, as many as are asked for; a machine takes `--boot`
seconds to become a node. Jobs are gangs that start whole.

- ours: `scheduler.plan` through `scheduler.simulate`, with the pool's scale-down delay and
  forecast as printed;
- rule: Cluster Autoscaler as its FAQ says (kubernetes/autoscaler,
  cluster-autoscaler/FAQ.md, "How does scale-up work?", "How does scale-down work?"): every
  10 s, pods that found no node are packed onto templates of new nodes, those on their way
  counted; a node that is not needed for 10 minutes goes. Pods of running jobs are not moved
  (safe-to-evict: false), so a node is not needed when it is empty. The default pause after a
  scale-up (10 minutes) is left out, which favours the rule. Its pods are placed in order of
  age by kube-scheduler's scoring: LeastAllocated, the default, and MostAllocated beside it.

Idle: devices of ready nodes without a job, integrated over the counted time. Wait: from
submission to start, of jobs submitted in the counted time. Exit status 1 when idle hours
are above 60 % of the rule's with the default scoring, or the mean wait is longer.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from heapq import heappop, heappush
from pathlib import Path

import numpy as np

from scheduler import ClassQuota, Fleet, Memory, Plan, PoolState, TenantState, plan
from scheduler.simulate.driver import Simulation
from scheduler.simulate.outcome import Arrival
from scheduler.simulate.trace import TraceJob, arrivals_of, read_philly

HERE = Path(__file__).resolve().parent.parent
TRACE = Path(os.environ.get("KEKKAI_SHARED", HERE.parent / "shared")) / "traces" / "philly.csv"
GPU, PER_NODE, MOST = "nvidia.com/gpu", 8, 1500
SCAN, UNNEEDED = 10.0, 600.0  # seconds
GOAL = 0.60


@dataclass(frozen=True)
class Result:
    """Over the counted time."""

    name: str
    idle_hours: float
    used_hours: float
    waits: tuple[float, ...]
    machines: int  # asked for
    seconds: float  # CPU

    def row(self, beside: Result) -> str:
        waits = sorted(self.waits)
        return (
            f"{self.name:<22} {self.idle_hours:>9.0f} {self.idle_hours / beside.idle_hours:>7.1%} "
            f"{self.used_hours:>9.0f} {statistics.mean(waits):>9.2f} {waits[int(0.95 * len(waits))]:>8.0f} "
            f"{self.machines:>8} {self.seconds:>7.1f}"
        )


def pool(delay: float, quantile: float, half_life: float, boot: float, headroom: int) -> PoolState:
    """The pool of both sides."""
    return PoolState(
        name="gpu",
        site="one",
        jurisdiction="JP",
        accelerator="P100",
        resource=GPU,
        per_node=PER_NODE,
        allocatable={"cpu": 64_000, "memory": 512 << 30, "pods": 110, GPU: PER_NODE},
        minimum=0,
        maximum=MOST,
        headroom=headroom,
        scale_down_delay=delay,
        forecast_quantile=quantile,
        forecast_half_life=half_life,
        provisioning=boot,
    )


def ours(jobs: Sequence[TraceJob], shape: PoolState, boot: float, count_from: float, until: float) -> Result:
    """plan() in virtual time."""
    fleet = Fleet()
    fleet.upsert_pool(shape)
    for tenant in sorted({job.tenant for job in jobs}):
        fleet.upsert_tenant(TenantState(tenant, quota={"P100": ClassQuota(MOST * PER_NODE)}))
    start = time.process_time()
    machines = 0

    def counted(state: Fleet, memory: Memory, now: float) -> tuple[Plan, Memory]:
        nonlocal machines
        decided, memory = plan(state, memory, now)
        machines += len(decided.machine_requests)
        return decided, memory

    simulation = Simulation(fleet, arrivals_of(jobs, shape), policy=counted, boot_default=boot, until=until, pace=1.0)
    outcome = simulation.run()
    idle = used = 0.0
    ends = [sample.time for sample in outcome.series[1:]] + [until]
    for sample, end in zip(outcome.series, ends, strict=True):
        span = max(min(end, until) - max(sample.time, count_from), 0.0)
        idle += (sample.devices_ready - sample.devices_used) * span
        used += sample.devices_used * span
    waits = tuple(
        (record.started if record.started is not None else until) - record.submitted
        for record in outcome.records
        if record.submitted >= count_from
    )
    return Result("ours", idle / 3600, used / 3600, waits, machines, time.process_time() - start)


class Rule:
    """Cluster Autoscaler and kube-scheduler on equal nodes of one node group."""

    def __init__(self, arrivals: Sequence[Arrival], boot: float, spread: bool) -> None:
        self.arrivals, self.boot, self.spread = arrivals, boot, spread
        self.free = np.zeros(0, dtype=np.int64)  # by node; -1: gone
        self.empty_since = np.zeros(0)
        self.coming: list[float] = []  # when each is ready
        self.queue: list[int] = []
        self.ends: list[tuple[float, int]] = []
        self.held: dict[int, list[tuple[int, int]]] = {}
        self.started: dict[int, float] = {}
        self.asked = 0

    def shape(self, job: int) -> tuple[int, int]:
        """(pods, devices of each)"""
        (pods,) = self.arrivals[job].workload.pod_sets
        return pods.count, pods.requests.get(GPU, 0)

    def run(self, count_from: float, until: float) -> Result:
        """From the first arrival on."""
        begun = time.process_time()
        now = self.arrivals[0].time
        following, scan = 0, now
        idle = used = 0.0
        while now < until:
            while self.ends and self.ends[0][0] <= now:
                at, job = heappop(self.ends)
                for node, devices in self.held.pop(job):
                    self.free[node] += devices
                    if self.free[node] == PER_NODE:
                        self.empty_since[node] = at
            ready = [at for at in self.coming if at <= now]
            if ready:
                self.coming = [at for at in self.coming if at > now]
                self.free = np.concatenate([self.free, np.full(len(ready), PER_NODE)])
                self.empty_since = np.concatenate([self.empty_since, np.array(ready)])
            while following < len(self.arrivals) and self.arrivals[following].time <= now:
                self.queue.append(following)
                following += 1
            self.schedule(now)
            if now >= scan:
                self.scale(now)
                scan = now + SCAN
            times = [scan, until, *self.coming]
            if self.ends:
                times.append(self.ends[0][0])
            if following < len(self.arrivals):
                times.append(self.arrivals[following].time)
            after = max(min(times), now + 1e-6)
            span = max(after - max(now, count_from), 0.0)
            free = int(self.free[self.free > 0].sum())
            idle += free * span
            used += (int((self.free >= 0).sum()) * PER_NODE - free) * span
            now = after
        waits = tuple(
            self.started.get(job, until) - arrival.time
            for job, arrival in enumerate(self.arrivals)
            if arrival.time >= count_from
        )
        name = "rule, LeastAllocated" if self.spread else "rule, MostAllocated"
        return Result(name, idle / 3600, used / 3600, waits, self.asked, time.process_time() - begun)

    def schedule(self, now: float) -> None:
        """Pending jobs in order of age; one that does not fit does not hold up the others."""
        left = []
        refused: set[tuple[int, int]] = set()
        for job in self.queue:
            shape = self.shape(job)
            placed = self.place(*shape) if shape not in refused else None
            if placed is None:
                refused.add(shape)
                left.append(job)
                continue
            for node, devices in placed:
                self.free[node] -= devices
            self.held[job] = placed
            self.started[job] = now
            heappush(self.ends, (now + self.arrivals[job].duration, job))
        self.queue = left

    def place(self, pods: int, devices: int) -> list[tuple[int, int]] | None:
        free = self.free.copy()
        placed = []
        for _ in range(pods):
            rows = np.flatnonzero(free >= max(devices, 0))
            if not rows.size:
                return None
            at = int(rows[np.argmax(free[rows])] if self.spread else rows[np.argmin(free[rows])])
            free[at] -= devices
            placed.append((at, devices))
        return placed

    def scale(self, now: float) -> None:
        """Scale-up for what waits, else scale-down of what has been empty for 10 minutes."""
        room = sorted(self.free[self.free > 0].tolist()) + [PER_NODE] * len(self.coming)
        new = 0
        for job in self.queue:
            pods, devices = self.shape(job)
            for _ in range(pods):
                at = next((i for i, free in enumerate(room) if free >= devices), None)
                if at is None:
                    room.append(PER_NODE - devices)
                    new += 1
                else:
                    room[at] -= devices
        new = min(new, MOST - int((self.free >= 0).sum()) - len(self.coming))
        self.coming.extend([now + self.boot] * max(new, 0))
        self.asked += max(new, 0)
        if not self.queue:
            gone = (self.free == PER_NODE) & (now - self.empty_since >= UNNEEDED)
            self.free[gone] = -1


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--from", dest="start", default="2017-10-09")
    parser.add_argument("--hours", type=float, default=48.0, help="counted, after the warm-up")
    parser.add_argument("--warm-up", type=float, default=12.0, help="hours")
    parser.add_argument("--boot", type=float, default=120.0, help="seconds")
    parser.add_argument("--delay", type=float, default=120.0, help="ours: scale-down delay, seconds")
    parser.add_argument("--quantile", type=float, default=0.9, help="ours: of the forecast")
    parser.add_argument("--headroom", type=int, default=1, help="ours: idle machines kept")
    parser.add_argument("--half-life", type=float, default=3600.0, help="ours: of the forecast, seconds")
    args = parser.parse_args()
    start = datetime.fromisoformat(args.start).replace(tzinfo=UTC).timestamp()
    count_from = start + args.warm_up * 3600
    until = count_from + args.hours * 3600
    with TRACE.open(encoding="utf-8") as lines:
        jobs = [one for one in read_philly(lines, start=start, hours=args.warm_up + args.hours) if one.devices]
    shape = pool(args.delay, args.quantile, args.half_life, args.boot, args.headroom)
    print(
        f"Philly from {args.start} UTC, {args.warm_up:g} h warm-up + {args.hours:g} h counted, {len(jobs)} jobs; boot "
        f"{args.boot:g} s; ours: delay {args.delay:g} s, forecast {args.quantile:g} of {args.half_life:g} s"
    )
    print(f"{'':<22} {'idle h':>9} {'beside':>7} {'used h':>9} {'wait s':>9} {'p95':>8} {'machines':>8} {'CPU s':>7}")
    arrivals = arrivals_of(jobs, shape)
    rule = Rule(arrivals, args.boot, spread=True).run(count_from, until)
    print(rule.row(rule), flush=True)
    print(Rule(arrivals, args.boot, spread=False).run(count_from, until).row(rule), flush=True)
    mine = ours(jobs, shape, args.boot, count_from, until)
    print(mine.row(rule))
    met = mine.idle_hours <= GOAL * rule.idle_hours and statistics.mean(mine.waits) <= statistics.mean(rule.waits)
    print(f"goal (idle <= {GOAL:.0%} of the rule's, mean wait no longer): {'met' if met else 'MISSED'}")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
