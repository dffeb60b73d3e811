"""What one plan can give away, pool by pool. A scratch copy: taking room changes nothing in the fleet."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping

import numpy as np

from crds.labels import BLOCK, MACHINE, NVLINK_DOMAIN, RACK, ZONE
from scheduler.fleet import Fleet, MachineState, PodSet, PoolState
from scheduler.fleet.attributes import Codes
from scheduler.fleet.devices import charged, whole_amounts
from scheduler.fleet.shape import Shape
from scheduler.placement.ask import Ask, PodAsk
from scheduler.placement.bestfit import Ints, Mask
from scheduler.placement.eligibility import shape_refuses
from scheduler.placement.fragments import MILLI, PodShape, Worth, devices_bound, typical
from scheduler.placement.pool_rows import NewRow
from scheduler.placement.pool_supply import PoolSupply
from scheduler.placement.ranking import Ranking
from scheduler.placement.seen import pod_shape, seen_in

_TYPICAL = 64  # shapes of pods that scores look at
_LABEL_OF = {"block": BLOCK, "rack": RACK, "nvlinkDomain": NVLINK_DOMAIN}


class Supply:
    """The supply of all pools in one plan."""

    def __init__(self, fleet: Fleet, seen: Mapping[PodShape, int] | None = None) -> None:
        """`seen`: pods by shape, for whose like the scores keep room; those of the pending workloads when absent."""
        self._fleet = fleet
        self._seen = seen
        self._mix: Worth | None = None
        self._devices = {pool.resource for pool in fleet.pools.values()}
        self._classes = sorted({pool.accelerator for pool in fleet.pools.values()})
        self._asks: dict[Shape, Ask | None] = {}
        for pool in fleet.pools.values():
            for resource in ("cpu", "memory", "pods", pool.resource, *pool.allocatable):
                fleet.table.column(resource)  # a column more changes no value: the fleet stays as it was
        self.width = fleet.table.allocatable.shape[1]
        self._vectors = {pool.name: self._vector(pool) for pool in fleet.pools.values()}
        self.pools: dict[str, PoolSupply] = {name: self._pool(fleet.pools[name]) for name in sorted(fleet.pools)}

    def ask(self, shape: Shape) -> Ask | None:
        """What workloads of this shape ask for; None when a resource is offered nowhere."""
        if shape not in self._asks:
            self._asks[shape] = self._ask(shape)
        return self._asks[shape]

    @property
    def columns(self) -> Mapping[str, int]:
        """Resource → its column."""
        return {name: column for name, column in self._fleet.table.columns.items() if column < self.width}

    def node_vector(self, pool: PoolState) -> Ints:
        """What a fresh node of the pool offers, by resource column."""
        return self._vectors[pool.name]

    def _vector(self, pool: PoolState) -> Ints:
        vector = np.zeros(self.width, dtype=np.int64)
        for name, amount in pool.allocatable.items():
            vector[self._fleet.table.columns[name]] = amount
        return vector

    def _ask(self, shape: Shape) -> Ask | None:
        columns = self._fleet.table.columns
        pods = []
        for pod_set in shape.pod_sets:
            one = pod_shape(pod_set, self._fleet.devices_of(pod_set.requests), (name for name, _ in shape.flavors))
            amounts = {name: amount for name, amount in pod_set.requests.items() if amount}
            if one is None or not amounts.keys() <= columns.keys():
                return None
            amounts = dict(whole_amounts(amounts, pod_set.milli, self._devices))
            request = np.zeros(self.width, dtype=np.int64)
            for name, amount in amounts.items():
                request[columns[name]] += amount
            request[columns["pods"]] += 1
            suits = (tuple(sorted(pod_set.node_selector.items())), pod_set.tolerations, pod_set.confidential)
            room = (request.tobytes(), one.milli, suits)
            pods.append(PodAsk(pod_set, pod_set.count, request, suits, room, one))
        devices = sum(charged(pod.pod.devices, pod.count, pod.pod.milli) for pod in pods)
        return Ask(shape, tuple(pods), devices)

    def _pool(self, pool: PoolState) -> PoolSupply:
        fleet = self._fleet
        names, rows = fleet.ready_nodes(pool.name)
        device = fleet.table.columns[pool.resource]
        cpu, memory = fleet.table.columns["cpu"], fleet.table.columns["memory"]
        supply = PoolSupply(
            pool,
            names,
            fleet.table.free(rows)[:, : self.width],
            device,
            _ReadyNodes(fleet, pool, names, rows),
            lambda made: Ranking(made, cpu, memory, self._worth, self._classes.index(pool.accelerator)),
            fleet.table.allocatable[rows, device],
            self._shared(names),
        )
        for name in sorted(fleet.coming_of_pool.get(pool.name, ())):
            self._add_coming(supply, fleet.machines[name])
        return supply

    def _shared(self, names: list[str]) -> dict[int, Mapping[int, int]]:
        # `names` are in order; few nodes are shared.
        found: dict[int, Mapping[int, int]] = {}
        for name, held in self._fleet.devices.of_node.items():
            at = bisect_left(names, name)
            if at < len(names) and names[at] == name:
                found[at] = held
        return found

    def _worth(self) -> Worth:
        if self._mix is None:
            seen = self._seen
            if seen is None:
                seen = seen_in(self._fleet.shapes.counted(), self._fleet.devices_of)
            mix = typical(seen, most=_TYPICAL)
            self._mix = Worth(mix, self._classes, reach=devices_bound(mix, *self._totals()), modes=True)
        return self._mix

    def _totals(self) -> tuple[int, int, int]:
        """CPU, memory and milli-devices of the ready nodes that have devices."""
        table, cpu, memory, devices = self._fleet.table, 0, 0, 0
        for pool in self._fleet.pools.values():
            rows = self._fleet.ready_nodes(pool.name)[1]
            cpu += int(table.allocatable[rows, table.columns["cpu"]].sum())
            memory += int(table.allocatable[rows, table.columns["memory"]].sum())
            devices += int(table.allocatable[rows, table.columns[pool.resource]].sum())
        return cpu, memory, MILLI * devices

    def _add_coming(self, supply: PoolSupply, machine: MachineState) -> None:
        node = self._fleet.nodes.get(machine.node)
        vector = self._vectors[supply.pool.name]
        domains = {"nvlinkDomain": machine.nvlink_domain, "rack": machine.rack, "block": machine.block}
        row = new_row(supply.pool, machine.name, domains)
        if node is not None:
            if not node.schedulable:
                return
            # It has joined, but its devices are not there yet or its kubelet is silent: pods may be on it.
            vector = vector - self._fleet.table.used[self._fleet.table.rows[node.name]][: self.width]
            if node.name in self._fleet.devices.of_node:
                vector[self._fleet.table.columns[supply.pool.resource]] = 0  # which devices is told when it is ready
            row = NewRow(row.name, node.labels, row.domains)
        supply.add([row], vector.reshape(1, -1))


def new_row(pool: PoolState, machine: str, domains: Mapping[str, str]) -> NewRow:
    """The row of a machine of a pool whose node is not known yet.

    Its host name is not known either, so that nothing is bought for pods that select one.
    """
    labels = {**pool.labels, MACHINE: machine}
    labels.update({label: domains[level] for level, label in _LABEL_OF.items() if domains.get(level)})
    return NewRow(machine, labels, {**domains, "zone": pool.labels.get(ZONE, ""), "site": pool.site})


class _ReadyNodes:
    """The ready nodes of a pool, read from the fleet's columns when somebody asks."""

    def __init__(self, fleet: Fleet, pool: PoolState, names: list[str], rows: Ints) -> None:
        self._fleet, self._pool, self._names, self._rows = fleet, pool, names, rows

    def mask(self, pod_set: PodSet) -> Mask:
        mask = np.ones(len(self._names), dtype=np.bool_)
        for key, value in pod_set.node_selector.items():
            column = self._fleet.label_column(key)
            code = column.of.get(value)
            mask &= column.codes[self._rows] == code if code is not None else np.False_
        for name in self._fleet.tainted_of_pool.get(self._pool.name, ()):
            node = self._fleet.nodes[name]
            # The pool's own taints were looked at before; this is about a node's further ones.
            if node.taints != self._pool.taints and shape_refuses(pod_set, node.labels, node.taints, node.confidential):
                at = bisect_left(self._names, name)
                if at < len(self._names) and self._names[at] == name:
                    mask[at] = False
        return mask

    def domains(self, level: str) -> tuple[Codes, list[str]]:
        column = self._fleet.attributes.level(level)
        return column.codes[self._rows], column.values
