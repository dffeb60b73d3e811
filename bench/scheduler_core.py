"""The planner alone: from scratch, with few changes, and beside a plain Python and a plain numpy placement.

    python bench/scheduler_core.py [--nodes 1000] [--workloads 5000] [--tenants 50] [--cycles 40] [--seed 1]

All figures are CPU seconds of this process, so that a busy machine does not distort
them; ratios are between runs of one process. The plain placements are best fit one pod
at a time: they scan every node for every pod, as a scheduler without shapes would.

- plan after 100 changes: in each cycle 50 workloads end and 50 come. What lives as long as
  the fleet is taken out of the garbage collector's sight once it is loaded;
- gangs: another fleet with 40 shapes, gangs of 1, 2, 4, … 512 pods of 1, 2, 4 or 8 devices,
  each size with equally many pods, until a quarter more is asked for than there is;
- gang of 512: 512 pods of 8 devices and nothing else to decide; the first plan that sees
  it on an empty fleet, the median of five;
- flat: the median cycle of this fleet beside that of one with a tenth of the nodes and the
  same tenants and backlog.
"""

from __future__ import annotations

import argparse
import gc
import random
import resource
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import numpy as np

from scheduler import (
    ClassQuota,
    Fleet,
    MachineState,
    Memory,
    NodeState,
    Plan,
    PodSet,
    PoolState,
    TenantState,
    WorkloadState,
    plan,
)

T = TypeVar("T")
GPU = "nvidia.com/gpu"
NODE = {"cpu": 192_000, "memory": 2 << 40, "pods": 110, GPU: 8}
# (pods, devices a pod, weight): most jobs are small, most devices go to gangs.
MIX = (
    (1, 1, 40),
    (1, 2, 12),
    (1, 4, 8),
    (1, 8, 10),
    (2, 8, 10),
    (4, 8, 8),
    (8, 8, 6),
    (16, 8, 4),
    (64, 8, 1),
    (4, 1, 1),
)


def fleet_of(nodes: int, workloads: int, tenants: int, seed: int) -> Fleet:
    """Ready, empty nodes in racks of 8, and pending workloads of the mix."""
    made, rng = Fleet(), random.Random(seed)
    pool = PoolState("h200", "tokyo", "JP", "H200", GPU, 8, NODE, 0, nodes, nodes_per_rack=8, racks_per_block=16)
    made.upsert_pool(pool)
    for index in range(nodes):
        name, rack = f"h200-{index}", f"h200-rack-{index // 8}"
        made.upsert_machine(MachineState(name, "h200", name, rack=rack))
        made.upsert_node(NodeState(name, "h200", name, rack=rack, accelerator="H200", allocatable=NODE))
    for index in range(tenants):
        made.upsert_tenant(TenantState(f"t{index}", quota={"H200": ClassQuota(8 * nodes)}))
    for index in range(workloads):
        made.upsert_workload(workload(index, tenants, rng))
    return made


def workload(index: int, tenants: int, rng: random.Random) -> WorkloadState:
    ((count, devices, _),) = rng.choices(MIX, weights=[weight for _, _, weight in MIX])
    tenant = f"t{rng.randrange(tenants)}"
    pods = PodSet("main", count, {"cpu": 4000 * devices, "memory": devices << 36, GPU: devices})
    required = "rack" if 2 <= count <= 8 and rng.random() < 0.3 else ""
    return WorkloadState(f"{tenant}/j{index}", str(index), tenant, float(index), (pods,), required_topology=required)


def admit(made: Fleet, decided: Plan) -> None:
    for one in decided.admissions:
        held = tuple((placed.pod_set, placed.node, placed.count) for placed in one.placements)
        made.upsert_workload(
            replace(made.workloads[one.workload], admitted=True, accelerator=one.accelerator, placements=held)
        )


def plain_python(made: Fleet, limit: int) -> tuple[int, int]:
    """(pods placed, workloads placed), one pod at a time over dictionaries; no topology."""
    free = {name: dict(node.allocatable) for name, node in made.nodes.items()}
    pods = whole = 0
    for one in sorted(made.pending.values(), key=lambda w: (-w.priority, w.created_at, w.key))[:limit]:
        requests = {**one.pod_sets[0].requests, "pods": 1}
        chosen: list[str] = []
        for _ in range(one.pod_sets[0].count):
            fits = [name for name, room in free.items() if all(room[key] >= need for key, need in requests.items())]
            if not fits:
                break
            best = min(fits, key=lambda name: free[name][GPU])
            for key, need in requests.items():
                free[best][key] -= need
            chosen.append(best)
        else:
            pods, whole = pods + len(chosen), whole + 1
            continue
        for name in chosen:
            for key, need in requests.items():
                free[name][key] += need
    return pods, whole


def plain_numpy(made: Fleet, limit: int) -> tuple[int, int]:
    """The same with one vector comparison a pod."""
    keys = ("cpu", "memory", "pods", GPU)
    free = np.array([[node.allocatable[key] for key in keys] for node in made.nodes.values()])
    pods = whole = 0
    for one in sorted(made.pending.values(), key=lambda w: (-w.priority, w.created_at, w.key))[:limit]:
        need = np.array([{**one.pod_sets[0].requests, "pods": 1}[key] for key in keys])
        before, count = free.copy(), one.pod_sets[0].count
        for _ in range(count):
            rows = np.flatnonzero((free >= need).all(axis=1))
            if rows.size == 0:
                free = before
                break
            free[rows[np.argmin(free[rows, 3])]] -= need
        else:
            pods, whole = pods + count, whole + 1
    return pods, whole


def timed(work: Callable[[], T]) -> tuple[T, float]:
    started = time.process_time()
    return work(), time.process_time() - started


def steady(made: Fleet, decided: Plan, memory: Memory, args: argparse.Namespace) -> list[float]:
    """CPU seconds of each plan after 100 changes, beginning with what a first plan decided."""
    admit(made, decided)
    gc.collect()
    gc.freeze()
    rng, times, waiting = random.Random(args.seed), [], args.workloads
    for cycle in range(args.cycles):
        running = sorted(key for key, one in made.workloads.items() if one.admitted)
        for key in rng.sample(running, min(50, len(running))):
            made.remove_workload(key)
        for index in range(50):
            made.upsert_workload(workload(waiting + index, args.tenants, rng))
        waiting += 50
        started = time.process_time()
        decided, memory = plan(made, memory, float(cycle))
        seconds = time.process_time() - started
        admit(made, decided)
        times.append(seconds)
    return times


def gangs(nodes: int, tenants: int, seed: int) -> tuple[float, int, int]:
    """(pods placed a second by one plan, pods, workloads) for the mix of gangs."""
    made, rng = fleet_of(nodes, 0, tenants, seed), random.Random(seed)
    sizes, left, index = [2**power for power in range(10)], 10 * nodes, 0
    while left > 0:
        (count,) = rng.choices(sizes, weights=[1 / size for size in sizes])
        devices, tenant = rng.choice((1, 2, 4, 8)), f"t{rng.randrange(tenants)}"
        pods = PodSet("main", count, {"cpu": 4000 * devices, "memory": devices << 36, GPU: devices})
        made.upsert_workload(WorkloadState(f"{tenant}/g{index}", str(index), tenant, float(index), (pods,)))
        left, index = left - count * devices, index + 1
    (decided, _), seconds = timed(lambda: plan(made, Memory(), 0.0))
    placed = sum(one.count for admission in decided.admissions for one in admission.placements)
    return placed / seconds, placed, len(decided.admissions)


def gang_of(count: int, nodes: int) -> float:
    """CPU seconds of a plan that admits one gang of whole nodes."""
    made = fleet_of(max(nodes, count), 0, 1, 0)
    pods = PodSet("main", count, {"cpu": 32_000, "memory": 1 << 39, GPU: 8})
    made.upsert_workload(WorkloadState("t0/gang", "gang", "t0", 0.0, (pods,)))
    times = []
    for _ in range(5):
        (decided, _), seconds = timed(lambda: plan(made, Memory(), 0.0))
        if sum(one.count for admission in decided.admissions for one in admission.placements) != count:
            raise AssertionError("the gang was not placed")
        times.append(seconds)
    return float(np.median(times))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--workloads", type=int, default=5000)
    parser.add_argument("--tenants", type=int, default=50)
    parser.add_argument("--cycles", type=int, default=40)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()

    made, build = timed(lambda: fleet_of(args.nodes, args.workloads, args.tenants, args.seed))
    (decided, memory), first = timed(lambda: plan(made, Memory(), 0.0))
    pods = sum(placed.count for one in decided.admissions for placed in one.placements)
    print(f"{args.nodes} nodes x 8 devices, {args.workloads} pending, {args.tenants} tenants, seed {args.seed}")
    print(f"fleet from scratch        {build:8.3f} s")
    print(f"plan from scratch         {first:8.3f} s   {pods} pods placed, {pods / first:,.0f} pods/s")

    # The plain placements look at the workloads that the plan admitted, so that all three place.
    sample = 300
    small = fleet_of(args.nodes, sample, args.tenants, args.seed)
    (ours, _), ours_time = timed(lambda: plan(small, Memory(), 0.0))
    ours_pods = sum(placed.count for one in ours.admissions for placed in one.placements)
    for name, placement in (("plain Python", plain_python), ("plain numpy", plain_numpy)):
        (placed, _), seconds = timed(lambda placement=placement: placement(small, sample))  # type: ignore[misc]
        rate, ours_rate = placed / seconds, ours_pods / ours_time
        print(f"first {sample}: {name:12} {rate:10,.0f} pods/s; ours {ours_rate:,.0f}: x{ours_rate / rate:.1f}")

    times = steady(made, decided, memory, args)
    print(
        f"plan after 100 changes    {np.median(times):8.3f} s median, {np.quantile(times, 0.99):.3f} s p99, "
        f"{times[0]:.3f} s the first; {first / np.median(times):.1f} x faster than from scratch"
    )
    few = fleet_of(args.nodes // 10, args.workloads, args.tenants, args.seed)
    before = np.median(steady(few, *plan(few, Memory(), 0.0), args))
    print(
        f"the same, nodes / 10      {before:8.3f} s median; x{np.median(times) / before:.2f} with ten times the nodes"
    )
    del few
    rate, pods, jobs = gangs(args.nodes, args.tenants, args.seed)
    print(f"gangs of 1 to 512         {rate:8,.0f} pods/s; {pods} pods of {jobs} workloads placed by one plan")
    print(f"gang of 512               {gang_of(512, args.nodes):8.3f} s")
    print(f"memory, high water        {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:8.0f} MiB")


if __name__ == "__main__":
    main()
