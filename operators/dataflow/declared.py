"""From what a Workload declares to what the decision takes."""

from __future__ import annotations

from datetime import datetime

from crds.dataflow import ClassStatus, DataFlow, DataFlowStatus, FlowClass, FlowSignal
from crds.errors import InvalidInput
from crds.quantities import micro, whole
from scheduler.dataflow import FlowMemory, FlowSpec, RateClass, SignalSpec, start

_LONG_AGO = -1e18


def flow_spec(flow: DataFlow) -> FlowSpec:
    """Raises InvalidInput with the field and the fix."""
    return FlowSpec(
        signals=tuple(_signal(one) for one in flow.signals),
        min_replicas=flow.min_replicas,
        max_replicas=flow.max_replicas,
        startup=float(flow.startup_seconds + flow.sync_seconds),
        drain=float(flow.drain_seconds),
        quantile=flow.quantile_percent / 100,
        window=float(flow.window_seconds),
        replica_cost=micro(flow.cost_per_replica_hour, "dataFlow.costPerReplicaHour"),
        bandwidth=_classes(flow.bandwidth.classes) if flow.bandwidth else (),
        volume_io=_classes(flow.volume_io.classes) if flow.volume_io else (),
        shared_volume=flow.volume_io.shared if flow.volume_io else False,
        bandwidth_interval=float(flow.bandwidth.min_interval_seconds) if flow.bandwidth else 0.0,
        volume_io_interval=float(flow.volume_io.min_interval_seconds) if flow.volume_io else 0.0,
    )


def resumed(spec: FlowSpec, status: DataFlowStatus | None) -> FlowMemory:
    """The memory with which a controller that knows only the status goes on."""
    if status is None:
        return start(spec)
    known = {one.name: float(one.capacity) for one in status.signals if _is_number(one.capacity)}
    return start(spec, known, _changed(status.bandwidth), _changed(status.volume_io))


def _signal(one: FlowSignal) -> SignalSpec:
    return SignalSpec(
        name=one.name,
        type=one.type,
        capacity=float(one.capacity or 0),
        learn=one.learn,
        target=float(one.target or 0),
        of=one.of or "",
        per_item=float(one.per_item),
        max_age=float(one.max_age_seconds),
    )


def _classes(classes: list[FlowClass]) -> tuple[RateClass, ...]:
    return tuple(
        RateClass(one.name, float(whole(one.bytes_per_second, f"classes[{one.name}]")), micro(one.cost_per_hour))
        for one in classes
    )


def _is_number(text: str) -> bool:
    try:
        return float(text) > 0
    except ValueError:
        return False


def _changed(one: ClassStatus | None) -> float:
    if one is None or not one.changed_at:
        return _LONG_AGO
    try:
        return datetime.fromisoformat(one.changed_at).timestamp()
    except ValueError as error:
        raise InvalidInput("status.dataFlow.changedAt is no time", fix="remove the status") from error
