"""Workload: what waits for machines and keys. It alone holds admission, placement and reasons.

A user's own Job gets a shadow Workload (`spec.ref`); a Workload may also carry its Job
itself (`spec.job`).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from crds.conditions import Condition
from crds.dataflow import DataFlowStatus, ServiceWork
from crds.meta import (
    IMMUTABLE,
    AcceleratorClass,
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

TopologyLevel = Literal["nvlinkDomain", "rack", "block", "zone", "site"]
MAX_RUNTIME = 366 * 24 * 3600  # seconds


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

    model_config = checked(
        rule(
            "!has(self.minCount) || self.minCount <= self.count",
            "spec.podSets[].minCount must not be above spec.podSets[].count; lower minCount",
        ),
    )
    name: DnsLabel
    count: int = Field(ge=1, le=100_000, description="Pods that run at once.")
    min_count: int | None = Field(
        default=None, ge=1, le=100_000, description="It may start with as few as these; all of count when unset."
    )
    requests: dict[str, Quantity] = Field(default_factory=dict, max_length=32, description="Of one pod.")
    device_milli: int | None = Field(
        default=None, ge=1, le=1000, description="Thousandths of the one device that a pod asks for; whole when unset."
    )
    spread: TopologyLevel | None = Field(default=None, description="Level over which its pods are spread evenly.")
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
    required: TopologyLevel | None = None
    preferred: TopologyLevel | None = None


class AcceleratorChoice(Model):
    """An accelerator class that it can run on, and how fast it runs there."""

    type: AcceleratorClass = Field(description="The class, such as H200.")
    throughput: str = Field(
        default="1",
        pattern=r"^[0-9]{1,6}(\.[0-9]{1,6})?$",
        max_length=13,
        description="Work done in a time, beside the first of the list, which counts as 1; a decimal number above 0.",
        json_schema_extra=constrained(
            rule("double(self) > 0.0", "spec.accelerators[].throughput must be above 0; leave the class out instead")
        ),
    )


class PodsReadyPolicy(Model):
    """What is done when admitted pods do not become ready, or do not stay so."""

    model_config = checked(
        rule(
            "!has(self.backoffBaseSeconds) || !has(self.backoffMaxSeconds) "
            "|| self.backoffBaseSeconds <= self.backoffMaxSeconds",
            "spec.podsReady.backoffBaseSeconds must not be above spec.podsReady.backoffMaxSeconds; lower the base",
        ),
    )
    timeout_seconds: int = Field(
        ge=1, le=86_400, description="From admission; then it is stopped and queued again, later each time."
    )
    recovery_timeout_seconds: int | None = Field(
        default=None, ge=1, le=86_400, description="For pods that were ready once; without it they are waited for."
    )
    backoff_base_seconds: int = Field(default=60, ge=1, le=86_400, description="Pause after the first time.")
    backoff_max_seconds: int = Field(default=3600, ge=1, le=604_800, description="The pause doubles up to this.")
    backoff_limit: int | None = Field(
        default=None, ge=0, le=100, description="So many times it is queued again; then it stays out. Unset: always."
    )


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
            "(has(self.ref) ? 1 : 0) + (has(self.job) ? 1 : 0) + (has(self.service) ? 1 : 0) == 1",
            "spec: give exactly one of spec.job, spec.service and spec.ref",
        ),
        rule(
            "!has(oldSelf.ref) || (has(self.ref) && self.ref == oldSelf.ref)",
            "spec.ref cannot change; delete the Workload",
        ),
        rule(
            "!has(oldSelf.job) || (has(self.job) && self.job == oldSelf.job)",
            "spec.job cannot change once it is queued; delete the Workload and make another",
        ),
        rule(
            "!has(oldSelf.service) || (has(self.service) && self.service.target == oldSelf.service.target)",
            "spec.service.target cannot change; delete the Workload and make another",
        ),
        rule(
            "!has(self.accelerators) || self.accelerators.all(a, self.accelerators.exists_one(b, b.type == a.type))",
            "spec.accelerators: a class is listed twice; keep one entry a class",
        ),
        rule(
            "!has(self.admissionChecks) || self.admissionChecks.all(c, self.admissionChecks.exists_one(d, d == c))",
            "spec.admissionChecks: a check is listed twice; keep one entry a check",
        ),
    )
    ref: ObjectRef | None = Field(default=None, description="Written by the operator: the object this one shadows.")
    job: JobTemplate | None = Field(default=None, description="A Job to make.")
    service: ServiceWork | None = Field(default=None, description="A service whose replicas follow its data.")
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
    accelerators: list[AcceleratorChoice] = Field(
        default_factory=list, max_length=16, description="Classes it can run on, the best first; any when empty."
    )
    preemptible: bool = Field(default=True, description="false keeps it running when others would take its room.")
    maximum_runtime_seconds: int | None = Field(
        default=None,
        ge=1,
        le=MAX_RUNTIME,
        description="It is stopped for good after so long, all its runs together.",
    )
    pods_ready: PodsReadyPolicy | None = None
    admission_checks: list[DnsLabel] = Field(
        default_factory=list,
        max_length=8,
        description="Checks of other controllers that must be Ready before it starts (status.admissionChecks).",
    )
    keys: list[KeyRef] = Field(default_factory=list, max_length=16)


class Placement(Model):
    """So many pods of a set on a node."""

    pod_set: DnsLabel
    node: DnsName
    count: int = Field(ge=1)
    devices: list[int] = Field(
        default_factory=list,
        max_length=2000,
        description="Of pods that ask for a share of a device: the index of each pod's device on the node.",
    )


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


class CheckState(Model):
    """What the controller of an admission check says. Written by that controller."""

    name: DnsLabel
    state: Literal["Pending", "Ready", "Retry", "Rejected"] = Field(
        description="Retry: stop it and check anew. Rejected: it is out until spec.active is set false and true again."
    )
    message: str = Field(default="", max_length=4096)
    last_transition_time: str = Field(json_schema_extra={"format": "date-time"})
    pod_annotations: Annotated[dict[str, Annotated[str, Field(max_length=1024)]], Field(max_length=16)] = Field(
        default_factory=dict, description="Annotations that its pods get when they are let go."
    )


class Requeue(Model):
    """It was put back because its pods did not become ready."""

    count: int = Field(ge=0, description="How often.")
    not_before: str = Field(json_schema_extra={"format": "date-time"}, description="It waits at least until then.")


class WorkloadStatus(Model):
    """Admission, placement, and the reasons of any wait."""

    conditions: list[Condition] = Field(
        default_factory=list,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    )
    observed_generation: int = 0
    admission: Admission | None = None
    reasons: list[Reason] = Field(default_factory=list, max_length=16)
    requeue: Requeue | None = None
    past_runtime_seconds: int | None = Field(
        default=None, ge=0, description="Of its earlier runs, while spec.maximumRuntimeSeconds holds."
    )
    position: int | None = Field(
        default=None,
        ge=1,
        description="Place in its tenant's line by priority and age, 1 is the first; written seldom.",
    )
    admission_checks: list[CheckState] = Field(
        default_factory=list,
        max_length=16,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    )
    data_flow: DataFlowStatus | None = None


class Workload(Resource):
    """Something that waits for machines and keys, or holds them."""

    kind: Literal["Workload"] = "Workload"
    spec: WorkloadSpec
    status: WorkloadStatus = Field(default_factory=WorkloadStatus)
