"""AcceleratorPool: machines of one shape at one site, which grow and shrink with demand."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from crds.conditions import Condition
from crds.meta import (
    IMMUTABLE,
    AcceleratorClass,
    DnsLabel,
    DnsName,
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


class Forecast(Model):
    """Devices kept free for what starts while a machine is on its way, from what started lately."""

    quantile_percent: int = Field(
        ge=1, le=99, description="How often what starts in the time that a machine takes should find its devices free."
    )
    half_life_seconds: int = Field(default=3600, ge=60, le=2_592_000, description="Age at which the past counts half.")


class Budget(Model):
    """What the machines of the pool may come to at most; what is left out is not bounded."""

    model_config = checked(
        rule(
            "!has(self.costPerHour) || !self.costPerHour.startsWith('-')",
            "spec.scaling.budget.costPerHour must not be negative; write 0 or more",
        ),
    )
    cost_per_hour: DecimalText | None = Field(default=None, description="In the currency of spec.price.")
    watts: int | None = Field(default=None, ge=0, le=1_000_000_000, description="Of all nodes at spec.power.maxWatts.")


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
    cooldown_seconds: int = Field(
        default=0, ge=0, le=86400, description="How long no machine goes after the pool has grown."
    )
    forecast: Forecast | None = Field(default=None, description="Devices kept free for what may come; none without it.")
    budget: Budget | None = Field(default=None, description="Bounds beside max.")
    max_concurrent_launches: int = Field(
        default=100, ge=1, le=5000, description="Machines that may be starting at once."
    )
    driver: Literal["Kekkai", "External"] = Field(
        default="Kekkai",
        description="Who says how many machines there are: the plan, or a Cluster Autoscaler by the external gRPC API.",
    )


class KwokProvider(Model):
    """Emulated nodes whose kubelet is played by kwok."""

    boot_seconds: int = Field(default=0, ge=0, le=3600, description="How long an emulated machine takes to start.")
    boot_spread_seconds: int = Field(default=0, ge=0, le=3600, description="How much longer some take, at most.")
    failure_percent: int = Field(default=0, ge=0, le=100, description="Launches of a hundred that fail.")


class RedfishHost(Model):
    """One server of the inventory, known by its baseboard management controller (BMC)."""

    name: DnsLabel = Field(description="Its name in this inventory.")
    address: str = Field(
        pattern=r"^https?://[^/?#]+$",
        max_length=253,
        description="Base URL of its BMC. Plain http is refused unless it is on the loopback interface.",
    )
    system: str = Field(
        default="",
        pattern=r"^(/redfish/v1/Systems/[^/?#]+)?$",
        max_length=253,
        description="Path of the ComputerSystem; empty where the BMC has one only.",
    )


class RedfishProvider(Model):
    """Bare metal: servers are powered on for demand and off when idle, by Redfish."""

    hosts: list[RedfishHost] = Field(
        min_length=1,
        max_length=2000,
        description="The servers that may be used.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    )
    credentials: DnsName = Field(
        description="Secret in namespace kekkai-machines with `username`, `password` and, for a private CA, `ca.crt`."
    )
    boot_from: Literal["Pxe", "UefiHttp", "Hdd"] = Field(default="Pxe", description="Where it boots from when started.")
    boot_seconds: int = Field(default=600, ge=0, le=7200, description="How long a server takes to become a node.")


class ClusterApiProvider(Model):
    """Machines of a Cluster API MachineDeployment, whose replicas this pool alone sets."""

    namespace: DnsLabel = Field(description="Namespace of the MachineDeployment.")
    machine_deployment: DnsName = Field(description="Its name.")
    version: str = Field(default="v1beta2", pattern=r"^v[0-9]+((alpha|beta)[0-9]+)?$", max_length=20)
    boot_seconds: int = Field(default=300, ge=0, le=7200, description="How long a machine takes to become a node.")


class KarpenterNodeClass(Model):
    """The NodeClass that NodeClaims name."""

    group: str = Field(max_length=253, description="API group, such as karpenter.k8s.aws.")
    kind: str = Field(max_length=63, description="Kind, such as EC2NodeClass.")
    name: DnsName


CapacityType = Literal["on-demand", "spot", "reserved"]


def _on_demand() -> list[CapacityType]:
    return ["on-demand"]


class KarpenterProvider(Model):
    """One Karpenter NodeClaim a machine; Karpenter's own NodePools are left alone."""

    node_class_ref: KarpenterNodeClass
    instance_types: list[Annotated[str, StringConstraints(min_length=1, max_length=128)]] = Field(
        default_factory=list, max_length=100, description="Allowed types; empty: any."
    )
    capacity_types: list[CapacityType] = Field(default_factory=_on_demand, min_length=1, max_length=3)
    boot_seconds: int = Field(default=300, ge=0, le=7200, description="How long a machine takes to become a node.")


class ExternalGrpcProvider(Model):
    """A node group of somebody's provider that speaks Cluster Autoscaler's external gRPC protocol."""

    address: str = Field(pattern=r"^[^/\s]+:[0-9]{1,5}$", max_length=253, description="host:port of the provider.")
    node_group: str = Field(min_length=1, max_length=253, description="Its node group, sized by this pool alone.")
    tls: DnsName = Field(description="Secret in namespace kekkai-machines with `tls.crt`, `tls.key`, `ca.crt` (mTLS).")
    boot_seconds: int = Field(default=300, ge=0, le=7200, description="How long a machine takes to become a node.")


_ONE_PROVIDER = " + ".join(
    f"(has(self.{name}) ? 1 : 0)" for name in ("kwok", "redfish", "clusterApi", "karpenter", "externalGrpc")
)


class Provider(Model):
    """Where machines come from: exactly one provider."""

    model_config = checked(
        rule(
            f"{_ONE_PROVIDER} == 1",
            "spec.provider: name exactly one provider; set one of kwok, redfish, clusterApi, karpenter, externalGrpc",
        ),
    )
    kwok: KwokProvider | None = Field(default=None, description="Emulated nodes.")
    redfish: RedfishProvider | None = Field(default=None, description="Bare metal by Redfish.")
    cluster_api: ClusterApiProvider | None = Field(default=None, description="Cluster API.")
    karpenter: KarpenterProvider | None = Field(default=None, description="Karpenter.")
    external_grpc: ExternalGrpcProvider | None = Field(default=None, description="An external gRPC provider.")


class RepairCondition(Model):
    """A condition of a Node that means ill when True."""

    type: str = Field(pattern=r"^[A-Z][A-Za-z0-9]*$", max_length=63, description="Type of the Node condition.")
    patience_seconds: int = Field(default=600, ge=0, le=86400)


class Repair(Model):
    """When a machine counts as ill, and how it is replaced."""

    enabled: bool = Field(default=True, description="Whether ill machines are cordoned, drained and replaced.")
    join_timeout_seconds: int = Field(
        default=900,
        ge=30,
        le=86400,
        description="A machine that is not ready so long after its launch, its boot time added, is given up.",
    )
    not_ready_seconds: int = Field(default=600, ge=0, le=86400, description="Patience with a node that is not Ready.")
    devices_missing_seconds: int = Field(default=600, ge=0, le=86400, description="Patience with missing devices.")
    conditions: list[RepairCondition] = Field(
        default_factory=list,
        max_length=20,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    )
    expire_after_seconds: int = Field(
        default=0, ge=0, le=315_360_000, description="Age at which a machine is replaced; 0: never."
    )
    drain_timeout_seconds: int = Field(
        default=3600, ge=0, le=604_800, description="How long a drain may take; 0: as long as it needs."
    )
    breaker_percent: int = Field(
        default=20, ge=1, le=100, description="Repairs stop while more of the pool's machines than this are ill."
    )


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
    repair: Repair = Field(default_factory=Repair)
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
