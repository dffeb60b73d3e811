"""Fair finish on the Philly trace: plan() beside FIFO, strict priority and DRF on 64 devices.

    python bench/fair_finish.py [--windows 1] [--checkpoint 1800] [--policies kekkai,fifo,priority,drf]

Cluster: 8 nodes of 8 devices, always on.

Windows: of each UTC day of the trace (traces/philly.csv) the jobs with at most 64 devices
and at most 24 hours; the days that count are those on which these are at least 500 and
their work is at least 1.25 x what 64 devices do in a day. Of such a day every k-th job in
the order of submission is kept, k the greatest for which their work is still that much
(the trace is of about 2,500 devices). The jobs are run to the end.

Tenants: the trace's virtual clusters (column `cluster`), n of them in a window, of equal
weight. For plan(): nominal 64/n devices each (the remainder to the first by name), all
else may be borrowed.

Finish-time fairness of a job, after Themis (NSDI 2020) and Shockwave (NSDI 2023):
    rho = JCT shared / JCT isolated
JCT shared: from submission to the end in the shared cluster. JCT isolated: the same if its
tenant had 64/n devices of its own, for good: its jobs in the order of submission, each
when as many devices as it asks for are free; a job that asks for more than the share takes
the whole share and lasts (devices asked / share) times as long, the linear scaling of
Themis. A job is unfair when rho > 1: its tenant would have been better off alone. The
isolated times do not depend on the policy.

Policies, on the same simulation and the same nodes:
- kekkai: scheduler.plan; it may evict. What is evicted loses the work since its last
  checkpoint (every 1,800 s of work unless told otherwise) and 60 s to start again.
- fifo: in the order of submission, nobody overtakes.
- priority: three classes by SHA-256 of the job's row, the higher first, in a class by
  submission, nobody overtakes. Only this policy looks at the classes.
- drf: progressive filling, the tenant with the smallest dominant share first, with its
  oldest job; a tenant whose job does not fit is passed over. No preemption.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from heapq import heappop, heappush
from pathlib import Path

from scheduler import (
    Admission,
    ClassQuota,
    Fleet,
    MachineState,
    Memory,
    Placed,
    Plan,
    PoolState,
    TenantState,
    WorkloadState,
    plan,
)
from scheduler.simulate import Arrival, Outcome, Policy, Simulation
from scheduler.simulate.cluster import node_of
from scheduler.simulate.trace import TraceJob, arrivals_of, read_philly

HERE = Path(__file__).resolve().parents[1]
TRACE = Path(os.environ.get("KEKKAI_SHARED", HERE.parent / "shared")) / "traces" / "philly.csv"
GPU = "nvidia.com/gpu"
DEVICES, NODES, DAY = 64, 8, 86_400.0
LEAST_JOBS, LOAD, LONGEST = 500, 1.25, DAY
RESTART = 60.0
POOL = PoolState(
    "v100", "philly", "US", "V100", GPU, 8,
    {"cpu": 96_000, "memory": 768 << 30, "pods": 110, GPU: 8}, NODES, NODES, labels={"kekkai.dev/accelerator": "V100"},
)  # fmt: skip


# The windows


def windows(jobs: Sequence[TraceJob]) -> Iterator[list[TraceJob]]:
    """The kept jobs of each day that counts."""
    days: dict[int, list[TraceJob]] = defaultdict(list)
    for job in jobs:
        days[int(job.at // DAY)].append(job)
    for _, of_day in sorted(days.items()):
        fitting = [job for job in of_day if 1 <= job.devices <= DEVICES and job.duration <= LONGEST]
        kept = [fitting[::every] for every in range(1, len(fitting) // LEAST_JOBS * 10 + 1)]
        enough = [jobs for jobs in kept if work(jobs) >= LOAD * DEVICES * DAY]
        if len(fitting) >= LEAST_JOBS and enough:
            yield enough[-1]


def work(jobs: Sequence[TraceJob]) -> float:
    """Device-seconds."""
    return sum(job.duration * job.devices for job in jobs)


# Isolated


def isolated(jobs: Sequence[TraceJob]) -> dict[int, float]:
    """Row → JCT with 64/n devices for its tenant alone."""
    tenants = {job.tenant for job in jobs}
    share = DEVICES / len(tenants)
    found: dict[int, float] = {}
    for tenant in sorted(tenants):
        found.update(_alone([job for job in jobs if job.tenant == tenant], share))
    return found


def _alone(jobs: Sequence[TraceJob], share: float) -> dict[int, float]:
    free, ends, found, clock = share, [], {}, 0.0
    for job in jobs:
        clock = max(clock, job.at)  # in order: it starts no earlier than the one before
        takes = min(float(job.devices), share)
        while free < takes - 1e-9 or (ends and ends[0][0] <= clock):
            end, freed = heappop(ends)
            clock, free = max(clock, end), free + freed
        free -= takes
        end = clock + job.duration * job.devices / takes
        heappush(ends, (end, takes))
        found[job.row] = end - job.at
    return found


# Policies to compare with

Candidates = Generator[WorkloadState, bool, None]  # each is answered by whether it was admitted


def baseline(choose: Callable[[Fleet], Candidates], overtaking: bool) -> Policy:
    """Admits in the order of `choose` what fits; without overtaking it stops at the first that does not."""

    def policy(fleet: Fleet, memory: Memory, now: float) -> tuple[Plan, Memory]:
        free = {name: _free(fleet, name) for name in sorted(fleet.nodes)}
        admissions = []
        candidates = choose(fleet)
        workload = next(candidates, None)
        while workload is not None:
            placed = _place(workload, free)
            if placed is not None:
                admissions.append(Admission(workload.key, POOL.accelerator, POOL.name, placed))
            elif not overtaking:
                break
            try:
                workload = candidates.send(placed is not None)
            except StopIteration:
                break
        return Plan(admissions=tuple(admissions)), memory

    return policy


def _free(fleet: Fleet, node: str) -> int:
    row, column = fleet.table.rows[node], fleet.table.columns[GPU]
    return int(fleet.table.allocatable[row, column] - fleet.table.used[row, column])


def _place(workload: WorkloadState, free: dict[str, int]) -> tuple[Placed, ...] | None:
    """Best fit pod by pod, ties by name; `free` is changed only when all fit."""
    (pod_set,) = workload.pod_sets
    size, left, taken = pod_set.requests[GPU], dict(free), Counter[str]()
    for _ in range(pod_set.count):
        node = min((name for name in left if left[name] >= size), key=lambda name: (left[name], name), default=None)
        if node is None:
            return None
        left[node] -= size
        taken[node] += 1
    free.update(left)
    return tuple(Placed(pod_set.name, node, count) for node, count in sorted(taken.items()))


def by_submission(fleet: Fleet) -> Candidates:
    for workload in sorted(fleet.pending.values(), key=lambda one: (one.created_at, one.key)):  # noqa: UP028
        yield workload


def by_class(fleet: Fleet) -> Candidates:
    for workload in sorted(fleet.pending.values(), key=lambda one: (-class_of(one), one.created_at, one.key)):  # noqa: UP028
        yield workload


def asked(workload: WorkloadState) -> int:
    """Devices."""
    return sum(one.count * one.requests[GPU] for one in workload.pod_sets)


def class_of(workload: WorkloadState) -> int:
    """0, 1 or 2."""
    return hashlib.sha256(workload.key.encode()).digest()[0] % 3


def by_dominant_share(fleet: Fleet) -> Candidates:
    """All ask for devices, cores and memory in one proportion, so that devices are every tenant's dominant share."""
    held = dict.fromkeys(fleet.tenants, 0)
    for workload in fleet.workloads.values():
        held[workload.tenant] += asked(workload) if workload.admitted else 0
    queues: dict[str, list[WorkloadState]] = defaultdict(list)
    for workload in by_submission(fleet):
        queues[workload.tenant].append(workload)
    while queues:
        tenant = min(queues, key=lambda name: (held[name], name))
        workload = queues[tenant].pop(0)
        fits = yield workload
        if fits:
            held[tenant] += asked(workload)
        if not fits or not queues[tenant]:
            del queues[tenant]


POLICIES: dict[str, Policy] = {
    "kekkai": plan,
    "fifo": baseline(by_submission, overtaking=False),
    "priority": baseline(by_class, overtaking=False),
    "drf": baseline(by_dominant_share, overtaking=True),
}


# A run


def cluster(tenants: Sequence[str]) -> Fleet:
    """The nodes, and for each tenant its part of them."""
    made = Fleet()
    made.upsert_pool(POOL)
    for slot in range(NODES):
        machine = MachineState(f"v100-{slot}", POOL.name, f"v100-{slot}")
        made.upsert_machine(machine)
        made.upsert_node(node_of(POOL, machine))
    for at, name in enumerate(sorted(tenants)):
        nominal = DEVICES // len(tenants) + (at < DEVICES % len(tenants))
        made.upsert_tenant(TenantState(name, quota={POOL.accelerator: ClassQuota(nominal, DEVICES - nominal)}))
    return made


@dataclass(frozen=True, slots=True)
class Result:
    """Of one policy on one window."""

    unfair: float  # part of the jobs with rho > 1
    worst: float  # the largest rho
    mean_rho: float
    jct: float  # mean, seconds
    makespan: float  # seconds
    evictions: int
    lost: float  # part of all device time
    plans: int
    cpu: float  # seconds


def run(name: str, jobs: Sequence[TraceJob], alone: dict[int, float], checkpoint: float) -> Result:
    """One window under one policy, to the end."""
    arrivals: list[Arrival] = arrivals_of(jobs, POOL, checkpoint=checkpoint, restart=RESTART)
    started = time.process_time()
    outcome = Simulation(cluster(sorted({job.tenant for job in jobs})), arrivals, policy=POLICIES[name]).run()
    return summary(outcome, alone, time.process_time() - started)


def summary(outcome: Outcome, alone: dict[int, float], cpu: float) -> Result:
    """The figures; every job must have ended."""
    rhos = []
    for record in outcome.records:
        if record.completion is None:
            raise AssertionError(f"{record.key} never ended")
        rhos.append(record.completion / alone[int(record.key.rpartition("-")[2])])
    return Result(
        unfair=sum(1 for rho in rhos if rho > 1 + 1e-9) / len(rhos),
        worst=max(rhos),
        mean_rho=statistics.fmean(rhos),
        jct=statistics.fmean(record.completion or 0.0 for record in outcome.records),
        makespan=outcome.makespan,
        evictions=sum(record.evictions for record in outcome.records),
        lost=sum(record.lost * record.devices for record in outcome.records) / 3600 / outcome.device_hours,
        plans=outcome.plans,
        cpu=cpu,
    )


def mean(results: Sequence[Result]) -> Result:
    """Of each figure; the worst is the worst."""
    fields = {name: statistics.fmean(getattr(one, name) for one in results) for name in Result.__dataclass_fields__}
    return replace(Result(**fields), worst=max(one.worst for one in results))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--windows", type=int, default=1, help="how many days, from the first")
    parser.add_argument("--skip", type=int, default=0, help="days to skip before the first")
    parser.add_argument("--checkpoint", type=float, default=1800.0, help="seconds of work between checkpoints")
    parser.add_argument("--policies", default=",".join(POLICIES))
    options = parser.parse_args()
    with TRACE.open() as lines:
        days = list(windows(read_philly(lines)))[options.skip :][: options.windows]
    found: dict[str, list[Result]] = defaultdict(list)
    for jobs in days:
        alone = isolated(jobs)
        tenants = len({job.tenant for job in jobs})
        print(
            f"{datetime.fromtimestamp(jobs[0].at, UTC):%Y-%m-%d}: {len(jobs)} jobs, {tenants} tenants, "
            f"{work(jobs) / DEVICES / DAY:.2f} of a day's devices"
        )
        for name in options.policies.split(","):
            found[name].append(run(name, jobs, alone, options.checkpoint))
    print(
        f"{'':10}{'unfair':>8}{'worst':>9}{'mean':>7}{'JCT h':>8}{'makespan h':>12}{'evict.':>8}{'lost':>7}{'CPU s':>8}"
    )
    for name, results in found.items():
        one = mean(results)
        print(
            f"{name:10}{100 * one.unfair:10.1f}%{one.worst:11.1f}{one.mean_rho:11.2f}{one.jct / 3600:11.2f}"
            f"{one.makespan / 3600:11.2f}{one.evictions:11.0f}{100 * one.lost:10.1f}%{one.cpu:11.1f}"
        )


if __name__ == "__main__":
    main()
