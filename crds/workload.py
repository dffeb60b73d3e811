"""Workload: what waits for machines and keys. It alone holds admission, placement and reasons.

A user's own Job gets a shadow Workload (`spec.ref`); a Workload may also carry its Job
itself (`spec.job`).
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from crds.conditions import Condition
from crds.meta import (
    IMMUTABLE,
    CountryCode,
    DnsLabel,
    DnsName,
    Labels,
    Model,
    Resource,
    checked,
    constrained,
    rule,
)
from crds.quantities import Quantity


class ObjectRef(Model):
    """The object that this Workload stands for."""

    api_version: str = Field(max_length=253)
    kind: str = Field(max_length=63)
    name: DnsName
    uid: str = Field(max_length=63)


class JobTemplate(Model):
    """A batch/v1 Job that the operator makes for this Workload, suspended until it is admitted."""

    spec: dict[str, Any] = Field(
        description="batch/v1 JobSpec, without `suspend`, which is the queue's to set.",
        json_schema_extra=constrained(
            rule("has(self.template)", "spec.job.spec.template is missing; give the pod template of the Job"),
            rule(
                "!has(self.suspend)",
                "spec.job.spec.suspend is the queue's to set; remove it and use spec.active",
            ),
            rule(
                "!has(self.managedBy)",
                "spec.job.spec.managedBy would keep the Job from running; remove it",
            ),
            **{
                "x-kubernetes-preserve-unknown-fields": True,
                "properties": {
                    "template": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                    "suspend": {"type": "boolean"},
                    "managedBy": {"type": "string"},
                },
            },
        ),
    )


class Toleration(Model):
    """core/v1 Toleration."""

    key: str = ""
    operator: Literal["Exists", "Equal"] = "Equal"
    value: str = ""
    effect: Literal["", "NoSchedule", "PreferNoSchedule", "NoExecute"] = ""


class PodSet(Model):
    """Pods of one shape, as the scheduler counts them: init and sidecar containers and overhead included."""

    name: DnsLabel
    count: int = Field(ge=1, le=100_000, description="Pods that run at once.")
    requests: dict[str, Quantity] = Field(default_factory=dict, max_length=32, description="Of one pod.")
    node_selector: Labels = Field(default_factory=dict)
    tolerations: list[Toleration] = Field(default_factory=list, max_length=32)
    runtime_class_name: str = Field(default="", max_length=253)


class Topology(Model):
    """How close together the pods must be."""

    model_config = checked(
        rule(
            "!(has(self.required) && has(self.preferred))",
            "spec.topology: set required or preferred, not both",
        ),
    )
    required: Literal["nvlinkDomain", "rack", "block", "zone", "site"] | None = None
    preferred: Literal["nvlinkDomain", "rack", "block", "zone", "site"] | None = None


class WorkloadResidency(Model):
    """Where it may run; the tenant's residency holds as well."""

    jurisdictions: list[CountryCode] = Field(default_factory=list, max_length=64)


class KeyRef(Model):
    """A ProtectedKey of the same namespace that the workload unseals in its enclave."""

    name: DnsName


class WorkloadSpec(Model):
    """What the user asks for. For a shadow the operator derives it from the object it stands for."""

    model_config = checked(
        rule(
            "(has(self.ref) ? 1 : 0) + (has(self.job) ? 1 : 0) == 1",
            "spec: give exactly one of spec.job and spec.ref",
        ),
        rule(
            "!has(oldSelf.ref) || (has(self.ref) && self.ref == oldSelf.ref)",
            "spec.ref cannot change; delete the Workload",
        ),
        rule(
            "!has(oldSelf.job) || (has(self.job) && self.job == oldSelf.job)",
            "spec.job cannot change once it is queued; delete the Workload and make another",
        ),
    )
    ref: ObjectRef | None = Field(default=None, description="Written by the operator: the object this one shadows.")
    job: JobTemplate | None = Field(default=None, description="A Job to make.")
    tenant: DnsLabel | None = Field(
        default=None,
        description="Written by the operator from the namespace.",
        json_schema_extra=constrained(rule(IMMUTABLE, "spec.tenant cannot change; it follows the namespace")),
    )
    priority: int = Field(default=0, ge=-1000, le=1000, description="Higher goes first within what quota allows.")
    active: bool = Field(default=True, description="false takes it out of the queue, and stops it if it runs.")
    pod_sets: list[PodSet] = Field(default_factory=list, max_length=16, description="Written by the operator.")
    topology: Topology | None = None
    residency: WorkloadResidency | None = None
    keys: list[KeyRef] = Field(default_factory=list, max_length=16)


class Placement(Model):
    """So many pods of a set on a node."""

    pod_set: DnsLabel
    node: DnsName
    count: int = Field(ge=1)


class Admission(Model):
    """Where it was admitted to. All of a gang, or nothing."""

    accelerator: str = Field(default="", max_length=63, description="The class whose quota it uses.")
    admitted_at: str = Field(json_schema_extra={"format": "date-time"})
    placements: list[Placement] = Field(default_factory=list, max_length=20000)


class Reason(Model):
    """Why it waits, for programs and for people."""

    code: str = Field(max_length=63)
    message: str = Field(max_length=4096)
    nearest: str = Field(default="", max_length=4096, description="The nearest change that would admit it.")


class WorkloadStatus(Model):
    """Admission, placement, and the reasons of any wait."""

    conditions: list[Condition] = Field(
        default_factory=list,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    )
    observed_generation: int = 0
    admission: Admission | None = None
    reasons: list[Reason] = Field(default_factory=list, max_length=16)


class Workload(Resource):
    """Something that waits for machines and keys, or holds them."""

    kind: Literal["Workload"] = "Workload"
    spec: WorkloadSpec
    status: WorkloadStatus = Field(default_factory=WorkloadStatus)
