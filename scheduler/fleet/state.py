"""The inputs of a plan, as frozen values. All quantities are integers.

Resource amounts are in the units of `crds.quantities.resource_units`: milli-CPU for
`cpu`, whole units (bytes, devices, pods) for all else. Times are seconds since the epoch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Resources = Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Taint:
    """core/v1 Taint."""

    key: str
    value: str = ""
    effect: str = "NoSchedule"


@dataclass(frozen=True, slots=True)
class Toleration:
    """core/v1 Toleration. An empty key with operator Exists tolerates all."""

    key: str = ""
    operator: str = "Equal"
    value: str = ""
    effect: str = ""

    def tolerates(self, taint: Taint) -> bool:
        """Whether the taint does not keep a pod with this toleration away."""
        if self.effect and self.effect != taint.effect:
            return False
        if self.operator == "Exists":
            return self.key in {"", taint.key}
        return self.key == taint.key and self.value == taint.value


@dataclass(frozen=True, slots=True)
class NodeState:
    """A node that the cluster has."""

    name: str
    pool: str = ""  # empty: not a node of ours
    machine: str = ""
    site: str = ""
    zone: str = ""
    block: str = ""
    rack: str = ""
    nvlink_domain: str = ""
    accelerator: str = ""
    confidential: str = "none"
    allocatable: Resources = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[Taint, ...] = ()
    ready: bool = True  # Ready condition, devices registered, startup taint gone
    schedulable: bool = True  # neither cordoned nor draining


@dataclass(frozen=True, slots=True)
class PoolState:
    """A pool and what a node of it will look like."""

    name: str
    site: str
    jurisdiction: str
    accelerator: str
    resource: str
    per_node: int
    allocatable: Resources
    minimum: int
    maximum: int
    headroom: int = 0
    scale_down_delay: float = 600.0
    cooldown: float = 0.0  # seconds after growth in which no machine of the pool goes
    forecast_quantile: float = 0.0  # of what starts while a machine comes, kept free; 0: nothing is
    forecast_half_life: float = 3600.0
    provisioning: float = 300.0  # seconds that a machine takes to come
    price_micro: int = 0  # per node and hour, millionths of the currency unit
    confidential: str = "none"
    labels: Mapping[str, str] = field(default_factory=dict)  # of its nodes, topology excepted
    taints: tuple[Taint, ...] = ()
    nodes_per_nvlink_domain: int = 0  # 0: the level does not exist
    nodes_per_rack: int = 0
    racks_per_block: int = 0
    accepting: bool = True  # false while it is deleted or its site is unknown


@dataclass(frozen=True, slots=True)
class MachineState:
    """A Machine object: coming until its node is ready, going once it is being deleted."""

    name: str
    pool: str
    node: str = ""
    going: bool = False
    block: str = ""
    rack: str = ""
    nvlink_domain: str = ""


@dataclass(frozen=True, slots=True)
class ClassQuota:
    """Devices of one accelerator class."""

    nominal: int
    borrow: int = 0
    lend: int | None = None


@dataclass(frozen=True, slots=True)
class TenantState:
    """A tenant's rights."""

    name: str
    weight: int = 100
    quota: Mapping[str, ClassQuota] = field(default_factory=dict)
    hold: bool = False
    isolation: str = "shared"  # shared, dedicated, confidential
    pools: frozenset[str] = frozenset()  # that it may use; all when empty
    jurisdictions: frozenset[str] = frozenset()  # where it may run; anywhere when empty
    parent: str = ""  # the tenant under whose quota this one stands; empty: it is a root
    strict: bool = False  # its workloads go in strict order: none overtakes one that is blocked
    drain: bool = False  # with `hold`: what runs is evicted too
    priority_ceiling: int | None = None  # its workloads' priority counts as this at most; None: no ceiling


@dataclass(frozen=True, slots=True)
class PodSet:
    """Pods of one shape. `count` is how many run at once, or nothing runs."""

    name: str
    count: int
    requests: Resources
    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: tuple[Toleration, ...] = ()
    confidential: bool = False  # its runtime class needs a node with a CPU TEE
    min_count: int = 0  # it may start with as few as these; 0: all of `count`, or nothing
    milli: int = 1000  # of each device it asks for; less than 1000 is a share of one device
    spread: str = ""  # topology level over which its pods are spread evenly; empty: it does not matter


@dataclass(frozen=True, slots=True)
class WorkloadState:
    """Something that waits, runs or has ended.

    `placements` are the (pod set, node, count) it holds now: (), while it waits; those of
    its admission, less pods that have ended, while it runs.
    """

    key: str  # namespace/name
    uid: str
    tenant: str
    created_at: float
    pod_sets: tuple[PodSet, ...]
    priority: int = 0
    active: bool = True
    admitted: bool = False
    accelerator: str = ""  # of its admission
    placements: tuple[tuple[str, str, int], ...] = ()
    devices: tuple[tuple[str, str, tuple[int, ...]], ...] = ()  # (pod set, node, device of each pod) of shares
    finished: bool = False
    required_topology: str = ""  # nvlinkDomain, rack, block, zone, site
    preferred_topology: str = ""
    jurisdictions: frozenset[str] = frozenset()
    admitted_at: float = 0.0
    checkpointed_at: float = 0.0  # work done before is not lost when it is evicted; 0: it never said so
    max_runtime: float = 0.0  # seconds after which it is stopped; 0: unknown
    not_before: float = 0.0  # put back after a failure: it waits at least until then
    checks_passed: bool = True  # the admission checks of others (budget, residency …) let it pass
    preemptible: bool = True
    movable: bool = False  # pods of it that are lost come again one by one, while the others run
    flavors: tuple[tuple[str, float], ...] = ()  # (accelerator class, its throughput beside the first); any when empty


@dataclass(frozen=True, slots=True)
class BoundPod:
    """A pod that others placed (DaemonSets, system pods): it takes room and nothing else."""

    key: str  # namespace/name
    node: str
    requests: Resources
    keeps_node: bool = False  # whether its node counts as used: false for DaemonSets, which go with their node
