"""Nodes that are ill or too old: cordon, drain, replace, at a pace that no false alarm can turn into an outage.

Level-triggered: from what is seen now to the one next step of each machine. Applied again
and again, the steps lead from cordon to drain to replace; a machine that has recovered
before its drain began is released.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

Step = Literal["cordon", "release", "drain", "replace"]

# Xid codes as NVIDIA's catalogue has them. Those of applications (13, 31, 43, 45, 68 …) tell nothing of the device.
BROKEN_XIDS = frozenset({48, 62, 64, 74, 79, 95, 119, 120, 140})  # the device is of no use until it is reset or changed
WORN_XIDS = frozenset({63, 92, 94})  # contained: what runs may end, then the device wants a reset


@dataclass(frozen=True, slots=True)
class ConditionSeen:
    """A condition of a Node (core/v1), and since when it has that status (seconds since the epoch)."""

    kind: str
    status: str  # True, False, Unknown
    since: float


@dataclass(frozen=True, slots=True)
class XidSeen:
    """An Xid error that a device reported, seconds since the epoch."""

    code: int
    at: float
    device: str = ""


@dataclass(frozen=True, slots=True)
class NodeReport:
    """A machine of ours and its node, as seen now. Times are seconds since the epoch."""

    machine: str
    pool: str
    node: str = ""  # empty: it has not joined
    created_at: float = 0.0  # of the Machine
    initialized: bool = False  # it was ready with all its devices once; before that, launching is not done
    conditions: tuple[ConditionSeen, ...] = ()
    xids: tuple[XidSeen, ...] = ()  # since the node's last boot
    devices: int = 0  # whole devices it should have
    devices_missing: int = 0  # how many of these its kubelet does not offer now
    missing_since: float = 0.0
    cordoned: bool = False  # by a repair: cordoned by a person says `held`
    draining_since: float = 0.0  # 0: no drain has begun
    drained: bool = False  # nothing runs on it any more but DaemonSets' pods
    going: bool = False  # its Machine is being deleted
    busy: bool = False  # a workload holds room on it
    do_not_disrupt: bool = False  # it, or a pod on it, carries the annotation
    held: bool = False  # a person keeps it cordoned: it is left alone


@dataclass(frozen=True, slots=True)
class RepairPolicy:
    """How patient a pool is. Durations in seconds."""

    enabled: bool = True
    join_timeout: float = 1800.0  # from the Machine's creation until it must be initialized
    not_ready: float = 600.0  # Ready is False or Unknown
    conditions: Mapping[str, float] = field(default_factory=dict)  # further conditions that mean ill when True
    devices_missing: float = 600.0
    expire_after: float = 0.0  # age at which a machine is replaced; 0: never
    drain_timeout: float = 3600.0  # then what is still there is stopped with the machine; 0: waits for ever
    breaker: float = 0.2  # share of the pool's machines that may be ill while repairs go on
    at_once: int = 1  # expired machines that may be on their way out at one time


@dataclass(frozen=True, slots=True)
class Repair:
    """One step for one machine. Applying it twice does nothing more."""

    machine: str
    node: str
    pool: str
    step: Step
    reason: str  # CamelCase code, for conditions and metrics
    message: str


@dataclass(frozen=True, slots=True)
class Repairs:
    """What to do now, which pools' repairs are held by the breaker and why, and when to look again."""

    steps: tuple[Repair, ...]
    held: Mapping[str, str]  # pool → why
    ill: Mapping[str, int]  # pool → ill machines, for metrics; only pools that have some
    next_wake: float | None  # seconds since the epoch


@dataclass(frozen=True, slots=True)
class _Illness:
    reason: str
    message: str
    due: float  # when patience ends
    gentle: bool = False  # what runs may end first


def repairs(reports: Sequence[NodeReport], policies: Mapping[str, RepairPolicy], now: float) -> Repairs:
    """The next step of every machine that needs one, in the order of machine names.

    `policies`: by pool; pools without one have the defaults. Steps: `cordon` (no more pods;
    what runs goes on), `drain` (by the Eviction API), `replace` (delete the Machine; the
    next plan buys another where there is demand), `release` (uncordon: it is well again).
    A pool in which more than `breaker` of the machines that had joined are ill, two at least,
    gets no step for these: that is rather a fault of what watches them. Machines that never
    joined are replaced all the same, since nobody runs there.
    """
    by_pool: dict[str, list[NodeReport]] = defaultdict(list)
    for report in sorted(reports, key=lambda one: one.machine):
        by_pool[report.pool].append(report)
    steps: list[Repair] = []
    held: dict[str, str] = {}
    ill: dict[str, int] = {}
    wakes: list[float] = []
    for pool in sorted(by_pool):
        policy = policies.get(pool, RepairPolicy())
        if not policy.enabled:
            continue
        members = by_pool[pool]
        found = {one.machine: _illness(one, policy, now) for one in members}
        wakes.extend(one.due for one in found.values() if one is not None and one.due > now)
        due = {name: one for name, one in found.items() if one is not None and one.due <= now}
        if due:
            ill[pool] = len(due)
        joined = [one.machine for one in members if one.initialized]
        sick = sum(1 for name in joined if name in due)
        if sick > 1 and sick > policy.breaker * len(joined):
            held[pool] = f"{sick} of {len(joined)} machines are ill, more than {policy.breaker:.0%}: look at the pool"
        for report in members:
            if report.held or report.going:
                continue
            illness = due.get(report.machine)
            if illness is not None and not (report.initialized and pool in held):
                steps.extend(_step(report, illness, policy, now, wakes))
            elif found[report.machine] is None and _may_be_released(report, policy, now):
                steps.append(_repair(report, "release", "Recovered", "it is well again"))
        if pool not in held:
            steps.extend(_expiries(members, due, policy, now, wakes))
    next_wake = min((at for at in wakes if at > now), default=None)
    return Repairs(tuple(sorted(steps, key=lambda one: one.machine)), held, ill, next_wake)


def _illness(report: NodeReport, policy: RepairPolicy, now: float) -> _Illness | None:
    """The worst that is wrong with it: of what is due, what may not wait for those that run there."""
    found = sorted(_illnesses(report, policy), key=lambda one: (one.due > now, one.gentle, one.due, one.reason))
    return found[0] if found else None


def _illnesses(report: NodeReport, policy: RepairPolicy) -> Iterable[_Illness]:
    if not report.initialized:
        due = report.created_at + policy.join_timeout
        yield _Illness("NeverJoined", f"not ready {policy.join_timeout:.0f} s after it was asked for", due)
        return
    for one in report.conditions:
        if one.kind == "Ready":
            if one.status != "True":
                yield _Illness("NotReady", f"Ready is {one.status}", one.since + policy.not_ready)
        elif one.kind in policy.conditions and one.status == "True":
            yield _Illness(one.kind, f"the condition {one.kind} is True", one.since + policy.conditions[one.kind])
    for xid in report.xids:
        where = f" on {xid.device}" if xid.device else ""
        if xid.code in BROKEN_XIDS:
            yield _Illness("DeviceBroken", f"Xid {xid.code}{where}", xid.at)
        elif xid.code in WORN_XIDS:
            yield _Illness("DeviceWorn", f"Xid {xid.code}{where}", xid.at, gentle=True)
    if report.devices_missing:
        message = f"{report.devices_missing} of {report.devices} devices are missing"
        yield _Illness("DevicesMissing", message, report.missing_since + policy.devices_missing)


def _step(
    report: NodeReport, illness: _Illness, policy: RepairPolicy, now: float, wakes: list[float]
) -> Iterable[Repair]:
    if not report.node:
        yield _repair(report, "replace", illness.reason, illness.message)
    elif not report.cordoned:
        yield _repair(report, "cordon", illness.reason, illness.message)
    elif report.drained:
        yield _repair(report, "replace", illness.reason, illness.message)
    elif illness.gentle and report.busy:
        return
    elif not report.draining_since:
        if not report.do_not_disrupt:
            yield _repair(report, "drain", illness.reason, illness.message)
    elif policy.drain_timeout:
        end = report.draining_since + policy.drain_timeout
        if now >= end:
            yield _repair(report, "replace", illness.reason, f"{illness.message}; its drain took too long")
        else:
            wakes.append(end)


def _may_be_released(report: NodeReport, policy: RepairPolicy, now: float) -> bool:
    return report.cordoned and not report.draining_since and not _expired(report, policy, now)


def _expired(report: NodeReport, policy: RepairPolicy, now: float) -> bool:
    return bool(policy.expire_after) and now >= report.created_at + policy.expire_after


def _expiries(
    members: Sequence[NodeReport], due: Mapping[str, _Illness], policy: RepairPolicy, now: float, wakes: list[float]
) -> Iterable[Repair]:
    """Of the expired, the oldest first; so many at once that the pool keeps its room."""
    if not policy.expire_after:
        return
    well = [one for one in members if one.machine not in due and not one.held and not one.going and one.initialized]
    wakes.extend(one.created_at + policy.expire_after for one in well if not _expired(one, policy, now))
    old = [one for one in well if _expired(one, policy, now)]
    # Those begun go on first. One that may not be disturbed takes nobody's place; nor does it ever leave before time.
    old.sort(key=lambda one: (not one.draining_since, not one.cordoned, one.created_at, one.machine))
    going = sum(1 for one in members if one.going)
    for report in [one for one in old if one.drained or not one.do_not_disrupt][: max(policy.at_once - going, 0)]:
        message = f"older than {policy.expire_after:.0f} s"
        yield from _step(report, _Illness("Expired", message, now), policy, now, wakes)


def _repair(report: NodeReport, step: Step, reason: str, message: str) -> Repair:
    return Repair(report.machine, report.node, report.pool, step, reason, message)
