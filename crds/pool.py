"""AcceleratorPool: machines of one shape at one site, which grow and shrink with demand."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from crds.conditions import Condition
from crds.meta import (
    IMMUTABLE,
    AcceleratorClass,
    DnsLabel,
    Labels,
    Model,
    Resource,
    ResourceName,
    checked,
    constrained,
    rule,
)
from crds.quantities import DecimalText, Quantity


class Accelerator(Model):
    """The devices of one node."""

    model_config = checked(
        rule(
            "self == oldSelf",
            "spec.accelerator cannot change, since nodes of both shapes would share the pool; make a new AcceleratorPool",
        ),
    )
    type: AcceleratorClass = Field(description="The class that quotas name, such as H200.")
    resource: ResourceName = Field(default="nvidia.com/gpu", description="The extended resource that pods ask for.")
    per_node: int = Field(ge=1, le=64, description="Whole devices a node.")


class NodeShape(Model):
    """What else a node of this pool offers."""

    cpu: Quantity = Field(default="64", description="CPU of a node.")
    memory: Quantity = Field(default="512Gi", description="Memory of a node.")
    pods: int = Field(default=110, ge=1, le=1000, description="Pods a node takes.")
    labels: Labels = Field(default_factory=dict, description="Further labels of its nodes.")


class Interconnect(Model):
    """How nodes are grouped into domains of fast links; 0 means that the level does not exist."""

    nodes_per_nvlink_domain: int = Field(default=0, ge=0, le=1024)
    nodes_per_rack: int = Field(default=0, ge=0, le=1024)
    racks_per_block: int = Field(default=0, ge=0, le=1024)


class Confidential(Model):
    """Which trusted execution environments a node has."""

    cpu: Literal["none", "sev-snp", "tdx"] = Field(default="none", description="CPU TEE of the nodes.")
    gpu: bool = Field(default=False, description="Whether the devices run in confidential-computing mode.")


class Scaling(Model):
    """Bounds and pace of growth. `kubectl scale` sets `min`, the floor."""

    model_config = checked(
        rule(
            "self.min <= self.max",
            "spec.scaling.min must not be above spec.scaling.max; lower min or raise max",
        ),
        rule(
            "self.headroom <= self.max",
            "spec.scaling.headroom must not be above spec.scaling.max; lower headroom or raise max",
        ),
    )
    min: int = Field(default=0, ge=0, le=20000, description="Machines that always exist.")
    max: int = Field(ge=0, le=20000, description="Machines that may exist at most.")
    headroom: int = Field(default=0, ge=0, le=1000, description="Idle machines kept ready for what comes next.")
    scale_down_delay_seconds: int = Field(
        default=600, ge=0, le=86400, description="How long a machine stays idle before it goes away."
    )
    max_concurrent_launches: int = Field(
        default=100, ge=1, le=5000, description="Machines that may be starting at once."
    )


class KwokProvider(Model):
    """Emulated nodes whose kubelet is played by kwok."""

    boot_seconds: int = Field(default=0, ge=0, le=3600, description="How long an emulated machine takes to start.")


class Provider(Model):
    """Where machines come from: exactly one provider."""

    model_config = checked(
        rule("has(self.kwok)", "spec.provider: name exactly one provider; set spec.provider.kwok"),
    )
    kwok: KwokProvider | None = Field(default=None, description="Emulated nodes.")


class PoolPower(Model):
    """Power of a node, for budgets and placement."""

    model_config = checked(
        rule(
            "self.idleWatts <= self.maxWatts",
            "spec.power.idleWatts must not be above spec.power.maxWatts; lower idleWatts",
        ),
    )
    idle_watts: int = Field(default=0, ge=0, le=1_000_000)
    max_watts: int = Field(ge=0, le=1_000_000)


class Price(Model):
    """What a node costs."""

    model_config = checked(
        rule(
            "!self.perNodeHour.startsWith('-')",
            "spec.price.perNodeHour must not be negative; write 0 or more",
        ),
    )
    per_node_hour: DecimalText = Field(description="Price of one node for one hour.")
    currency: str = Field(default="USD", pattern=r"^[A-Z]{3}$", max_length=3, description="ISO 4217 code.")


class AcceleratorPoolSpec(Model):
    """What the operator asks for."""

    site: DnsLabel = Field(
        description="The Site where it stands.",
        json_schema_extra=constrained(
            rule(IMMUTABLE, "spec.site cannot change, since machines do not move; make a new AcceleratorPool"),
        ),
    )
    accelerator: Accelerator
    node: NodeShape = Field(default_factory=NodeShape)
    interconnect: Interconnect = Field(default_factory=Interconnect)
    confidential: Confidential = Field(
        default_factory=Confidential,
        json_schema_extra=constrained(
            rule(IMMUTABLE, "spec.confidential cannot change while machines run; make a new AcceleratorPool"),
        ),
    )
    scaling: Scaling
    provider: Provider
    power: PoolPower | None = None
    price: Price = Field(default_factory=lambda: Price(per_node_hour="0"))


class MachineCounts(Model):
    """Machines by where they are in their life."""

    wanted: int = Field(default=0, ge=0, description="Machines that the plan asks for.")
    coming: int = Field(default=0, ge=0, description="Requested, not ready yet.")
    ready: int = Field(default=0, ge=0, description="Nodes that take pods.")
    idle: int = Field(default=0, ge=0, description="Ready nodes without a workload.")
    going: int = Field(default=0, ge=0, description="Being drained or removed.")


class AcceleratorPoolStatus(Model):
    """What the operators observed."""

    conditions: list[Condition] = Field(
        default_factory=list,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    )
    observed_generation: int = 0
    replicas: int = Field(default=0, ge=0, description="Machines that exist.")
    selector: str = Field(default="", description="Label selector of its nodes.")
    machines: MachineCounts = Field(default_factory=MachineCounts)
    devices: int = Field(default=0, ge=0, description="Devices on ready nodes.")
    devices_used: int = Field(default=0, ge=0, description="Devices that admitted workloads hold.")


class AcceleratorPool(Resource):
    """Machines of one shape at one site."""

    kind: Literal["AcceleratorPool"] = "AcceleratorPool"
    spec: AcceleratorPoolSpec
    status: AcceleratorPoolStatus = Field(default_factory=AcceleratorPoolStatus)
