"""Placement alone, scored in full: pods a second on the rows of one pool.

    python bench/placement_speed.py [--nodes 10000] [--pods 4000] [--seed 7]

Whole-device pods of 40 shapes that are drawn with the seed, on nodes that are all empty
("alike") and on nodes where others hold different amounts ("different", no two the same).

- one by one: single pods, their shapes mixed at random;
- like pods: single pods of one shape, one after the other;
- batch: gangs of 400, each of one shape, that do not ask for topology;
- anew: the same scores worked out on every row for every pod, nothing kept: what the
  others are compared with.

CPU time of this process; the making of the scratch supply is not counted, the first look
at each shape is.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable, Sequence

import numpy as np

from scheduler import BoundPod, Fleet, NodeState, PodSet, PoolState
from scheduler.fleet.shape import Shape
from scheduler.placement.ask import Ask
from scheduler.placement.fragments import PodShape
from scheduler.placement.pool_supply import PoolSupply
from scheduler.placement.ranking import Ranking
from scheduler.placement.supply import Supply

GPU = "nvidia.com/gpu"
NODE = {"cpu": 192_000, "memory": 2 << 40, "pods": 110, GPU: 8}


def fleet_of(nodes: int, different: bool, rng: random.Random) -> Fleet:
    made = Fleet()
    made.upsert_pool(PoolState("h200", "tokyo", "JP", "H200", GPU, 8, NODE, 0, nodes))
    for index in range(nodes):
        name = f"h200-{index:05}"
        made.upsert_node(NodeState(name, "h200", accelerator="H200", allocatable=NODE))
        if different:
            taken = {"cpu": rng.randrange(100_000), "memory": rng.randrange(1 << 40), GPU: rng.randrange(6)}
            made.upsert_pod(BoundPod(f"other/{index}", name, taken))
    return made


def shapes_of(rng: random.Random, count: int = 40) -> list[PodShape]:
    devices = [rng.choice([1, 1, 1, 2, 4, 8]) for _ in range(count)]
    return [
        PodShape(rng.choice([2000, 4000, 8000, 12_000]) * one, rng.choice([8, 16, 32, 64]) << 30, one, 1000)
        for one in devices
    ]


def ask_of(supply: Supply, shape: PodShape, count: int = 1) -> Ask:
    requests = {"cpu": shape.cpu, "memory": shape.memory, GPU: shape.devices}
    ask = supply.ask(Shape((PodSet("main", count, requests),), "", "", frozenset()))
    if ask is None:
        raise ValueError("the pool does not offer what the bench asks for")
    return ask


def rate(have: PoolSupply, asks: Sequence[Ask], place: Callable[[Ask], object]) -> float:
    started = time.process_time()
    placed = sum(ask.pods[0].count for ask in asks if place(ask) is not None)
    return placed / (time.process_time() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=10_000)
    parser.add_argument("--pods", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=7)
    args = parser.parse_args()
    print(f"{args.nodes:,} nodes; pods/s of CPU time, and how many times those of anew")
    print(f"{'nodes':10}{'anew':>10}{'one by one':>20}{'like pods':>20}{'batch':>20}")
    for title in ("alike", "different"):
        rng = random.Random(args.seed)
        made, shapes = fleet_of(args.nodes, title == "different", rng), shapes_of(rng)
        seen = {shape: rng.randrange(1, 100) for shape in dict.fromkeys(shapes)}

        def fresh(made: Fleet = made, seen: dict[PodShape, int] = seen) -> tuple[Supply, PoolSupply]:
            supply = Supply(made, seen)
            return supply, supply.pools["h200"]

        supply, have = fresh()
        columns = made.table.columns

        def anew(ask: Ask, supply: Supply = supply, have: PoolSupply = have, columns: dict[str, int] = columns) -> int:
            ranking = Ranking(have, columns["cpu"], columns["memory"], supply._worth, 0)
            row = int(np.argmin(ranking.look(ask.pods[0]).score))
            have.take(ask.pods[0], row, 1)
            return row

        base = rate(have, [ask_of(supply, rng.choice(shapes)) for _ in range(40)], anew)
        rates = []
        for kind in ("one by one", "like pods", "batch"):
            supply, have = fresh()
            if kind == "batch":
                asks = [ask_of(supply, shapes[at % len(shapes)], 400) for at in range(max(args.pods // 400, 1))]
            else:
                drawn = [ask_of(supply, shape) for shape in shapes]
                asks = [rng.choice(drawn) if kind == "one by one" else drawn[0] for _ in range(args.pods)]
            rates.append(rate(have, asks, lambda ask, have=have: have.place(ask, have.ready)))
        print(f"{title:10}{base:10,.0f}" + "".join(f"{one:12,.0f} {one / base:6.0f}x" for one in rates), flush=True)


if __name__ == "__main__":
    main()
