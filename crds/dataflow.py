"""What a service says of the data that flows through it (`spec.service` of a Workload)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from crds.meta import DnsLabel, DnsName, Labels, Model, checked, rule
from crds.quantities import Quantity

PositiveText = Annotated[str, Field(pattern=r"^[0-9]{1,15}(\.[0-9]{1,9})?$", max_length=25)]
"""A decimal number of at least 0, as text."""
MetricName = Annotated[str, Field(pattern=r"^[a-zA-Z_:][a-zA-Z0-9_:]{0,255}$", max_length=256)]
MetricLabels = Annotated[
    dict[str, Annotated[str, Field(max_length=256)]],
    Field(max_length=16),
]


class ServiceTarget(Model):
    """The object that makes the replicas, in the Workload's namespace."""

    kind: Literal["Deployment", "StatefulSet"] = "Deployment"
    name: DnsName


class PrometheusRead(Model):
    """A metric of this namespace in Prometheus. The query is made from it, so that it sees no other namespace."""

    metric: MetricName = Field(description="Its name; of a histogram without `_bucket`.")
    match_labels: MetricLabels = Field(default_factory=dict, description="Labels that its series must have.")
    read: Literal["gauge", "rate", "quantile"] = Field(
        default="gauge", description="gauge: the sum; rate: the sum's growth a second; quantile: of a histogram."
    )
    window_seconds: int = Field(default=60, ge=5, le=3600, description="Of rate and quantile.")
    quantile_percent: int = Field(default=95, ge=1, le=99)


class PodsRead(Model):
    """A metric on a page of each ready pod, summed up."""

    port: int = Field(ge=1024, le=65_535)
    path: str = Field(default="/metrics", pattern=r"^/[A-Za-z0-9/_.-]{0,127}$", max_length=128)
    metric: MetricName
    match_labels: MetricLabels = Field(default_factory=dict, description="Labels that its series must have.")
    read: Literal["gauge", "rate"] = Field(default="gauge", description="rate: of a counter, between two visits.")


class FlowSignal(Model):
    """One thing that tells how much data flows, or how well it is served."""

    model_config = checked(
        rule(
            "(has(self.prometheus) ? 1 : 0) + (has(self.pods) ? 1 : 0) == 1",
            "spec.service.dataFlow.signals[]: give exactly one of prometheus and pods",
        ),
        rule(
            "!(self.type in ['tokens', 'requests', 'concurrency']) || has(self.capacity)",
            "spec.service.dataFlow.signals[].capacity is missing; write roughly what one replica carries",
        ),
        rule(
            "self.type != 'latencySeconds' || has(self.target)",
            "spec.service.dataFlow.signals[].target is missing; write the latency to keep, in seconds",
        ),
        rule(
            "self.type != 'queueDepth' || has(self.of) || has(self.capacity)",
            "spec.service.dataFlow.signals[].of is missing; name the demand signal whose items wait, or give capacity",
        ),
        rule(
            "self.type != 'lagSeconds' || has(self.of)",
            "spec.service.dataFlow.signals[].of is missing; name the demand signal that it lags behind",
        ),
    )
    name: DnsLabel
    type: Literal[
        "ingressBytes",
        "tokens",
        "requests",
        "concurrency",
        "queueDepth",
        "lagSeconds",
        "storageReadBytes",
        "storageWriteBytes",
        "latencySeconds",
    ] = Field(description="Rates are per second. concurrency: requests in flight, waiting ones included.")
    prometheus: PrometheusRead | None = None
    pods: PodsRead | None = None
    capacity: PositiveText | None = Field(
        default=None, description="A first guess of what one replica carries within the target; it is learned then."
    )
    learn: bool = Field(default=True, description="false keeps capacity as it is written.")
    target: PositiveText | None = Field(default=None, description="Of latencySeconds: not to be exceeded.")
    of: DnsLabel | None = Field(default=None, description="Of queueDepth and lagSeconds: the demand signal.")
    per_item: PositiveText = Field(default="1", description="Of queueDepth: one item in the unit of that signal.")
    max_age_seconds: int = Field(default=60, ge=5, le=3600, description="Older samples are stale.")


class FlowClass(Model):
    """A class with its rate and price."""

    name: DnsName
    bytes_per_second: Quantity = Field(description="What it carries.")
    cost_per_hour: PositiveText = Field(default="0", description="Of one replica, or of one volume.")


class BandwidthClasses(Model):
    """Network bandwidth of the replicas."""

    apply: Literal["fabric", "podAnnotations"] = Field(
        default="fabric",
        description="fabric: running pods get the annotation kekkai.dev/bandwidth-class, which the fabric honours. "
        "podAnnotations: kubernetes.io/ingress-bandwidth and egress-bandwidth in the pod template, which take effect "
        "on new replicas only: the target rolls out within its own budget.",
    )
    classes: list[FlowClass] = Field(min_length=1, max_length=16)
    min_interval_seconds: int = Field(default=300, ge=0, le=604_800, description="Between two changes.")


class VolumeIOClasses(Model):
    """VolumeAttributesClasses of the service's volumes."""

    claims: Labels = Field(min_length=1, description="Labels of its PersistentVolumeClaims.")
    shared: bool = Field(default=False, description="true: the claims carry all replicas together; else each its own.")
    classes: list[FlowClass] = Field(min_length=1, max_length=16, description="name: a VolumeAttributesClass.")
    min_interval_seconds: int = Field(
        default=21_600, ge=0, le=604_800, description="Between two changes; backends like EBS allow one in 6 hours."
    )


class DataFlow(Model):
    """Replicas, bandwidth and volume I/O follow these signals."""

    model_config = checked(
        rule(
            "self.minReplicas <= self.maxReplicas",
            "spec.service.dataFlow.minReplicas must not be above maxReplicas; lower it",
        ),
        rule(
            "self.signals.all(a, self.signals.exists_one(b, b.name == a.name))",
            "spec.service.dataFlow.signals: a name is there twice; give each signal its own",
        ),
        rule(
            "self.signals.all(a, !has(a.of) || self.signals.exists(b, b.name == a.of "
            "&& b.type in ['ingressBytes', 'tokens', 'requests', 'concurrency']))",
            "spec.service.dataFlow.signals[].of must name a signal of type ingressBytes, tokens, requests or concurrency",
        ),
    )
    min_replicas: int = Field(default=1, ge=0, le=100_000)
    max_replicas: int = Field(ge=1, le=100_000)
    signals: list[FlowSignal] = Field(min_length=1, max_length=16)
    sync_seconds: int = Field(default=15, ge=1, le=600, description="Between two decisions.")
    startup_seconds: int = Field(default=60, ge=1, le=7200, description="From asking for a replica to its serving.")
    drain_seconds: int = Field(default=60, ge=1, le=86_400, description="In which a backlog shall be worked off.")
    window_seconds: int = Field(
        default=300, ge=0, le=86_400, description="For which fewer must have sufficed before there are fewer."
    )
    quantile_percent: int = Field(
        default=90, ge=50, le=99, description="Part of the forecasts that there must be enough for."
    )
    cost_per_replica_hour: PositiveText = "1"
    bandwidth: BandwidthClasses | None = None
    volume_io: VolumeIOClasses | None = Field(default=None, alias="volumeIO")
    dry_run: bool = Field(
        default=False, description="Only say in status what it would do; for those who keep their own autoscaler."
    )


class ServiceWork(Model):
    """A service: its replicas are queued one by one as pods, so quota holds however many are asked for."""

    target: ServiceTarget
    data_flow: DataFlow | None = None


class SignalStatus(Model):
    """What a signal reads and what follows from it. Numbers as text, to three digits."""

    name: DnsLabel
    state: Literal["Fresh", "Missing", "Stale", "Invalid"]
    value: str = Field(default="", max_length=32)
    forecast: str = Field(default="", max_length=32, description="What replicas are planned for.")
    capacity: str = Field(default="", max_length=32, description="Of one replica, as learned.")
    replicas: int | None = Field(default=None, description="That it asks for.")
    message: str = Field(default="", max_length=1024)


class ClassStatus(Model):
    """A class that was asked for."""

    name: str = Field(max_length=253, description="Asked for.")
    in_force: str = Field(default="", max_length=253, description="In force on all; empty while it is not.")
    changed_at: str | None = Field(default=None, json_schema_extra={"format": "date-time"})
    message: str = Field(default="", max_length=1024)


class DataFlowStatus(Model):
    """What the service shall have, and why. A controller that begins anew goes on from here."""

    replicas: int = 0
    ready: int = 0
    cost_per_hour: str = Field(default="0", max_length=32)
    signals: list[SignalStatus] = Field(default_factory=list, max_length=16)
    bandwidth: ClassStatus | None = None
    volume_io: ClassStatus | None = Field(default=None, alias="volumeIO")
    held: str = Field(default="", max_length=1024, description="Why something stays as it is.")
