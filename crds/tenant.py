"""Tenant: who shares the cloud, with their namespaces, quota, isolation and owners."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from crds.conditions import Condition
from crds.meta import AcceleratorClass, CountryCode, DnsLabel, Labels, Model, Resource, checked, rule
from crds.quantities import Quantity


class Owner(Model):
    """Someone who works in the tenant's namespaces."""

    model_config = checked(
        rule(
            "self.kind == 'ServiceAccount' ? has(self.namespace) : !has(self.namespace)",
            "spec.owners[].namespace belongs to kind ServiceAccount and only to it; add or remove it",
        ),
        rule(
            "self.kind != 'ServiceAccount' || !self.name.contains(':')",
            "spec.owners[].name of a ServiceAccount is its bare name; put the namespace into spec.owners[].namespace",
        ),
        rule(
            "!(self.name in ['system:masters', 'system:authenticated', 'system:unauthenticated', 'system:anonymous', "
            "'system:serviceaccounts'])",
            "spec.owners[].name must not be a built-in system identity; name a person, a group of yours or a ServiceAccount",
        ),
    )
    kind: Literal["User", "Group", "ServiceAccount"]
    name: str = Field(min_length=1, max_length=253)
    namespace: DnsLabel | None = Field(default=None, description="Of a ServiceAccount.")


class TenantNamespace(Model):
    """A namespace that the tenant owns; Kekkai makes it."""

    model_config = checked(
        rule(
            "!self.name.startsWith('kube-') && !(self.name in ['default', 'kekkai-system'])",
            "spec.namespaces[].name must not be a system namespace; choose a name of the tenant's own",
        ),
    )
    name: DnsLabel
    labels: Labels = Field(
        default_factory=dict,
        description="Further labels.",
        json_schema_extra={
            "x-kubernetes-validations": [
                rule(
                    "self.all(k, !k.contains('kubernetes.io/') && !k.startsWith('kekkai.dev/'))",
                    "spec.namespaces[].labels must not set kubernetes.io or kekkai.dev labels; those are Kekkai's to set",
                )
            ]
        },
    )


class ClassQuota(Model):
    """Devices of one accelerator class. Use up to `nominal` is guaranteed, up to `nominal + borrow` is allowed."""

    accelerator: AcceleratorClass = Field(description="The class, such as H200.")
    nominal: int = Field(ge=0, le=1_000_000, description="Devices that are the tenant's own.")
    borrow: int = Field(
        default=0,
        ge=0,
        le=1_000_000,
        description="Devices beyond nominal that it may use while others do not.",
    )
    lend: int | None = Field(
        default=None,
        ge=0,
        le=1_000_000,
        description="Devices of nominal that others may use; all when unset.",
    )


class ObjectCounts(Model):
    """How many objects of a kind one namespace may hold (ResourceQuota `count/…`)."""

    pods: int = Field(default=2000, ge=0, le=1_000_000)
    jobs: int = Field(default=2000, ge=0, le=1_000_000)
    services: int = Field(default=50, ge=0, le=100_000)
    secrets: int = Field(default=200, ge=0, le=100_000)
    config_maps: int = Field(default=500, ge=0, le=100_000)
    persistent_volume_claims: int = Field(default=100, ge=0, le=100_000)
    replication_controllers: int = Field(default=20, ge=0, le=100_000)
    resource_quotas: int = Field(default=5, ge=1, le=1000)


class Ceiling(Model):
    """Hard limits of one namespace. The queue governs use; these stop runaways."""

    cpu: Quantity = Field(default="10000")
    memory: Quantity = Field(default="100Ti")
    ephemeral_storage: Quantity = Field(default="10Ti")
    objects: ObjectCounts = Field(default_factory=ObjectCounts)


class ContainerDefaults(Model):
    """Requests of containers that state none (LimitRange)."""

    cpu: Quantity = Field(default="500m")
    memory: Quantity = Field(default="512Mi")
    ephemeral_storage: Quantity = Field(default="1Gi")


class Isolation(Model):
    """How far apart from others the tenant's workloads run."""

    model_config = checked(
        rule(
            "!has(self.level) || self.level != 'dedicated' || (has(self.pools) && size(self.pools) > 0)",
            "spec.isolation.pools must name at least one AcceleratorPool when spec.isolation.level is dedicated",
        ),
    )
    level: Literal["shared", "dedicated", "confidential"] = Field(
        default="shared",
        description="shared: any pool. dedicated: only the pools named. confidential: only pools with a CPU TEE.",
    )
    pools: list[DnsLabel] = Field(
        default_factory=list, max_length=64, description="Pools that it may use; all when empty."
    )


class TenantNetwork(Model):
    """Traffic beyond the default: everything denied except within the tenant and to the cluster's DNS."""

    egress_cidrs: list[Annotated[str, Field(max_length=43)]] = Field(
        default_factory=list,
        max_length=32,
        description="Networks that its pods may call.",
        json_schema_extra={
            "x-kubernetes-validations": [
                rule(
                    "self.all(c, isCIDR(c))",
                    "spec.network.egressCidrs[] must be networks in CIDR form, such as 203.0.113.0/24",
                )
            ]
        },
    )


class Residency(Model):
    """Where data and computation may be: nowhere else."""

    jurisdictions: list[CountryCode] = Field(
        default_factory=list, max_length=64, description="Countries; any when empty."
    )


class TenantSpec(Model):
    """What the operator grants."""

    model_config = checked(
        rule(
            "self.namespaces.all(n, self.namespaces.exists_one(m, m.name == n.name))",
            "spec.namespaces: a name is listed twice; keep one entry a namespace",
        ),
        rule(
            "!has(self.quota) || self.quota.all(q, self.quota.exists_one(r, r.accelerator == q.accelerator))",
            "spec.quota: an accelerator class is listed twice; keep one entry a class",
        ),
        rule(
            "!has(self.quota) || self.quota.all(q, !has(q.lend) || q.lend <= q.nominal)",
            "spec.quota[].lend must not be above spec.quota[].nominal; lower lend",
        ),
        rule(
            "!has(self.drain) || !self.drain || (has(self.hold) && self.hold)",
            "spec.drain evicts what runs and needs spec.hold, or it would start again; set spec.hold to true as well",
        ),
    )
    owners: list[Owner] = Field(min_length=1, max_length=32, description="Who works in its namespaces.")
    namespaces: list[TenantNamespace] = Field(min_length=1, max_length=32, description="Its namespaces.")
    parent: DnsLabel | None = Field(
        default=None,
        description="The Tenant under which it stands. Tenants under one parent borrow from it and from each other "
        "first, and together stay within its quota and limits. A parent that does not exist yet counts as none.",
    )
    weight: int = Field(
        default=100, ge=1, le=1_000_000, description="Its share beside other tenants under the same parent."
    )
    quota: list[ClassQuota] = Field(
        default_factory=list,
        max_length=32,
        description="Devices by class; a class not listed is not allowed.",
    )
    queueing: Literal["bestEffort", "strict"] = Field(
        default="bestEffort",
        description="Whether a workload may start before one that is ahead of it and blocked. bestEffort: it may. "
        "strict: none overtakes another of this tenant.",
    )
    priority_ceiling: int | None = Field(
        default=None,
        ge=-1000,
        le=1000,
        description="Workloads of higher priority queue with this one; no cap when unset.",
    )
    hold: bool = Field(default=False, description="Stop admitting; what runs goes on.")
    drain: bool = Field(default=False, description="With hold: evict what runs too.")
    isolation: Isolation = Field(default_factory=Isolation)
    network: TenantNetwork = Field(default_factory=TenantNetwork)
    residency: Residency = Field(default_factory=Residency)
    ceiling: Ceiling = Field(default_factory=Ceiling)
    container_defaults: ContainerDefaults = Field(default_factory=ContainerDefaults)


class ClassUsage(Model):
    """Devices of one class that admitted workloads hold."""

    accelerator: AcceleratorClass
    used: int = Field(ge=0)
    nominal: int = Field(ge=0)
    borrowed: int = Field(default=0, ge=0, description="Devices used beyond nominal: others may reclaim them.")


class DecayedUse(Model):
    """Past use of one class, which fades with the half-life of fair sharing."""

    accelerator: AcceleratorClass
    milli_devices: int = Field(ge=0, description="Thousandths of a device, as of `since`.")
    held: int = Field(default=0, ge=0, description="Devices held from `since` on.")
    since: int = Field(ge=0, description="Seconds since the epoch when the use last changed.")


class TenantStatus(Model):
    """What the operators observed."""

    conditions: list[Condition] = Field(
        default_factory=list,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    )
    observed_generation: int = 0
    ready_namespaces: int = Field(default=0, ge=0, description="Namespaces whose isolation is in force.")
    pending_workloads: int = Field(default=0, ge=0)
    admitted_workloads: int = Field(default=0, ge=0)
    usage: list[ClassUsage] = Field(
        default_factory=list,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["accelerator"]},
    )
    borrowed: int = Field(default=0, ge=0, description="Devices used beyond nominal, over all classes.")
    share_per_mille: int = Field(
        default=0,
        ge=0,
        description="The largest part of any class's devices that it and the tenants under it use, in thousandths.",
    )
    decayed_usage: list[DecayedUse] = Field(
        default_factory=list,
        max_length=64,
        description="Kept here so that fair sharing survives a restart.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["accelerator"]},
    )


class Tenant(Resource):
    """Someone who shares the cloud."""

    model_config = checked(
        rule(
            "!has(self.spec.parent) || self.spec.parent != self.metadata.name",
            "spec.parent must be another Tenant; take it out, or name the Tenant above this one",
        ),
    )
    kind: Literal["Tenant"] = "Tenant"
    spec: TenantSpec
    status: TenantStatus = Field(default_factory=TenantStatus)
