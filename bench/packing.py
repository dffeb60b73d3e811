"""Packing quality on the Alibaba openb trace, by the protocol of "Beware of Fragmentation" (ATC 2023).

    python bench/packing.py [--lists default,...] [--seeds 42-51] [--quick]

Start empty; clones of listed pods, chosen uniformly, are appended until the demand for
devices is 1.3 x the capacity; shuffle; submit one at a time; drop what does not fit;
never delete. The figure is allocated devices / capacity, percent.

- ours: the scoring that `plan` uses (`scheduler.placement.scoring`), the mix of typical pods
  taken from the pod list as FGD does;
- learnt: the same, but the mix is what has been seen so far, worked out anew at 1, 2, 4, 8 ...
  8,192 pods; nothing is known of the list beforehand;
- FGD: FGD's worth in the same code, ties broken as ours are; ours and learnt are paired
  with it by seed, and +- is the standard error of the paired difference;
- published: FGD and BestFit of EXPECTED_SUMMARY.csv, mean of 10 seeds;
- plain: FGD's rule as published (scores in whole percents, ties to the first node) as a
  plain numpy program that scores every node for every pod, on the first seed, and how much
  faster ours is, in CPU time of the same run; --quick leaves it out.

Lists remix-1, remix-2 and remix-3 are unseen ones. They are drawn, with a fixed seed each,
from all shapes of the five lists: a shape's weight is the sum over the lists of its part of
that list times a random weight of the list (exponential), times a random factor of the
shape's own (log-normal, sigma 1), so that neither sizes, models nor shares are in the
proportions of any given list. The exponent of the worth was looked at on these three; other
numbers (`--lists remix-4,...`) make further lists that nothing was chosen by.
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
from plain_fgd import PlainFgd

from scheduler.placement.fragments import PodShape, Worth, devices_bound, typical
from scheduler.placement.packer import Packer

HERE = Path(__file__).resolve().parents[1]
TRACE = Path(os.environ.get("KEKKAI_SHARED", HERE.parent / "shared")) / "traces" / "fgd"
LISTS = ("default", "multigpu20", "gpushare40", "gpuspec33", "cpu100")
UNSEEN = ("remix-1", "remix-2", "remix-3")
PODS = 8152  # of a list
LEARN_AT = frozenset(1 << step for step in range(14))
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

    def worth(self, mix: Mapping[PodShape, float]) -> Worth:
        bound = devices_bound(mix, int(self.cpu.sum()), int(self.memory.sum()), self.capacity)
        return Worth(mix, self.kinds, reach=bound)

    def packer(self, worth: Worth) -> Packer:
        return Packer(self.cpu, self.memory, self.free, self.kind, worth, self.kinds)

    def percent(self, free: np.ndarray) -> float:
        return 100.0 * (self.capacity - int(free.sum())) / self.capacity


def pod_list(name: str) -> list[PodShape]:
    if name.startswith("remix-"):
        return remixed(int(name.removeprefix("remix-")))
    shapes = []
    for row in csv.DictReader((TRACE / f"openb_pod_list_{name}.csv").open()):
        devices, spec = int(row["num_gpu"]), row.get("gpu_spec") or ""
        milli = int(row["gpu_milli"]) if devices else 0
        kinds = frozenset(spec.split("|")) if spec else frozenset()
        shapes.append(PodShape(int(row["cpu_milli"]), int(row["memory_mib"]), devices, milli, kinds))
    return shapes


def remixed(seed: int) -> list[PodShape]:
    rng, weights = random.Random(f"remix {seed}"), Counter[PodShape]()
    for name in LISTS:
        pods, weight = pod_list(name), rng.expovariate(1.0)
        for shape, count in Counter(pods).items():
            weights[shape] += weight * count / len(pods)
    shapes = sorted(weights, key=lambda shape: shape.order)
    return rng.choices(shapes, [weights[shape] * rng.lognormvariate(0.0, 1.0) for shape in shapes], k=PODS)


def arrivals(pods: Sequence[PodShape], seed: int, capacity: int) -> list[PodShape]:
    rng, stream = random.Random(seed), list(pods)
    demand = sum(pod.devices * pod.milli for pod in stream)
    while demand < RATIO * capacity:
        pod = rng.choice(pods)
        stream.append(pod)
        demand += pod.devices * pod.milli
    rng.shuffle(stream)
    return stream


def packed(cluster: Cluster, stream: Sequence[PodShape], worth: Worth) -> float:
    packer = cluster.packer(worth)
    for pod in stream:
        packer.place(pod)
    return cluster.percent(packer.free)


def packed_learning(cluster: Cluster, stream: Sequence[PodShape]) -> float:
    seen: Counter[PodShape] = Counter()
    packer = cluster.packer(cluster.worth({}))
    for number, pod in enumerate(stream):
        if number in LEARN_AT:
            packer.learn(cluster.worth(typical(seen)))
        seen[pod] += 1
        packer.place(pod)
    return cluster.percent(packer.free)


def paired(ours: Sequence[float], others: Sequence[float]) -> str:
    gains = [a - b for a, b in zip(ours, others, strict=True)]
    error = f"{statistics.stdev(gains) / len(gains) ** 0.5:4.2f}" if len(gains) > 1 else "   ?"
    return f"{np.mean(gains):+5.2f} +-{error}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lists", default=",".join((*LISTS, *UNSEEN)))
    parser.add_argument("--seeds", default="42-51", help="first-last; the published figures are of 42-51")
    parser.add_argument("--quick", action="store_true", help="leave the plain numpy FGD out")
    args = parser.parse_args()
    first, _, last = args.seeds.partition("-")
    seeds = range(int(first), int(last or first) + 1)
    expected = {
        (row["trace"], row["policy"]): f"{float(row['alloc_at_130_mean']):.2f}"
        for row in csv.DictReader((TRACE / "EXPECTED_SUMMARY.csv").open())
    }
    cluster = Cluster()
    print(f"seeds {args.seeds}; allocated devices in percent")
    heads = ("ours", "learnt", "FGD", "ours - FGD", "learnt - FGD", "published FGD", "BestFit", "plain", "ours pods/s")
    widths = (7, 7, 7, 15, 15, 14, 8, 7, 12)
    print(f"{'list':11}" + "".join(f"{head:>{width}}" for head, width in zip(heads, widths, strict=True)) + "   faster")
    for name in args.lists.split(","):
        pods = pod_list(name)
        mix = typical(Counter(pods))
        ours, learnt, fgd, seconds, count = [], [], [], [], 0
        for seed in seeds:
            stream = arrivals(pods, seed, cluster.capacity)
            started = time.process_time()
            ours.append(packed(cluster, stream, cluster.worth(mix)))
            seconds.append(time.process_time() - started)
            count += len(stream)
            learnt.append(packed_learning(cluster, stream))
            fgd.append(packed(cluster, stream, Worth(mix, cluster.kinds, gamma=1.0, reach=False)))
        plain, faster = "-", ""
        if not args.quick:
            stream = arrivals(pods, seeds[0], cluster.capacity)
            rival = PlainFgd(cluster.cpu, cluster.memory, cluster.free, cluster.kind, mix)
            started = time.process_time()
            for pod in stream:
                rival.place(pod)
            faster = f"{(time.process_time() - started) / seconds[0]:8.1f}x"
            plain = f"{cluster.percent(rival.free):.2f}"
        cells = (
            *(f"{np.mean(figures):.2f}" for figures in (ours, learnt, fgd)),
            paired(ours, fgd),
            paired(learnt, fgd),
            expected.get((name, "FGD"), "-"),
            expected.get((name, "BestFit"), "-"),
            plain,
            f"{count / sum(seconds):,.0f}",
        )
        print(
            f"{name:11}" + "".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True)) + faster,
            flush=True,
        )


if __name__ == "__main__":
    main()
