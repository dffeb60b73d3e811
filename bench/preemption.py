"""Searches for victims and reservations among running workloads, beside a plain search one victim at a time.

    python bench/preemption.py [--nodes 10000] [--workloads 24000] [--seed 1]

All figures are CPU milliseconds of this process. The plain search is what schedulers
commonly do: take candidates away in order until the gang fits, then give back in reverse
order whoever is not needed; it keeps the room of each node and rack by hand in dictionaries.
Both go by the same order, so that they choose equally well; the sets they find are compared.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np

from scheduler import Fleet, NodeState, PodSet, PoolState, WorkloadState
from scheduler.fleet.shape import Shape
from scheduler.placement.ask import Ask
from scheduler.placement.supply import Supply
from scheduler.preemption import Budget, Candidates, Claim
from scheduler.reserving import Timeline, reserve
from scheduler.running import Columns, Running
from scheduler.running.room import PoolRoom

T = TypeVar("T")
GPU, PER_NODE, RACK, NOW = "nvidia.com/gpu", 8, 16, 1000.0
NODE = {"cpu": 128_000, "memory": 1 << 40, "pods": 110, GPU: PER_NODE}
TENANTS, NOMINAL = 3_000, 20
CLAIMS = (
    (1, 8, ""),
    (4, 8, "rack"),
    (16, 8, "rack"),
    (16, 8, ""),
    (64, 8, ""),
    (256, 8, ""),
    (100, 1, ""),
)  # (pods, devices, level)


class Everybody:
    """The claimant may have back what anybody borrows beyond `NOMINAL`."""

    def __init__(self, running: list[WorkloadState]) -> None:
        self._used: dict[str, int] = {}
        for one in running:
            devices = sum(pods for _, _, pods in one.placements) * one.pod_sets[0].requests[GPU]
            self._used[one.tenant] = self._used.get(one.tenant, 0) + devices

    def nominal(self, tenant: str, accelerator: str) -> int:
        return NOMINAL if tenant != "claimant" else 1 << 30

    def within_nominal(self, tenant: str, accelerator: str, wanted: int) -> bool:
        return tenant == "claimant"

    def excess(self, tenant: str, accelerator: str) -> float:
        return max(0, self._used.get(tenant, 0) - NOMINAL)

    def may_reclaim_from(self, tenant: str, other: str, accelerator: str, wanted: int) -> bool:
        return True

    def reclaimable(self, tenant: str, accelerator: str, wanted: int, losses: Sequence[tuple[str, int]]) -> int:
        return len(losses)

    def same_cohort(self, tenant: str, other: str) -> bool:
        return False


def full_fleet(nodes: int, workloads: int, rng: random.Random) -> tuple[Fleet, list[WorkloadState]]:
    """Ready nodes in racks of 16, packed with gangs until the devices or the workloads are used up."""
    made, room = Fleet(), [PER_NODE] * nodes
    pool = PoolState("h200", "tokyo", "JP", "H200", GPU, PER_NODE, NODE, 0, nodes, nodes_per_rack=RACK)
    made.upsert_pool(pool)
    for index in range(nodes):
        made.upsert_node(
            NodeState(f"n{index:05}", "h200", rack=f"r{index // RACK:04}", accelerator="H200", allocatable=NODE)
        )
    running, first = [], 0
    for index in range(workloads):
        pods, each = rng.choice([1, 1, 1, 1, 1, 1, 2, 4]), rng.choice([1, 1, 1, 2, 4, 4, 8])
        held, missing, node = [], pods, first
        while missing and node < nodes:
            some = min(room[node] // each, missing)
            if some:
                held.append((node, some))
                room[node] -= some * each
                missing -= some
            node += 1
        if missing:
            for node, some in held:
                room[node] += some * each
            continue
        while first < nodes and not room[first]:
            first += 1
        running.append(_workload(f"r{index:05}", pods, each, held, rng))
    rng.shuffle(running)
    for one in running:
        made.upsert_workload(one)
    return made, running


def _workload(name: str, pods: int, each: int, held: list[tuple[int, int]], rng: random.Random) -> WorkloadState:
    sets = (PodSet("main", pods, {"cpu": 1000 * each, "memory": each << 33, GPU: each}),)
    return WorkloadState(
        f"x/{name}",
        name,
        f"t{rng.randrange(TENANTS):04}",
        0.0,
        sets,
        rng.choice([0, 0, 0, 1, 2]),
        admitted=True,
        accelerator="H200",
        placements=tuple(("main", f"n{node:05}", some) for node, some in held),
        admitted_at=rng.uniform(0, NOW),
        max_runtime=rng.choice([0.0, 2000.0, 5000.0, 20000.0]),
    )


def plain(order: list[WorkloadState], free: dict[str, int], rack_of: dict[str, str], ask: Ask, level: str) -> list[str]:
    """Keys of the victims: taken away one at a time in order, then given back where they are not needed."""
    count, each = ask.pods[0].count, ask.pods[0].pod_set.requests[GPU]
    room = dict(free)
    rooms: dict[str, int] = {}
    for node, devices in room.items():
        where = rack_of[node] if level else ""
        rooms[where] = rooms.get(where, 0) + min(devices // each, count)

    def move(one: WorkloadState, sign: int) -> set[str]:
        touched = set()
        for _, node, pods in one.placements:
            where = rack_of[node] if level else ""
            rooms[where] -= min(room[node] // each, count)
            room[node] += sign * pods * one.pod_sets[0].requests[GPU]
            rooms[where] += min(room[node] // each, count)
            touched.add(where)
        return touched

    gone: list[WorkloadState] = []
    target = next((where for where, pods in rooms.items() if pods >= count), None)
    for one in order:
        if target is not None:
            break
        gone.append(one)
        target = next((where for where in move(one, 1) if rooms[where] >= count), None)
    if target is None:
        return []
    kept = []
    for one in reversed(gone):
        move(one, -1)
        if rooms[target] < count:
            move(one, 1)
            kept.append(one.key)
    return kept


def timed(call: Callable[[], T]) -> tuple[float, T]:
    """(CPU milliseconds, result)."""
    start = time.process_time()
    result = call()
    return 1000 * (time.process_time() - start), result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nodes", type=int, default=10_000)
    parser.add_argument("--workloads", type=int, default=24_000)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    made, running = full_fleet(args.nodes, args.workloads, random.Random(args.seed))
    print(f"{args.nodes} nodes × {PER_NODE} devices, {len(running)} running workloads; CPU milliseconds")
    index = Running(made.devices_of)
    for one in running:
        index.put(one)
    index.columns()
    took, _ = timed(lambda: [index.put(replace(one, checkpointed_at=1.0)) for one in running[:100]])
    print(f"100 workloads change: {took:.1f}")
    supply = Supply(made)
    rights = Everybody(running)
    once, made_once = timed(lambda: _once(made, supply, index, rights))
    columns, room, candidates = made_once
    print(f"once a plan (columns, rows, order of {columns.live.sum()} candidates): {once:.1f}")
    _searches(made, supply, columns, room, candidates, running)
    _reservations(supply, columns, room)


def _once(made: Fleet, supply: Supply, index: Running, rights: Everybody) -> tuple[Columns, PoolRoom, Candidates]:
    columns = index.columns()
    room = PoolRoom.of(supply.pools["h200"], made.table.columns, columns)
    return columns, room, Candidates(columns, {"h200": room}, rights, NOW, Budget(per_cycle=1 << 20))


def _searches(
    made: Fleet,
    supply: Supply,
    columns: Columns,
    room: PoolRoom,
    candidates: Candidates,
    running: list[WorkloadState],
) -> None:
    pool = supply.pools["h200"]
    device = made.table.columns[GPU]
    free = {name: int(pool.free[row, device]) for row, name in enumerate(pool.names)}
    rack_of = {name: made.nodes[name].rack for name in pool.names}
    for count, each, level in CLAIMS:
        ask = _ask(supply, count, each, level)
        claim = Claim("x/claimant", "claimant", 0, ask)
        candidates.find(claim, ["h200"])
        took, found = timed(lambda claim=claim: candidates.find(claim, ["h200"]))
        order = candidates.order_for(claim, "h200")
        slow, other = timed(lambda ask=ask, order=order, level=level: plain(order, free, rack_of, ask, level))
        chosen = {one.workload for one in found.victims} if found is not None else set()
        same = "the same set" if chosen == set(other) else f"{len(other)} by the plain search"
        print(
            f"victims for {count} × {each} {level or 'anywhere'}: {took:.1f}, {len(chosen)} victims, {same}; "
            f"plain search {slow:.1f} ({slow / took:.1f} times)"
        )


def _reservations(supply: Supply, columns: Columns, room: PoolRoom) -> None:
    timeline = Timeline(room, columns, NOW)
    took, _ = timed(lambda: timeline.released(np.arange(RACK), NOW))
    print(f"timeline: {took:.1f}")
    for count, each, level in CLAIMS:
        ask = _ask(supply, count, each, level)
        took, spot = timed(lambda ask=ask: reserve(ask, timeline, supply.pools["h200"].free))
        start = "never" if spot is None else "unknown, drains" if spot.start is None else f"in {spot.start - NOW:.0f} s"
        print(f"reservation for {count} × {each} {level or 'anywhere'}: {took:.1f}, {start}")


def _ask(supply: Supply, count: int, each: int, level: str) -> Ask:
    sets = (PodSet("main", count, {"cpu": 1000 * each, "memory": each << 32, GPU: each}),)
    ask = supply.ask(Shape(sets, level, "", frozenset()))
    if ask is None:
        raise SystemExit("the pool offers no such resource")
    return ask


if __name__ == "__main__":
    main()
