"""Packing quality on the Alibaba openb trace, by the protocol of "Beware of Fragmentation" (ATC 2023).

    python bench/packing.py [--lists default,...] [--seeds 42-51] [--published]

Start empty; clones of listed pods, chosen uniformly, are appended until the demand for
devices is 1.3 x the capacity; shuffle; submit one at a time; drop what does not fit;
never delete. The figure is allocated devices / capacity, percent.

- ours: the production scorer, the mix taken from the pod list as FGD does;
- learnt: the same, but the mix is what has been seen so far (renewed at 64, 512 and 4,096 pods);
- FGD: FGD's scores in the same code, ties broken as ours are; paired with ours by seed;
- published: FGD and BestFit of EXPECTED_SUMMARY.csv, mean of 10 seeds;
- with --published: FGD's rule as published (scores in whole percents, ties to the first
  node) as a plain numpy program that scores every node for every pod, which is also what
  the speed is compared with.
"""

from __future__ import annotations

import argparse
import csv
import os
import random
import statistics
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from scheduler.placement.fragments import PodShape, Worth, typical
from scheduler.placement.packer import Packer

HERE = Path(__file__).resolve().parents[1]
TRACE = Path(os.environ.get("KEKKAI_SHARED", HERE.parent / "shared")) / "traces" / "fgd"
LISTS = ("default", "multigpu20", "gpushare40", "gpuspec33", "cpu100")
LEARN_AT = (64, 512, 4096)
RATIO = 1.3


class Cluster:
    """The trace's nodes."""

    def __init__(self) -> None:
        rows = list(csv.DictReader((TRACE / "openb_node_list_gpu_node.csv").open()))
        self.cpu = np.array([int(row["cpu_milli"]) for row in rows])
        self.memory = np.array([int(row["memory_mib"]) for row in rows])
        self.free = np.zeros((len(rows), 8), dtype=np.int64)
        for at, row in enumerate(rows):
            self.free[at, : int(row["gpu"])] = 1000
        self.kind = [row["model"] for row in rows]
        self.kinds = sorted(set(self.kind))
        self.capacity = int(self.free.sum())

    def packer(self, worth: Worth) -> Packer:
        return Packer(self.cpu, self.memory, self.free, self.kind, worth, self.kinds)


def pod_list(name: str) -> list[PodShape]:
    shapes = []
    for row in csv.DictReader((TRACE / f"openb_pod_list_{name}.csv").open()):
        devices, spec = int(row["num_gpu"]), row.get("gpu_spec") or ""
        milli = int(row["gpu_milli"]) if devices else 0
        kinds = frozenset(spec.split("|")) if spec else frozenset()
        shapes.append(PodShape(int(row["cpu_milli"]), int(row["memory_mib"]), devices, milli, kinds))
    return shapes


def arrivals(pods: Sequence[PodShape], seed: int, capacity: int) -> list[PodShape]:
    rng, stream = random.Random(seed), list(pods)
    demand = sum(pod.devices * pod.milli for pod in stream)
    while demand < RATIO * capacity:
        pod = rng.choice(pods)
        stream.append(pod)
        demand += pod.devices * pod.milli
    rng.shuffle(stream)
    return stream


def percent(packer: Packer, capacity: int) -> float:
    return 100.0 * (capacity - int(packer.free.sum())) / capacity


def packed(cluster: Cluster, stream: Sequence[PodShape], worth: Worth) -> float:
    packer = cluster.packer(worth)
    for pod in stream:
        packer.place(pod)
    return percent(packer, cluster.capacity)


def packed_learning(cluster: Cluster, stream: Sequence[PodShape]) -> float:
    seen: Counter[PodShape] = Counter()
    packer = cluster.packer(Worth({}, cluster.kinds))
    for number, pod in enumerate(stream):
        if number in LEARN_AT:
            packer.learn(Worth(typical(seen), cluster.kinds))
        seen[pod] += 1
        packer.place(pod)
    return percent(packer, cluster.capacity)


def packed_as_published(cluster: Cluster, stream: Sequence[PodShape], mix: Mapping[PodShape, float]) -> float:
    """FGD in plain numpy: every node is scored for every pod."""
    cpu, memory, free = cluster.cpu.copy(), cluster.memory.copy(), cluster.free.copy()
    kind = np.array([cluster.kinds.index(one) for one in cluster.kind])
    part = np.array(list(mix.values()))
    t_cpu, t_memory = np.array([pod.cpu for pod in mix]), np.array([pod.memory for pod in mix])
    t_devices, t_milli = np.array([pod.devices for pod in mix]), np.array([pod.milli for pod in mix])
    t_suits = np.array([[not pod.kinds or one in pod.kinds for pod in mix] for one in cluster.kinds])

    def fragment(rows: np.ndarray, c: np.ndarray, m: np.ndarray, f: np.ndarray) -> np.ndarray:
        fits = (f[:, :, None] >= np.maximum(t_milli, 1)) & (t_milli > 0)
        can = (c[:, None] >= t_cpu) & (m[:, None] >= t_memory) & (fits.sum(1) >= t_devices) & (t_devices > 0)
        can &= t_suits[kind[rows]]
        lost = np.where(can, (f[:, :, None] * ~fits).sum(1), f.sum(1)[:, None])
        return (lost * part).sum(1)

    def score(before: np.ndarray, after: np.ndarray) -> np.ndarray:
        return np.floor(100 / (1 + np.exp(-(before - after) / 1000)))

    for pod in stream:
        fits = (cpu >= pod.cpu) & (memory >= pod.memory)
        if pod.kinds:
            fits &= np.array([one in pod.kinds for one in cluster.kinds])[kind]
        if pod.devices:
            fits &= (free >= pod.milli).sum(1) >= pod.devices
        rows = np.flatnonzero(fits)
        if rows.size == 0:
            continue
        before = fragment(rows, cpu[rows], memory[rows], free[rows])
        c, m, share = cpu[rows] - pod.cpu, memory[rows] - pod.memory, 0 < pod.milli < 1000
        best, device = np.full(rows.size, -1.0), np.zeros(rows.size, dtype=np.int64)
        for one in range(free.shape[1]) if share else (0,):
            f = free[rows].copy()
            if share:
                possible = f[:, one] >= pod.milli
                f[possible, one] -= pod.milli
            else:
                possible = np.ones(rows.size, dtype=bool)
                whole = f == 1000
                f[whole & (np.cumsum(whole, axis=1) <= pod.devices)] = 0
            scores = np.where(possible, score(before, fragment(rows, c, m, f)), -1.0)
            device[scores > best] = one
            best = np.maximum(best, scores)
        at = int(np.argmax(best))
        row = int(rows[at])
        cpu[row] -= pod.cpu
        memory[row] -= pod.memory
        if share:
            free[row, device[at]] -= pod.milli
        elif pod.devices:
            free[row, np.flatnonzero(free[row] == 1000)[: pod.devices]] = 0
    return 100.0 * (cluster.capacity - int(free.sum())) / cluster.capacity


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lists", default=",".join(LISTS))
    parser.add_argument("--seeds", default="42-44", help="first-last; the published figures are of 42-51")
    parser.add_argument("--published", action="store_true", help="run the plain numpy FGD too, on the first seed")
    args = parser.parse_args()
    first, _, last = args.seeds.partition("-")
    seeds = range(int(first), int(last or first) + 1)
    expected = {
        (row["trace"], row["policy"]): float(row["alloc_at_130_mean"])
        for row in csv.DictReader((TRACE / "EXPECTED_SUMMARY.csv").open())
    }
    cluster = Cluster()
    print(f"seeds {args.seeds}; allocated devices in percent; +- is the standard error of the paired difference")
    heads = (("ours", 8), ("learnt", 8), ("FGD", 8), ("ours - FGD", 16), ("published FGD", 15), ("BestFit", 9))
    print(f"{'list':12}" + "".join(f"{head:>{width}}" for head, width in (*heads, ("pods/s", 8))))
    for name in args.lists.split(","):
        pods = pod_list(name)
        mix = typical(Counter(pods))
        ours, learnt, fgd, seconds, count = [], [], [], 0.0, 0
        for seed in seeds:
            stream = arrivals(pods, seed, cluster.capacity)
            started = time.process_time()
            ours.append(packed(cluster, stream, Worth(mix, cluster.kinds)))
            seconds, count = seconds + time.process_time() - started, count + len(stream)
            learnt.append(packed_learning(cluster, stream))
            fgd.append(packed(cluster, stream, Worth(mix, cluster.kinds, gamma=1.0, reach=False)))
        gains = [a - b for a, b in zip(ours, fgd, strict=True)]
        error = statistics.stdev(gains) / len(gains) ** 0.5 if len(gains) > 1 else float("nan")
        print(
            f"{name:12}{np.mean(ours):8.2f}{np.mean(learnt):8.2f}{np.mean(fgd):8.2f}"
            f"{np.mean(gains):+9.2f} +-{error:4.2f}{expected[name, 'FGD']:15.2f}{expected[name, 'BestFit']:9.2f}"
            f"{count / seconds:8,.0f}",
            flush=True,
        )
        if args.published:
            stream = arrivals(pods, seeds[0], cluster.capacity)
            started = time.process_time()
            figure = packed_as_published(cluster, stream, mix)
            plain = time.process_time() - started
            print(
                f"{'':12}FGD as published, plain numpy, seed {seeds[0]}: {figure:.2f} % at {len(stream) / plain:,.0f} "
                f"pods/s; ours is {plain / (seconds / len(seeds)):.1f} x faster"
            )


if __name__ == "__main__":
    main()
