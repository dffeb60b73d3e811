"""Ill and expired machines: what is seen becomes reports, and the steps that are decided are taken.

The decision is `scheduler.autoscale.repair`. Machines that have not become ready are the
life cycle's own care (see `lifecycle`); here are those that were ready once.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from prometheus_client import Counter, Gauge

from crds.conditions import INITIALIZED, is_true, timestamp
from crds.labels import DO_NOT_DISRUPT, DRAIN_TAINT, DRAINING_SINCE, MANAGER_POOLS, POOL, REPAIR, XIDS
from operators.pools.drain import to_leave
from operators.pools.registration import node_of
from operators.runtime import RESOURCES, Cluster, Key, Stores, Touches, WorkQueue
from scheduler.autoscale.repair import ConditionSeen, NodeReport, Repair, RepairPolicy, XidSeen, repairs
from scheduler.objects.fleet_objects import device_count, is_going, seconds

Object = Mapping[str, Any]
log = logging.getLogger(__name__)
STEPS = Counter("kekkai_machine_repairs_total", "Steps of repair.", ["pool", "step", "reason"])
ILL = Gauge("kekkai_pool_ill_machines", "Machines that are ill.", ["pool"])
HELD = Gauge("kekkai_pool_repairs_held", "1 while so many are ill that repairs are stopped.", ["pool"])
_PACE = 1.0  # seconds between two looks at one pool, at least
_DRAIN_AGAIN = 2.0  # seconds


@dataclass(slots=True)
class RepairBoard:
    """What a pool's status says of repairs."""

    held: dict[str, str] = field(default_factory=dict)  # pool → why
    ill: dict[str, int] = field(default_factory=dict)
    changed: Callable[[str], None] = lambda pool: None

    def write(self, pool: str, why: str, ill: int) -> None:
        old = (self.held.get(pool, ""), self.ill.get(pool, 0))
        self.held.pop(pool, None)
        self.ill.pop(pool, None)
        if why:
            self.held[pool] = why
        if ill:
            self.ill[pool] = ill
        if old != (why, ill):
            self.changed(pool)


class RepairController:
    """Visits pools."""

    name = "repair"
    workers = 2

    def __init__(
        self, cluster: Cluster, stores: Stores, board: RepairBoard, clock: Callable[[], float] = time.time
    ) -> None:
        self.cluster = cluster
        self.stores = stores
        self.board = board
        self.machines, self.pools = stores.watch("Machine"), stores.watch("AcceleratorPool")
        self.nodes, self.pods = stores.watch("Node"), stores.watch("Pod")
        self._of_pool = self.machines.index("pool", lambda machine: (machine["spec"]["pool"],))
        self._on_node = self.pods.index("node", _node_of_pod)
        self._clock = clock
        self._missing: dict[str, float] = {}  # machine → since when devices are missing
        self._looked: dict[str, float] = {}
        self._queue: WorkQueue[Key] | None = None
        self.watches: Mapping[str, Touches] = {
            "AcceleratorPool": lambda obj: (("", obj["metadata"]["name"]),),
            "Node": _pool_of_node,
        }

    def attach(self, queue: WorkQueue[Key]) -> None:
        self._queue = queue

    async def reconcile(self, key: Key) -> float | None:
        name, now = key[1], self._clock()
        pool = self.pools.get(name)
        if pool is None:
            self.board.write(name, "", 0)
            self._looked.pop(name, None)
            return None
        pause = self._looked.get(name, now - _PACE) + _PACE - now
        if pause > 0:
            return pause
        self._looked[name] = now
        reports = [self._report(pool, machine) for machine in self._of_pool.get(name) if is_true(machine, INITIALIZED)]
        found = repairs(reports, {name: policy_of(pool)}, now)
        why = found.held.get(name, "")
        self.board.write(name, why, found.ill.get(name, 0))
        ILL.labels(name).set(found.ill.get(name, 0))
        HELD.labels(name).set(1 if why else 0)
        for step in found.steps:
            await self._take(step)
        draining = await self._go_on_draining(reports)
        wakes = [at - now for at in (found.next_wake,) if at is not None]
        if draining or any(step.step in ("cordon", "drain") for step in found.steps):
            wakes.append(_DRAIN_AGAIN)
        return max(min(wakes), _PACE) if wakes else None

    def _report(self, pool: Object, machine: Object) -> NodeReport:
        name = machine["metadata"]["name"]
        node = node_of(self.stores, (machine.get("status") or {}).get("providerID") or "")
        if node is None:
            self._missing.pop(name, None)
            return NodeReport(
                name,
                pool["metadata"]["name"],
                created_at=seconds(machine["metadata"].get("creationTimestamp")),
                initialized=True,
                going=is_going(machine),
            )
        devices = pool["spec"]["accelerator"]["perNode"]
        missing = max(devices - device_count(pool, node), 0)
        if missing:
            self._missing.setdefault(name, self._clock())
        else:
            self._missing.pop(name, None)
        marks = node["metadata"].get("annotations") or {}
        pods = self._on_node.get(node["metadata"]["name"])
        leaving = to_leave(pods)
        return NodeReport(
            machine=name,
            pool=pool["metadata"]["name"],
            node=node["metadata"]["name"],
            created_at=seconds(machine["metadata"].get("creationTimestamp")),
            initialized=True,
            conditions=tuple(
                ConditionSeen(one["type"], one["status"], seconds(one.get("lastTransitionTime")))
                for one in (node.get("status") or {}).get("conditions") or ()
            ),
            xids=read_xids(marks.get(XIDS, "")),
            devices=devices,
            devices_missing=missing,
            missing_since=self._missing.get(name, 0.0),
            cordoned=REPAIR in marks,
            draining_since=seconds(marks.get(DRAINING_SINCE)),
            drained=REPAIR in marks and not leaving,
            going=is_going(machine),
            busy=bool(leaving),
            do_not_disrupt=any(_kept(one) for one in (node, *leaving)),
            held=_held(node),
        )

    async def _take(self, repair: Repair) -> None:
        log.info("machine %s: %s, since %s: %s", repair.machine, repair.step, repair.reason, repair.message)
        if repair.step == "replace":
            machine = self.machines.get(repair.machine)
            if machine is not None and not is_going(machine):
                await self.cluster.delete(RESOURCES["Machine"], repair.machine, uid=machine["metadata"]["uid"])
        else:
            await self._mark(repair)
        STEPS.labels(repair.pool, repair.step, repair.reason).inc()

    async def _mark(self, repair: Repair) -> None:
        node = self.nodes.get(repair.node)
        if node is None:
            return
        why = f"{repair.reason}: {repair.message}"[:1024]
        now = timestamp(datetime.fromtimestamp(self._clock(), UTC))
        annotations: dict[str, dict[str, str | None]] = {
            "cordon": {REPAIR: why},
            "drain": {REPAIR: why, DRAINING_SINCE: now},
            "release": {REPAIR: None, DRAINING_SINCE: None},
        }
        change = {
            "metadata": {
                "resourceVersion": node["metadata"]["resourceVersion"],
                "annotations": annotations[repair.step],
            },
            "spec": {"unschedulable": True if repair.step != "release" else None},
        }
        fresh = await self.cluster.merge_patch(RESOURCES["Node"], repair.node, change, MANAGER_POOLS)
        self.stores.observe(fresh)

    async def _go_on_draining(self, reports: Iterable[NodeReport]) -> bool:
        """Evict what is still on nodes whose drain has begun; budgets may say not now. True while some remain."""
        left = False
        for report in reports:
            node = self.nodes.get(report.node)
            if node is None or report.going or DRAINING_SINCE not in (node["metadata"].get("annotations") or {}):
                continue
            for pod in to_leave(self._on_node.get(report.node)):
                left = True
                if not pod["metadata"].get("deletionTimestamp"):
                    await self.cluster.evict(pod["metadata"]["namespace"], pod["metadata"]["name"])
        return left


def policy_of(pool: Object) -> RepairPolicy:
    """The patience that a pool's spec.repair asks for."""
    spec = pool["spec"].get("repair") or {}
    usual = RepairPolicy()
    return RepairPolicy(
        enabled=spec.get("enabled", True),
        join_timeout=float(spec.get("joinTimeoutSeconds", usual.join_timeout)),
        not_ready=float(spec.get("notReadySeconds", usual.not_ready)),
        conditions={one["type"]: float(one.get("patienceSeconds", 600)) for one in spec.get("conditions") or ()},
        devices_missing=float(spec.get("devicesMissingSeconds", usual.devices_missing)),
        expire_after=float(spec.get("expireAfterSeconds", usual.expire_after)),
        drain_timeout=float(spec.get("drainTimeoutSeconds", usual.drain_timeout)),
        breaker=float(spec.get("breakerPercent", 20)) / 100.0,
    )


def read_xids(text: str) -> tuple[XidSeen, ...]:
    """What a node's agent wrote: `code[/device]@time`, comma separated. What is malformed is skipped."""
    out = []
    for part in text.split(","):
        what, _, at = part.strip().partition("@")
        code, _, device = what.partition("/")
        try:
            out.append(XidSeen(int(code), seconds(at), device))
        except ValueError:
            continue
    return tuple(out)


def _held(node: Object) -> bool:
    """Whether somebody other than us keeps it cordoned."""
    spec, marks = node.get("spec") or {}, node["metadata"].get("annotations") or {}
    ours = REPAIR in marks or any(taint["key"] == DRAIN_TAINT for taint in spec.get("taints") or ())
    return bool(spec.get("unschedulable")) and not ours


def _kept(obj: Object) -> bool:
    return (obj["metadata"].get("annotations") or {}).get(DO_NOT_DISRUPT) == "true"


def _pool_of_node(node: Object) -> tuple[Key, ...]:
    name = (node["metadata"].get("labels") or {}).get(POOL)
    return (("", name),) if name else ()


def _node_of_pod(pod: Object) -> tuple[str, ...]:
    name = (pod.get("spec") or {}).get("nodeName")
    return (name,) if name else ()
