"""Running workloads as struct-of-arrays, kept up to date in time proportional to what changed.

A workload is one slot. What it holds is entries (slot, part, node, request, count), with
part BASE for the pods that it needs to run at all and EXTRA for those that an elastic
gang could give up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from scheduler.running.elasticity import extra_pods

if TYPE_CHECKING:  # the fleet keeps a `Running`, so that its package comes first
    from scheduler.fleet.state import WorkloadState

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
Request = tuple[tuple[str, int], ...]  # (resource, amount) of one pod, sorted; `pods` included

BASE, EXTRA = 0, 1
_PODS = "pods"


@dataclass(frozen=True, slots=True)
class Columns:
    """A view of what runs now; true until the next change. Slots that are not `live` are holes.

    By slot: `live`, `priority`, `admitted_at`, `checkpointed_at`, `max_runtime`, `preemptible`,
    `tenant` and `accelerator` (codes into the name lists), `devices` and `pods` of shape
    (slots, 2) by part. By entry: `slot` (-1: a hole), `part`, `node`, `request` (codes), `count`.
    """

    workloads: list[WorkloadState | None]
    live: Mask
    priority: Ints
    admitted_at: Floats
    checkpointed_at: Floats
    max_runtime: Floats
    preemptible: Mask
    tenant: Ints
    accelerator: Ints
    devices: Ints
    pods: Ints
    slot: Ints
    part: Ints
    node: Ints
    request: Ints
    count: Ints
    tenants: list[str]
    accelerators: list[str]
    nodes: Mapping[str, int]  # name → code
    requests: list[Request]
    placed: dict[str, tuple[list[str], Ints]]  # what `positions` keeps

    def positions(self, pool: str, names: Sequence[str]) -> Ints:
        """By code of a node, and -1 at the end for holes: where it stands among `names`, which are sorted; else -1.

        Kept per pool for as long as the names stay the same.
        """
        known = self.placed.get(pool)
        codes = len(self.nodes)
        if known is None or known[0] != names:
            known = (list(names), np.zeros(0, dtype=np.int64))
        rows = known[1]
        if rows.size < codes:
            where = {name: at for at, name in enumerate(known[0])}
            fresh = list(islice(self.nodes, rows.size, codes))
            rows = np.concatenate([rows, np.array([where.get(name, -1) for name in fresh], dtype=np.int64)])
        self.placed[pool] = (known[0], rows)
        return np.append(rows, -1)

    def whole(self) -> Columns:
        """The same with no pod that could be given up alone, for when gangs are not shrunk."""
        devices, pods = np.zeros_like(self.devices), np.zeros_like(self.pods)
        devices[:, BASE], pods[:, BASE] = self.devices.sum(axis=1), self.pods.sum(axis=1)
        return replace(self, devices=devices, pods=pods, part=np.full_like(self.part, BASE))

    def key(self, slot: int) -> str:
        """The key of the workload of a live slot."""
        workload = self.workloads[slot]
        if workload is None:
            raise KeyError(f"slot {slot} is a hole")
        return workload.key


class Running:
    """The running workloads. One owner puts and drops them between plans."""

    def __init__(self, devices_of: Callable[[Mapping[str, int]], int]) -> None:
        """`devices_of`: how many devices a pod's requests ask for; what it says must not change later."""
        self._devices_of = devices_of
        self._slot_of: dict[str, int] = {}
        self._holes: list[int] = []
        self._workloads: list[WorkloadState | None] = []
        self._scalars: Floats = np.zeros((16, 8))  # priority … accelerator, in the order of `Columns`
        self._amounts: Ints = np.zeros((16, 4), dtype=np.int64)  # devices by part, pods by part
        self._entries: Ints = np.full((64, 5), -1, dtype=np.int64)
        self._spans: dict[int, tuple[int, int]] = {}  # slot → its entries
        self._end = self._dead = 0  # of the entries
        self._tenants, self._accelerators, self._nodes = _Codes(), _Codes(), _Codes()
        self._requests: dict[Request, int] = {}
        self._placed: dict[str, tuple[list[str], Ints]] = {}
        self._known: Columns | None = None

    def __len__(self) -> int:
        return len(self._slot_of)

    def put(self, workload: WorkloadState) -> None:
        """Take in a workload as it is now; one that does not run is dropped."""
        self.drop(workload.key)
        if not workload.admitted or workload.finished or not workload.placements:
            return
        slot = self._holes.pop() if self._holes else len(self._workloads)
        if slot == len(self._workloads):
            self._workloads.append(None)
            if slot >= self._scalars.shape[0]:
                self._scalars = np.concatenate([self._scalars, np.zeros_like(self._scalars)])
                self._amounts = np.concatenate([self._amounts, np.zeros_like(self._amounts)])
        self._slot_of[workload.key], self._workloads[slot] = slot, workload
        self._scalars[slot] = (
            1.0,
            workload.priority,
            workload.admitted_at,
            workload.checkpointed_at,
            workload.max_runtime,
            workload.preemptible,
            self._tenants.of(workload.tenant),
            self._accelerators.of(workload.accelerator),
        )
        self._enter(slot, workload)
        self._known = None

    def drop(self, key: str) -> None:
        """The workload does not run any more. Unknown keys are ignored."""
        slot = self._slot_of.pop(key, None)
        if slot is None:
            return
        self._workloads[slot] = None
        self._scalars[slot] = 0.0
        self._amounts[slot] = 0
        start, end = self._spans.pop(slot)
        self._entries[start:end, 0] = -1
        self._dead += end - start
        self._holes.append(slot)
        self._known = None
        if self._dead > 1024 and 2 * self._dead > self._end:
            self._compact()

    def columns(self) -> Columns:
        """What runs now. Arrays are shared: not to be changed."""
        if self._known is None:
            size = len(self._workloads)
            scalars, entries = self._scalars[:size].copy(), self._entries[: self._end].T.copy()
            amounts, whole = self._amounts[:size].copy(), scalars[:, [1, 6, 7]].astype(np.int64)
            self._known = Columns(
                list(self._workloads),
                scalars[:, 0] > 0,
                whole[:, 0],
                scalars[:, 2],
                scalars[:, 3],
                scalars[:, 4],
                scalars[:, 5] > 0,
                whole[:, 1],
                whole[:, 2],
                amounts[:, :2],
                amounts[:, 2:],
                entries[0],
                entries[1],
                entries[2],
                entries[3],
                entries[4],
                self._tenants.names,
                self._accelerators.names,
                self._nodes.codes,
                list(self._requests),
                self._placed,
            )
        return self._known

    def _enter(self, slot: int, workload: WorkloadState) -> None:
        extra = extra_pods(workload)
        sets = {one.name: one for one in workload.pod_sets}
        rows = []
        for (name, node), held in _together(workload.placements).items():
            pod_set = sets.get(name)
            if pod_set is None:
                continue
            devices = self._devices_of(pod_set.requests) if pod_set.milli >= 1000 else 0
            request = self._request(pod_set.requests, pod_set.milli)
            spare = extra.get((name, node), 0)
            for part, count in ((BASE, held - spare), (EXTRA, spare)):
                if count > 0:
                    rows.append((slot, part, self._nodes.of(node), request, count))
                    self._amounts[slot, part] += devices * count
                    self._amounts[slot, 2 + part] += count
        end = self._end + len(rows)
        while end > self._entries.shape[0]:
            self._entries = np.concatenate([self._entries, np.full_like(self._entries, -1)])
        if rows:
            self._entries[self._end : end] = rows
        self._spans[slot] = (self._end, end)
        self._end = end

    def _request(self, requests: Mapping[str, int], milli: int) -> int:
        # A share's devices are not whole ones that come free: only CPU, memory and the pod count.
        amounts = {name: amount for name, amount in requests.items() if amount and (milli >= 1000 or "/" not in name)}
        amounts[_PODS] = amounts.get(_PODS, 0) + 1
        return self._requests.setdefault(tuple(sorted(amounts.items())), len(self._requests))

    def _compact(self) -> None:
        spans, parts, end = {}, [], 0
        for slot, (start, stop) in self._spans.items():
            parts.append(self._entries[start:stop])
            spans[slot] = (end, end + stop - start)
            end += stop - start
        kept = np.concatenate(parts) if parts else np.zeros((0, 5), dtype=np.int64)
        self._entries = np.concatenate([kept, np.full((max(end, 64), 5), -1, dtype=np.int64)])
        self._spans, self._end, self._dead = spans, end, 0


class _Codes:
    """Names as small integers, in the order in which they came."""

    def __init__(self) -> None:
        self.codes: dict[str, int] = {}
        self.names: list[str] = []

    def of(self, name: str) -> int:
        code = self.codes.get(name)
        if code is None:
            code = self.codes[name] = len(self.names)
            self.names.append(name)
        return code


def _together(placements: tuple[tuple[str, str, int], ...]) -> dict[tuple[str, str], int]:
    held: dict[tuple[str, str], int] = {}
    for name, node, count in placements:
        held[name, node] = held.get((name, node), 0) + count
    return held
