"""What is asked, what is on offer, and what was decided to buy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from scheduler.fleet import PodSet, Taint

Resources = Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Offering:
    """Nodes of one kind that may be bought: an instance type in a zone, at a price.

    `allocatable` as of a pool (`crds.quantities.resource_units`); `price_micro` a node-hour,
    millionths. `slots` of a level: free slots of each of its domains, for gangs that need one.
    """

    name: str
    pool: str
    allocatable: Resources
    price_micro: int
    capacity_type: str = "on-demand"  # reserved, on-demand, spot
    zone: str = ""
    accelerator: str = ""
    resource: str = ""  # that its devices are; empty: it has none
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[Taint, ...] = ()
    confidential: str = "none"
    watts: int = 0  # of one node at most
    limit: int | None = None  # nodes that may still be bought; None: any number
    slots: Mapping[str, Sequence[int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Demand:
    """Pods that wait and start together, or not at all.

    `topology`: all of them inside one domain of that level: hostname, zone, or a level of
    the offerings' `slots`. `single_pool`: all on nodes of one pool. `counted_as`: pods of the
    same word are counted together, where a pod set's `spread` over zones is to be even, and
    where, with `apart`, a node may hold only one of them. A pod set's `min_count` lets the
    demand start with fewer.
    """

    key: str
    pods: tuple[PodSet, ...]
    topology: str = ""
    single_pool: bool = False
    counted_as: str = ""
    apart: bool = False
    rank: int = 0  # when bounds bind, the lower ranks go first
    flavors: tuple[tuple[str, float], ...] = ()  # (accelerator, throughput beside the first); any when empty
    capacity_types: frozenset[str] = frozenset()  # that it accepts; any when empty
    pools: frozenset[str] = frozenset()  # that it may use; any when empty


@dataclass(frozen=True, slots=True)
class Room:
    """Nodes that are there or coming, with room that costs nothing more. `count` equal ones."""

    name: str
    offering: Offering  # what kind of node; its allocatable is not looked at
    free: Resources
    count: int = 1


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one purchase may come to at most; None: no bound."""

    nodes: int | None = None
    cost_micro: int | None = None  # an hour
    watts: int | None = None


@dataclass(frozen=True, slots=True)
class BoughtNode:
    """`times` equal nodes and what each is to hold: (group, pods)."""

    offering: Offering
    pods: tuple[tuple[int, int], ...]
    times: int
    domain: str = ""  # of the topology level of the gang that it was bought for
    gang: str = ""  # key of the gang whose nodes stand together


@dataclass(frozen=True, slots=True)
class Order:
    """So many nodes of an offering."""

    offering: Offering
    count: int


@dataclass(frozen=True)
class Purchase:
    """The decision. Deterministic: equal inputs give equal purchases."""

    nodes: tuple[BoughtNode, ...]
    groups: tuple[PodSet, ...]  # what a group's pods look like, by group
    unmet: Mapping[str, str]  # demand → why nothing is bought for it
    reduced: Mapping[str, tuple[int, ...]] = field(default_factory=dict)  # demand → pods of each set, where fewer
    members: Mapping[int, tuple[tuple[str, int], ...]] = field(default_factory=dict)  # group → (demand, pods)

    @cached_property
    def orders(self) -> tuple[Order, ...]:
        """Nodes by offering, in the order of offerings' names."""
        counts: dict[str, int] = {}
        offerings = {node.offering.name: node.offering for node in self.nodes}
        for node in self.nodes:
            counts[node.offering.name] = counts.get(node.offering.name, 0) + node.times
        return tuple(Order(offerings[name], counts[name]) for name in sorted(counts))

    @property
    def cost_micro(self) -> int:
        """An hour of all that is bought."""
        return sum(order.count * order.offering.price_micro for order in self.orders)

    @property
    def count(self) -> int:
        """Nodes."""
        return sum(order.count for order in self.orders)

    @property
    def watts(self) -> int:
        """Of all that is bought, at most."""
        return sum(order.count * order.offering.watts for order in self.orders)
