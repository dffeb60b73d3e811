"""How near one plan comes to the optimum, on random small instances solved exactly as MILPs by HiGHS.

    python bench/optimality.py [--instances 300] [--seed 1] [--verbose]

Instances (`instance`): one or two pools of 2 to 6 nodes, each with 4 or 8 devices, 64
cores and 512 GiB, partly in use; racks of 2 nodes. 6 to 16 gangs of 1 to 6 pods, each
with 1, 2, 4 or 8 devices, cores and memory in proportion with some that ask for more;
some gangs have a second pod set without devices, some require one rack, some select a
class. 2 to 4 tenants with weights and quotas (nominal + borrow), of which some bind. Two
priorities. Pools do not grow.

Value: a gang is worth its devices, and the plan's order is respected: levels, from the
top, are the devices within tenants' nominal quotas, priority by priority, then all devices,
priority by priority: what a tenant is owed it may take back from whoever borrows it,
whatever the priority. The optimum is lexicographic: the most of the first level, then of the second
with that kept, and so on. (A tenant's weight decides whose turn it is among equals, not
what a gang is worth.)

Score of an instance: the least, over the levels, of what the plan reaches / the optimum,
each level with those above it summed. So what is missed at a high priority, or of what a
tenant is owed, is not made up for lower down.

The MILP has the plan's constraints and no others: whole gangs within one pool (within one
rack where it is required), devices, cores, memory and pods of each node, labels, and each
tenant's nominal + borrow of each class.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import highspy

from crds.labels import ACCELERATOR, RACK
from scheduler import (
    BoundPod,
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

GPU = "nvidia.com/gpu"
CORES, GIB = 1000, 1 << 30
Planner = Callable[[Fleet], Plan]


def instance(seed: int) -> Fleet:
    """The instance of this seed, every node ready and every gang waiting."""
    rng, made = random.Random(seed), Fleet()
    classes = ("H200", "H100")[: rng.randint(1, 2)]
    for accelerator in classes:
        _pool(made, accelerator, rng)
    room: dict[str, int] = defaultdict(int)
    for node in made.nodes.values():
        room[node.accelerator] += node.allocatable[GPU]
    owners = [f"t{index}" for index in range(rng.randint(2, 4))]
    for name in owners:
        quota = {}
        for accelerator in classes:
            nominal = rng.randint(0, room[accelerator] // 2)
            quota[accelerator] = ClassQuota(nominal, rng.choice((0, room[accelerator] // 4, room[accelerator])))
        made.upsert_tenant(TenantState(name, weight=rng.choice((50, 100, 200)), quota=quota))
    for index in range(rng.randint(6, 16)):
        made.upsert_workload(_gang(f"g{index:02}", rng.choice(owners), float(index), classes, rng))
    return made


def _pool(made: Fleet, accelerator: str, rng: random.Random) -> None:
    size, devices, name = rng.randint(2, 6), rng.choice((4, 8)), accelerator.lower()
    has = {"cpu": 64 * CORES, "memory": 512 * GIB, "pods": 110, GPU: devices}
    labels = {ACCELERATOR: accelerator}
    price = rng.randint(1, 9)
    made.upsert_pool(
        PoolState(
            name, "tokyo", "JP", accelerator, GPU, devices, has, size, size,
            price_micro=price, labels=labels, nodes_per_rack=2,
        )
    )  # fmt: skip
    for slot in range(size):
        node, rack = f"{name}-{slot}", f"{name}-rack-{slot // 2}"
        made.upsert_machine(MachineState(node, name, node, rack=rack))
        made.upsert_node(
            NodeState(
                node, name, node, "tokyo", rack=rack, accelerator=accelerator,
                allocatable=has, labels={**labels, RACK: rack},
            )
        )  # fmt: skip
        if rng.random() < 0.4:
            taken = {GPU: rng.randint(0, devices - 1), "cpu": rng.randint(0, 24) * CORES, "memory": 32 * GIB}
            made.upsert_pod(BoundPod(f"other/{node}", node, taken, keeps_node=True))


def _gang(name: str, tenant: str, created: float, classes: Sequence[str], rng: random.Random) -> WorkloadState:
    devices, count = rng.choice((1, 1, 2, 4, 8)), rng.choice((1, 1, 1, 2, 2, 3, 4, 6))
    hungry = rng.random() < 0.2  # wants more than a node's cores and memory a device
    cores = devices * (rng.randint(9, 14) if hungry else rng.randint(1, 7))
    memory = devices * (rng.randint(70, 100) if hungry else rng.randint(8, 60))
    selector = {ACCELERATOR: rng.choice(classes)} if rng.random() < 0.3 else {}
    sets = [PodSet("worker", count, {GPU: devices, "cpu": cores * CORES, "memory": memory * GIB}, selector)]
    if rng.random() < 0.2:
        sets.append(PodSet("driver", 1, {"cpu": rng.randint(1, 16) * CORES, "memory": 16 * GIB}, selector))
    return WorkloadState(
        key=f"bench/{name}",
        uid=name,
        tenant=tenant,
        created_at=created,
        pod_sets=tuple(sets),
        priority=rng.choice((0, 0, 10)),
        required_topology="rack" if count > 1 and rng.random() < 0.25 else "",
    )


def devices_of(workload: WorkloadState) -> int:
    """What the gang is worth."""
    return sum(one.count * one.requests.get(GPU, 0) for one in workload.pod_sets)


# The optimum


@dataclass(frozen=True, slots=True)
class _Spot:
    """Nodes of which a gang must use one group: a rack where it is required, else a pool."""

    accelerator: str
    nodes: tuple[NodeState, ...]


def _spots(fleet: Fleet, workload: WorkloadState) -> list[_Spot]:
    groups: dict[tuple[str, str], list[NodeState]] = defaultdict(list)
    for node in sorted(fleet.nodes.values(), key=lambda node: node.name):
        groups[node.pool, node.rack if workload.required_topology else ""].append(node)
    found = []
    for (pool, _), nodes in sorted(groups.items()):
        labels = fleet.pools[pool].labels
        if all(set(one.node_selector.items()) <= labels.items() for one in workload.pod_sets):
            found.append(_Spot(fleet.pools[pool].accelerator, tuple(nodes)))
    return found


def priorities(fleet: Fleet) -> list[int]:
    """From the highest down."""
    return sorted({one.priority for one in fleet.pending.values()}, reverse=True)


def optimum(fleet: Fleet) -> list[int]:
    """The levels: within nominal for each priority from the top, then all so; each with the priorities above it."""
    model = highspy.Highs()
    model.silent()
    chosen: dict[str, list[tuple[_Spot, highspy.highs_var]]] = {}
    load: dict[tuple[str, str], list[highspy.highs_linear_expression]] = defaultdict(list)  # (node, resource)
    share: dict[tuple[str, str], list[highspy.highs_linear_expression]] = defaultdict(list)  # (tenant, class)
    for workload in sorted(fleet.pending.values(), key=lambda one: one.key):
        chosen[workload.key] = spots = [(spot, model.addBinary()) for spot in _spots(fleet, workload)]
        if spots:
            model.addConstr(_sum(model, (taken for _, taken in spots)) <= 1)
        for spot, taken in spots:
            share[workload.tenant, spot.accelerator].append(devices_of(workload) * taken)
            for one in workload.pod_sets:
                pods = [model.addIntegral(lb=0, ub=one.count) for _ in spot.nodes]
                model.addConstr(_sum(model, pods) == one.count * taken)
                for node, here in zip(spot.nodes, pods, strict=True):
                    for resource, amount in {**one.requests, "pods": 1}.items():
                        load[node.name, resource].append(_scaled(resource, amount) * here)
    for (name, resource), terms in load.items():
        model.addConstr(_sum(model, terms) <= _scaled(resource, _free(fleet, name, resource)))
    for (tenant, accelerator), terms in share.items():
        quota = fleet.tenants[tenant].quota[accelerator]
        model.addConstr(_sum(model, terms) <= quota.nominal + quota.borrow)
    best: list[int] = []
    levels: list[list[object]] = []  # all devices, by priority
    use: dict[tuple[str, str], list[highspy.highs_linear_expression]] = defaultdict(list)
    for priority in priorities(fleet):
        for key, spots in chosen.items():
            workload = fleet.pending[key]
            if workload.priority == priority:
                for spot, taken in spots:
                    use[workload.tenant, spot.accelerator].append(devices_of(workload) * taken)
        owed = []
        for (tenant, accelerator), terms in use.items():
            within = model.addVariable(lb=0, ub=fleet.tenants[tenant].quota[accelerator].nominal)
            model.addConstr(within <= _sum(model, terms))
            owed.append(within)
        levels.append([term for terms in use.values() for term in terms])
        best.append(_most(model, _sum(model, owed)) if owed else 0)
    return best + [_most(model, _sum(model, level)) if level else 0 for level in levels]


def _most(model: highspy.Highs, level: highspy.highs_linear_expression) -> int:
    """The most of this level, which is kept from here on."""
    model.maximize(level)
    if model.getModelStatus() != highspy.HighsModelStatus.kOptimal:
        raise AssertionError(f"HiGHS found no optimum: {model.getModelStatus()}")
    most = round(model.getObjectiveValue())
    model.addConstr(level >= most)
    return most


def _sum(model: highspy.Highs, terms: Iterable[object]) -> highspy.highs_linear_expression:
    return model.qsum(terms)


def _free(fleet: Fleet, node: str, resource: str) -> int:
    row, column = fleet.table.rows[node], fleet.table.columns[resource]
    return int(fleet.table.allocatable[row, column] - fleet.table.used[row, column])


def _scaled(resource: str, amount: int) -> int:
    # Whole cores and GiB: all amounts of the family are multiples of them, and a solver wants small numbers.
    return amount // {"cpu": CORES, "memory": GIB}.get(resource, 1)


# The score


def admitted(fleet: Fleet, decided: Plan) -> list[int]:
    """The levels of what the plan admits."""
    within: list[int] = []
    every: list[int] = []
    use: dict[tuple[str, str], int] = defaultdict(int)
    for priority in priorities(fleet):
        for admission in decided.admissions:
            workload = fleet.pending[admission.workload]
            if workload.priority == priority:
                use[workload.tenant, fleet.pools[admission.pool].accelerator] += devices_of(workload)
        quota = {share: fleet.tenants[share[0]].quota[share[1]].nominal for share in use}
        within.append(sum(min(devices, quota[share]) for share, devices in use.items()))
        every.append(sum(use.values()))
    return within + every


def score(best: Sequence[int], reached: Sequence[int]) -> float:
    """The least of the ratios of the levels; 1.0 is the optimum."""
    return min((min(have / most, 1.0) for most, have in zip(best, reached, strict=True) if most), default=1.0)


def planned(fleet: Fleet) -> Plan:
    """The plan under test."""
    return plan(fleet, Memory(), 1000.0)[0]


def scores(seeds: Iterable[int], planner: Planner = planned) -> list[float]:
    """The score of each instance."""
    found = []
    for seed in seeds:
        fleet = instance(seed)
        found.append(score(optimum(fleet), admitted(fleet, planner(fleet))))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--instances", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1, help="of the first instance")
    parser.add_argument("--verbose", action="store_true", help="print each instance below the optimum")
    options = parser.parse_args()
    started = time.process_time()
    found = scores(range(options.seed, options.seed + options.instances))
    if options.verbose:
        for seed, one in enumerate(found, options.seed):
            if one < 1:
                print(f"  instance {seed}: {one:.3f}")
    low = sum(1 for one in found if one < 0.9)
    print(
        f"{len(found)} instances: mean {100 * statistics.fmean(found):.2f} % of the optimum, least "
        f"{100 * min(found):.1f} %, {low} below 90 %, {sum(1 for one in found if one >= 1)} at the optimum "
        f"({time.process_time() - started:.1f} s CPU)"
    )


if __name__ == "__main__":
    main()
