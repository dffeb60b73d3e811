"""Machine: one node to come, that is, or that goes. It is written BEFORE the provider is called."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from crds.conditions import Condition
from crds.meta import DnsLabel, DnsName, Model, Resource, checked, rule


class MachineTopology(Model):
    """The slot that the machine takes in the pool's interconnect; empty levels do not exist."""

    block: str = Field(default="", max_length=63)
    rack: str = Field(default="", max_length=63)
    nvlink_domain: str = Field(default="", max_length=63)


class MachineSpec(Model):
    """What was decided. It never changes: another decision is another Machine."""

    model_config = checked(
        rule("self == oldSelf", "spec of a Machine cannot change; delete it and let the pool make another"),
    )
    pool: DnsLabel = Field(description="The AcceleratorPool it belongs to.")
    client_token: str = Field(
        pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$",
        max_length=253,
        description="Makes the provider's create call idempotent: the same token is the same machine.",
    )
    topology: MachineTopology = Field(default_factory=MachineTopology)
    reason: str = Field(default="", max_length=1024, description="Why it was asked for.")


class MachineStatus(Model):
    """How far its life has come: Launched, Registered, Initialized, Drained, and Ready as the sum."""

    conditions: list[Condition] = Field(
        default_factory=list,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    )
    observed_generation: int = 0
    provider_id: str = Field(default="", max_length=512, alias="providerID", description="The provider's name for it.")
    node_name: DnsName | Literal[""] = Field(default="", description="The Node it became.")


class Machine(Resource):
    """One machine of a pool."""

    kind: Literal["Machine"] = "Machine"
    spec: MachineSpec
    status: MachineStatus = Field(default_factory=MachineStatus)
