"""The mix of pods that scores are made for: what a fleet has seen, as shapes of single pods."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping

from crds.labels import ACCELERATOR
from scheduler.fleet import PodSet
from scheduler.fleet.shape import Shape
from scheduler.placement.fragments import MILLI, PodShape


def pod_shape(pod_set: PodSet, devices: int, classes: Iterable[str] = ()) -> PodShape | None:
    """One pod of the set. None for what cannot be: shares of several devices, amounts below 0, milli out of range.

    `devices`: what it asks for, by `Fleet.devices_of`; `classes`: accelerators that suit, any when empty.
    """
    wanted = pod_set.node_selector.get(ACCELERATOR)
    kinds = frozenset((wanted,)) if wanted else frozenset(classes)
    cpu, memory = pod_set.requests.get("cpu", 0), pod_set.requests.get("memory", 0)
    try:
        return PodShape(cpu, memory, devices, min(pod_set.milli, MILLI) if devices else 0, kinds)
    except ValueError:
        return None


def seen_in(shapes: Iterable[tuple[Shape, int]], devices_of: Callable[[Mapping[str, int]], int]) -> Counter[PodShape]:
    """Pods by shape, of workloads by shape: how many workloads have each."""
    seen: Counter[PodShape] = Counter()
    for shape, workloads in shapes:
        for pod_set in shape.pod_sets:
            one = pod_shape(pod_set, devices_of(pod_set.requests), (name for name, _ in shape.flavors))
            if one is not None:
                seen[one] += pod_set.count * workloads
    return seen
