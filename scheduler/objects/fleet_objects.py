"""Pure translation of watched objects into the scheduler's states: quantities become integers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from crds.labels import (
    ACCELERATOR,
    BLOCK,
    CONFIDENTIAL,
    DRAIN_TAINT,
    LAST_CHECKPOINT,
    MACHINE,
    NVLINK_DOMAIN,
    POOL,
    RACK,
    SITE,
    STARTUP_TAINT,
    ZONE,
)
from crds.quantities import micro, resource_units
from scheduler import (
    BoundPod,
    ClassQuota,
    MachineState,
    NodeState,
    PodSet,
    PoolState,
    Taint,
    TenantState,
    Toleration,
    WorkloadState,
)
from scheduler.objects.node_shape import capacity, pool_labels, resource_of
from scheduler.objects.pod_requests import pod_requests, read_amounts

Object = Mapping[str, Any]

# Taints that say in another way what `ready` and `schedulable` say.
_STATE_TAINTS = {
    STARTUP_TAINT,
    DRAIN_TAINT,
    "node.kubernetes.io/not-ready",
    "node.kubernetes.io/unreachable",
    "node.kubernetes.io/unschedulable",
    "node.kubernetes.io/network-unavailable",
}
_PROVISIONING = 60.0  # seconds, where a provider does not say how long it takes
_TERMINAL = {"Succeeded", "Failed"}
_NEVER = 100 * 365 * 86400.0  # seconds


def seconds(timestamp: str | None) -> float:
    """RFC 3339 to seconds since the epoch; 0 when there is none."""
    return datetime.fromisoformat(timestamp).timestamp() if timestamp else 0.0


def node_state(node: Object, machine: Object | None = None) -> NodeState:
    """`machine`: the Machine that it belongs to, if that is known; a going machine takes no more pods."""
    meta, spec, status = node["metadata"], node.get("spec") or {}, node.get("status") or {}
    labels = meta.get("labels") or {}
    taints = spec.get("taints") or ()
    keys = {taint["key"] for taint in taints}
    going = bool(meta.get("deletionTimestamp")) or (machine is not None and is_going(machine))
    return NodeState(
        name=meta["name"],
        pool=labels.get(POOL, ""),
        machine=labels.get(MACHINE, ""),
        site=labels.get(SITE, ""),
        zone=labels.get(ZONE, ""),
        block=labels.get(BLOCK, ""),
        rack=labels.get(RACK, ""),
        nvlink_domain=labels.get(NVLINK_DOMAIN, ""),
        accelerator=labels.get(ACCELERATOR, ""),
        confidential=labels.get(CONFIDENTIAL, "none"),
        allocatable=read_amounts(status.get("allocatable") or {}),
        labels=dict(labels),
        taints=tuple(
            Taint(taint["key"], taint.get("value") or "", taint["effect"])
            for taint in taints
            if taint["key"] not in _STATE_TAINTS
        ),
        ready=node_ready(node)
        and not keys & {STARTUP_TAINT, "node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"},
        schedulable=not spec.get("unschedulable") and DRAIN_TAINT not in keys and not going,
    )


def node_ready(node: Object) -> bool:
    """The kubelet's Ready condition."""
    conditions = (node.get("status") or {}).get("conditions") or ()
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def is_going(obj: Object) -> bool:
    """Whether it is being deleted."""
    return bool(obj["metadata"].get("deletionTimestamp"))


def pool_state(pool: Object, site: Object | None) -> PoolState:
    """`site`: the Site it names, None while that does not exist; then the pool accepts nothing."""
    spec = pool["spec"]
    scaling, links = spec["scaling"], spec.get("interconnect") or {}
    ours = scaling.get("driver", "Kekkai") == "Kekkai"
    forecast = scaling.get("forecast") or {}
    boots = [float((one or {}).get("bootSeconds", 0)) for one in (spec.get("provider") or {}).values()]
    return PoolState(
        name=pool["metadata"]["name"],
        site=spec["site"],
        jurisdiction=site["spec"]["jurisdiction"] if site is not None else "",
        accelerator=spec["accelerator"]["type"],
        resource=resource_of(pool),
        per_node=spec["accelerator"]["perNode"],
        allocatable=read_amounts(capacity(pool)),
        # What another driver sizes is used as it is: nothing is bought for it, nothing taken away.
        minimum=scaling.get("min", 0) if ours else 0,
        maximum=_within_budget(spec) if ours else 0,
        headroom=scaling.get("headroom", 0) if ours else 0,
        scale_down_delay=float(scaling.get("scaleDownDelaySeconds", 600)) if ours else _NEVER,
        cooldown=float(scaling.get("cooldownSeconds", 0)),
        forecast_quantile=forecast.get("quantilePercent", 0) / 100 if ours else 0.0,
        forecast_half_life=float(forecast.get("halfLifeSeconds", 3600)),
        provisioning=max(boots, default=0.0) or _PROVISIONING,
        price_micro=micro((spec.get("price") or {}).get("perNodeHour", "0")),
        confidential=(spec.get("confidential") or {}).get("cpu", "none"),
        labels=pool_labels(pool),
        nodes_per_nvlink_domain=links.get("nodesPerNvlinkDomain", 0),
        nodes_per_rack=links.get("nodesPerRack", 0),
        racks_per_block=links.get("racksPerBlock", 0),
        accepting=site is not None and not is_going(pool),
    )


def _within_budget(spec: Mapping[str, Any]) -> int:
    """Machines that the pool may have: by its maximum, and by its budgets of cost and power."""
    most = int(spec["scaling"]["max"])
    budget = spec["scaling"].get("budget") or {}
    price = micro((spec.get("price") or {}).get("perNodeHour", "0"))
    watts = int((spec.get("power") or {}).get("maxWatts", 0))
    if budget.get("costPerHour") is not None and price:
        most = min(most, micro(budget["costPerHour"]) // price)
    if budget.get("watts") is not None and watts:
        most = min(most, int(budget["watts"]) // watts)
    return most


def machine_state(machine: Object, node: str) -> MachineState:
    """`node`: the name of the node that carries the machine's label, "" before there is one."""
    slot = machine["spec"].get("topology") or {}
    return MachineState(
        name=machine["metadata"]["name"],
        pool=machine["spec"]["pool"],
        node=(machine.get("status") or {}).get("nodeName") or node,
        going=is_going(machine),
        block=slot.get("block", ""),
        rack=slot.get("rack", ""),
        nvlink_domain=slot.get("nvlinkDomain", ""),
    )


def tenant_state(tenant: Object) -> TenantState:
    spec = tenant["spec"]
    isolation = spec.get("isolation") or {}
    return TenantState(
        name=tenant["metadata"]["name"],
        weight=spec.get("weight", 100),
        quota={
            one["accelerator"]: ClassQuota(one["nominal"], one.get("borrow", 0), one.get("lend"))
            for one in spec.get("quota") or ()
        },
        hold=spec.get("hold", False) or is_going(tenant),
        isolation=isolation.get("level", "shared"),
        pools=frozenset(isolation.get("pools") or ()),
        jurisdictions=frozenset((spec.get("residency") or {}).get("jurisdictions") or ()),
        parent=spec.get("parent") or "",
        strict=spec.get("queueing") == "strict",
        drain=spec.get("drain", False),
        priority_ceiling=spec.get("priorityCeiling"),
    )


def pod_sets(workload: Object) -> tuple[PodSet, ...]:
    """The pod sets of a Workload's spec."""
    return tuple(_pod_set(one) for one in workload["spec"].get("podSets") or ())


def _pod_set(one: Object) -> PodSet:
    selector = one.get("nodeSelector") or {}
    return PodSet(
        name=one["name"],
        count=one["count"],
        requests=read_amounts(one.get("requests") or {}),
        node_selector=dict(selector),
        tolerations=tuple(
            Toleration(t.get("key", ""), t.get("operator", "Equal"), t.get("value", ""), t.get("effect", ""))
            for t in one.get("tolerations") or ()
        ),
        confidential=selector.get(CONFIDENTIAL, "none") != "none",
        min_count=one.get("minCount") or 0,
        milli=one.get("deviceMilli") or 1000,
        spread=one.get("spread") or "",
    )


def workload_state(
    workload: Object,
    *,
    admitted: bool,
    accelerator: str,
    placements: Iterable[tuple[str, str, int]],
    finished: bool,
    active: bool,
    admitted_at: float = 0.0,
    checkpointed_at: float = 0.0,
    movable: bool = False,
) -> WorkloadState:
    """`placements`: what it holds now (see `holding`); the rest says where it is in its life.

    `admitted_at`: of an admission that is decided and not written yet; what is written wins.
    """
    meta, spec, status = workload["metadata"], workload["spec"], workload.get("status") or {}
    topology = spec.get("topology") or {}
    return WorkloadState(
        key=f"{meta['namespace']}/{meta['name']}",
        uid=meta.get("uid", ""),
        tenant=spec.get("tenant") or "",
        created_at=seconds(meta.get("creationTimestamp")),
        pod_sets=pod_sets(workload),
        priority=spec.get("priority", 0),
        active=active,
        admitted=admitted,
        accelerator=accelerator,
        placements=tuple(placements),
        devices=shares_held(status.get("admission") or {}),
        finished=finished,
        required_topology=topology.get("required") or "",
        preferred_topology=topology.get("preferred") or "",
        jurisdictions=frozenset((spec.get("residency") or {}).get("jurisdictions") or ()),
        admitted_at=seconds((status.get("admission") or {}).get("admittedAt")) or admitted_at,
        checkpointed_at=checkpointed_at,
        max_runtime=float(runtime_left(workload) or 0),
        not_before=seconds((status.get("requeue") or {}).get("notBefore")),
        checks_passed=checks_passed(workload),
        preemptible=spec.get("preemptible", True),
        movable=movable,
        flavors=tuple((one["type"], float(one.get("throughput", "1"))) for one in spec.get("accelerators") or ()),
    )


def shares_held(admission: Object) -> tuple[tuple[str, str, tuple[int, ...]], ...]:
    """(pod set, node, device of each pod) of pods that have shares of devices."""
    placements = admission.get("placements") or ()
    return tuple((one["podSet"], one["node"], tuple(one["devices"])) for one in placements if one.get("devices"))


def runtime_left(workload: Object) -> int | None:
    """Seconds that it may still run from its (next) admission on, 0 when they are used up; None: no limit is set."""
    limit = workload["spec"].get("maximumRuntimeSeconds")
    if limit is None:
        return None
    return max(0, int(limit) - int((workload.get("status") or {}).get("pastRuntimeSeconds") or 0))


def checks_passed(workload: Object) -> bool:
    """Whether each admission check that its spec names is Ready."""
    states = {one["name"]: one["state"] for one in (workload.get("status") or {}).get("admissionChecks") or ()}
    return all(states.get(name) == "Ready" for name in workload["spec"].get("admissionChecks") or ())


def last_checkpoint(objects: Iterable[Object]) -> float:
    """When work was saved last, by the annotation on its Job or pods; 0 when none says so. What is no time is none."""
    newest = 0.0
    for one in objects:
        text = (one["metadata"].get("annotations") or {}).get(LAST_CHECKPOINT)
        if text:
            try:
                newest = max(newest, seconds(text))
            except ValueError:
                continue
    return newest


def bound_pod(pod: Object) -> BoundPod:
    """A pod on a node. Its requests are complete: admission has filled in the defaults."""
    meta, spec = pod["metadata"], pod["spec"]
    return BoundPod(f"{meta['namespace']}/{meta['name']}", spec["nodeName"], pod_requests(spec))


def takes_room(pod: Object) -> bool:
    """Whether a pod is on a node and has not ended; one that is being deleted still takes room."""
    return bool(pod["spec"].get("nodeName")) and not has_ended(pod)


def has_ended(pod: Object) -> bool:
    """Succeeded or Failed."""
    return (pod.get("status") or {}).get("phase") in _TERMINAL


def device_count(pool: Object, node: Object) -> int:
    """The devices that a node has registered."""
    found = ((node.get("status") or {}).get("allocatable") or {}).get(resource_of(pool), "0")
    return resource_units(resource_of(pool), found)
