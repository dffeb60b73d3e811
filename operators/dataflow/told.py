"""What is told of a service's data flow: status and conditions. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from crds.conditions import DATA_FLOW_APPLIED, DATA_FLOW_SIGNAL, READY, set_condition, timestamp
from crds.dataflow import ClassStatus, DataFlowStatus, SignalStatus
from operators.dataflow.classes import InForce
from operators.dataflow.signals import Read
from scheduler.dataflow import FlowMemory, FlowSpec, Target

Object = Mapping[str, Any]


def status_of(
    spec: FlowSpec,
    target: Target,
    memory: FlowMemory,
    read: Read,
    ready: int,
    link: InForce | None,
    disk: InForce | None,
) -> dict[str, Any]:
    """`status.dataFlow`."""
    signals = []
    for one in spec.signals:
        sample = read.samples.get(one.name)
        fresh = sample is not None and target.states[one.name] == "Fresh"
        signals.append(
            SignalStatus(
                name=one.name,
                state=target.states[one.name],
                value=_short(sample.value) if sample is not None and fresh else "",
                forecast=_short(target.forecasts[one.name]) if one.name in target.forecasts else "",
                capacity=_short(target.capacities[one.name]) if one.name in target.capacities else "",
                replicas=target.needed.get(one.name),
                message=read.faults.get(one.name, ("", ""))[1][:1024],
            )
        )
    return DataFlowStatus(
        replicas=target.replicas,
        ready=ready,
        cost_per_hour=f"{target.cost / 1e6:.6g}",
        signals=signals,
        bandwidth=_class(target.bandwidth, link, memory.bandwidth_changed),
        volumeIO=_class(target.volume_io, disk, memory.volume_io_changed),
        held=target.held[:1024],
    ).wire()


def conditions_of(
    old: Sequence[Mapping[str, Any]] | None,
    generation: int,
    target: Target,
    read: Read,
    dry_run: bool,
    now: datetime,
) -> list[dict[str, Any]]:
    """Ready, DataFlowSignal and DataFlowApplied. The latency of a service that serves nothing now is not lost."""
    lost = {
        name: state
        for name, state in target.states.items()
        if state != "Fresh" and not (state == "Missing" and read.samples.get(name) is not None)
    }
    if lost:
        said = [_lost(name, state, read) for name, state in sorted(lost.items())]
        fault = next((read.faults[name][0] for name in sorted(lost) if name in read.faults), "")
        reason = fault or sorted(lost.values())[0]
        conditions = set_condition(old, DATA_FLOW_SIGNAL, None, reason, "; ".join(said), now, generation)
    else:
        conditions = set_condition(old, DATA_FLOW_SIGNAL, True, "Fresh", "all signals are read", now, generation)
    if dry_run:
        message = "spec.service.dataFlow.dryRun: nothing is changed"
        conditions = set_condition(conditions, DATA_FLOW_APPLIED, False, "DryRun", message, now, generation)
    else:
        conditions = set_condition(conditions, DATA_FLOW_APPLIED, True, "Applied", target.held, now, generation)
    if lost and target.held:
        verdict: tuple[bool | None, str, str] = (None, "SignalsLost", target.held)
    elif target.short:
        limit = "the data needs more than maxReplicas and the fastest classes carry; raise them"
        verdict = (False, "BeyondLimit", limit)
    else:
        verdict = (True, "Following", f"{target.replicas} replicas follow the data")
    return set_condition(conditions, READY, *verdict, now, generation)


def matters(workload: Object, conditions: Sequence[Mapping[str, Any]], flow: Mapping[str, Any]) -> bool:
    """Whether more than numbers has changed: what is asked for, what is in force, what can be read."""
    status = workload.get("status") or {}
    return _gist(status.get("conditions") or (), status.get("dataFlow") or {}) != _gist(conditions, flow)


def _gist(conditions: Sequence[Mapping[str, Any]], flow: Mapping[str, Any]) -> tuple[Any, ...]:
    return (
        [(one["type"], one["status"], one["reason"]) for one in conditions],
        flow.get("replicas"),
        flow.get("ready"),
        flow.get("bandwidth"),
        flow.get("volumeIO"),
        [(one["name"], one["state"]) for one in flow.get("signals") or ()],
    )


def refused(
    old: Sequence[Mapping[str, Any]] | None, generation: int, reason: str, message: str, now: datetime
) -> list[dict[str, Any]]:
    """The conditions of a service that cannot be followed."""
    conditions = set_condition(old, DATA_FLOW_APPLIED, False, reason, message, now, generation)
    return set_condition(conditions, READY, False, reason, message, now, generation)


def _lost(name: str, state: str, read: Read) -> str:
    why = read.faults.get(name, ("", ""))[1]
    return f"{name} is {state.lower()}{f' ({why})' if why else ''}"


def _class(name: str, found: InForce | None, changed: float) -> ClassStatus | None:
    if found is None:
        return None
    at = timestamp(datetime.fromtimestamp(changed, UTC)) if math.isfinite(changed) and changed > 0 else None
    return ClassStatus(name=name, in_force=found.name, changed_at=at, message=found.message[:1024])


def _short(value: float) -> str:
    """Three digits: what changes less is no reason to write a status."""
    return f"{value:.3g}" if math.isfinite(value) else ""
