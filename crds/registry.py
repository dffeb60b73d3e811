"""All kinds with how the API server lists them: scope, plural, short names, columns, scale."""

from __future__ import annotations

from dataclasses import dataclass, field

from crds.baseline import SecurityBaseline
from crds.labels import API_VERSION, GROUP
from crds.machine import Machine
from crds.meta import Resource
from crds.pool import AcceleratorPool
from crds.protectedkey import ProtectedKey
from crds.site import Site
from crds.tenant import Tenant
from crds.workload import Workload


@dataclass(frozen=True, slots=True)
class Column:
    """A printer column of `kubectl get`."""

    name: str
    path: str
    type: str = "string"
    wide: bool = False


def _condition(kind: str, field_name: str) -> str:
    return f'.status.conditions[?(@.type=="{kind}")].{field_name}'


READY = Column("Ready", _condition("Ready", "status"))
WHY = Column("Reason", _condition("Ready", "reason"))
AGE = Column("Age", ".metadata.creationTimestamp", "date")


@dataclass(frozen=True, slots=True)
class Kind:
    """How one model becomes a CustomResourceDefinition."""

    model: type[Resource]
    plural: str
    short: tuple[str, ...]
    namespaced: bool
    columns: tuple[Column, ...]
    scale: tuple[str, str, str] | None = None  # spec replicas, status replicas, label selector
    selectable: tuple[str, ...] = field(default=())

    @property
    def name(self) -> str:
        return self.model.__name__

    @property
    def crd_name(self) -> str:
        return f"{self.plural}.{GROUP}"

    @property
    def path(self) -> str:
        """Prefix of the REST path: cluster-wide list."""
        return f"/apis/{API_VERSION}/{self.plural}"


KINDS: tuple[Kind, ...] = (
    Kind(
        Site,
        "sites",
        ("ksite",),
        False,
        (
            Column("Jurisdiction", ".spec.jurisdiction"),
            Column("Nodes", ".status.nodes", "integer"),
            READY,
            AGE,
        ),
    ),
    Kind(
        AcceleratorPool,
        "acceleratorpools",
        ("apool", "apools"),
        False,
        (
            Column("Site", ".spec.site"),
            Column("Accelerator", ".spec.accelerator.type"),
            Column("PerNode", ".spec.accelerator.perNode", "integer"),
            Column("TEE", ".spec.confidential.cpu"),
            Column("Machines", ".status.replicas", "integer"),
            Column("ReadyNodes", ".status.machines.ready", "integer"),
            Column("Idle", ".status.machines.idle", "integer"),
            Column("Max", ".spec.scaling.max", "integer"),
            READY,
            Column("Min", ".spec.scaling.min", "integer", wide=True),
            Column("Price/h", ".spec.price.perNodeHour", wide=True),
            AGE,
        ),
        scale=(".spec.scaling.min", ".status.replicas", ".status.selector"),
        selectable=(".spec.site", ".spec.accelerator.type"),
    ),
    Kind(
        Machine,
        "machines",
        ("kmachine",),
        False,
        (
            Column("Pool", ".spec.pool"),
            Column("Node", ".status.nodeName"),
            READY,
            WHY,
            Column("ProviderID", ".status.providerID", wide=True),
            Column("Why", ".spec.reason", wide=True),
            AGE,
        ),
        selectable=(".spec.pool",),
    ),
    Kind(
        Tenant,
        "tenants",
        ("ktenant",),
        False,
        (
            Column("Weight", ".spec.weight", "integer"),
            Column("Isolation", ".spec.isolation.level"),
            Column("Namespaces", ".status.readyNamespaces", "integer"),
            Column("Pending", ".status.pendingWorkloads", "integer"),
            Column("Admitted", ".status.admittedWorkloads", "integer"),
            Column("Parent", ".spec.parent", wide=True),
            Column("Borrowed", ".status.borrowed", "integer", wide=True),
            Column("SharePerMille", ".status.sharePerMille", "integer", wide=True),
            Column("Hold", ".spec.hold", "boolean", wide=True),
            READY,
            AGE,
        ),
    ),
    Kind(
        SecurityBaseline,
        "securitybaselines",
        ("kbase",),
        False,
        (Column("PodSecurity", ".spec.podSecurity.level"), READY, AGE),
    ),
    Kind(
        Workload,
        "workloads",
        ("kwl",),
        True,
        (
            Column("Tenant", ".spec.tenant"),
            Column("Priority", ".spec.priority", "integer"),
            Column("Admitted", _condition("Admitted", "status")),
            Column("Finished", _condition("Finished", "status")),
            Column("Reason", ".status.reasons[0].code"),
            Column("Accelerator", ".status.admission.accelerator", wide=True),
            Column("Message", ".status.reasons[0].message", wide=True),
            AGE,
        ),
        selectable=(".spec.tenant",),
    ),
    Kind(
        ProtectedKey,
        "protectedkeys",
        ("pkey",),
        True,
        (
            Column("State", ".status.state"),
            Column("Version", ".status.version", "integer"),
            Column("Releases", ".status.releases", "integer"),
            READY,
            WHY,
            Column("Policy", ".status.policyDigest", wide=True),
            Column("LogEntry", ".status.logIndex", "integer", wide=True),
            AGE,
        ),
    ),
)

BY_NAME: dict[str, Kind] = {kind.name: kind for kind in KINDS}
