"""Nodes worth giving back though something runs there: what that saves beside what it disturbs.

A node may go when every gang that holds a part of it fits whole on the other ready nodes of
its pool, by the placement code itself. A gang moves whole or not at all, and moving it costs
the work since its last checkpoint and its restart, on all of its devices. Proposals are made
whether or not they may be carried out now, so that they can be looked at first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from scheduler.fleet import Fleet, PoolState, WorkloadState
from scheduler.fleet.shape import Shape
from scheduler.placement.ask import Ask
from scheduler.placement.pool_supply import PoolSupply
from scheduler.placement.supply import Supply

Mode = Literal["Off", "DryRun", "Act"]
_HOUR = 3600.0


@dataclass(frozen=True, slots=True)
class Window:
    """Times at which nodes may be taken. `days`: 0 is Monday; minutes of the day in UTC; it may pass midnight."""

    days: frozenset[int]
    start: int
    minutes: int

    def holds(self, now: float) -> bool:
        """Whether `now` (seconds since the epoch) lies in it."""
        at = datetime.fromtimestamp(now, UTC)
        minute = at.hour * 60 + at.minute
        today = at.weekday() in self.days and self.start <= minute < self.start + self.minutes
        yesterday = (at.weekday() - 1) % 7 in self.days and minute < self.start + self.minutes - 1440
        return today or yesterday


@dataclass(frozen=True, slots=True)
class Policy:
    """How a pool is consolidated. `horizon`: seconds over which a saving is counted; `restart`: of a gang, seconds."""

    mode: Mode = "DryRun"
    nodes: int = 1  # at one time
    windows: tuple[Window, ...] = ()  # at any time when empty
    horizon: float = 4 * _HOUR
    restart: float = 300.0
    worth: float = 2.0  # the saving must be so many times the cost
    settle: float = 600.0  # seconds that a gang has run at least before it is moved


@dataclass(frozen=True, slots=True)
class Proposal:
    """One node. Amounts are millionths of the currency unit over the policy's horizon."""

    node: str
    machine: str
    pool: str
    saves_micro: int
    costs_micro: int
    moves: tuple[str, ...]  # workloads that would start again elsewhere
    act: bool  # whether it may be carried out now
    why_not: str = ""

    @property
    def gain_micro(self) -> int:
        """What is left of the saving."""
        return self.saves_micro - self.costs_micro


def consolidation(
    fleet: Fleet, policies: Mapping[str, Policy], now: float, protected: Set[str] = frozenset(), going: int = 0
) -> tuple[Proposal, ...]:
    """Proposals in the order of what they gain, each still good when those before it have been carried out.

    `policies`: by pool; others are left alone. `protected`: nodes and workloads (namespace/name)
    with the annotation that forbids disturbing them. `going`: nodes on their way out already,
    counted against every pool's budget. Nodes without a use are not among them: these go by
    the pool's delay. Nothing is proposed while somebody waits who could use the pool's room.
    """
    if fleet.pending:
        return ()
    supply = Supply(fleet)
    found: list[Proposal] = []
    for name in sorted(policies):
        policy, pool = policies[name], fleet.pools.get(name)
        if policy.mode == "Off" or pool is None or not pool.accepting:
            continue
        found.extend(_of_pool(fleet, supply, supply.pools[name], policy, now, protected, going))
    return tuple(found)


def _of_pool(
    fleet: Fleet,
    supply: Supply,
    have: PoolSupply,
    policy: Policy,
    now: float,
    protected: Set[str],
    going: int,
) -> list[Proposal]:
    pool = have.pool
    # Shares of devices stay where they are: which device they move to would have to be known.
    candidates = []
    for row in range(have.ready):
        node = have.names[row]
        holders = sorted(fleet.workload_holders(node))
        if not holders or node in protected or not fleet.nodes[node].machine:
            continue
        gangs = [fleet.workloads[key] for key in holders]
        if any(_stays(gang, policy, now, protected) for gang in gangs):
            continue
        saves = int(pool.price_micro * policy.horizon / _HOUR)
        costs = sum(_cost(fleet, gang, pool, policy, now) for gang in gangs)
        if saves > policy.worth * costs:
            candidates.append((costs, node, row, gangs))
    candidates.sort(key=lambda one: (one[0], one[1]))
    standing = fleet.standing(pool.name)
    out: list[Proposal] = []
    moved: set[str] = set()
    for costs, node, row, gangs in candidates:
        if standing - len(out) <= pool.minimum or moved & {gang.key for gang in gangs}:
            continue
        if not _fit_elsewhere(fleet, supply, have, row, gangs):
            continue
        moved.update(gang.key for gang in gangs)
        why_not = _why_not(policy, now, going + sum(1 for one in out if one.act))
        saves = int(pool.price_micro * policy.horizon / _HOUR)
        machine = fleet.nodes[node].machine
        keys = tuple(gang.key for gang in gangs)
        out.append(Proposal(node, machine, pool.name, saves, costs, keys, not why_not, why_not))
    return sorted(out, key=lambda one: (-one.gain_micro, one.node))


def _why_not(policy: Policy, now: float, going: int) -> str:
    if policy.mode != "Act":
        return "the pool's consolidation is a dry run"
    if policy.windows and not any(window.holds(now) for window in policy.windows):
        return "outside the pool's disruption windows"
    return f"{policy.nodes} nodes are on their way out already" if going >= policy.nodes else ""


def _stays(gang: WorkloadState, policy: Policy, now: float, protected: Set[str]) -> bool:
    shares = any(pod_set.milli < 1000 for pod_set in gang.pod_sets)
    return gang.key in protected or not gang.preemptible or shares or now < gang.admitted_at + policy.settle


def _cost(fleet: Fleet, gang: WorkloadState, pool: PoolState, policy: Policy, now: float) -> int:
    """The work since its last checkpoint and its restart, at the price of its devices."""
    devices = sum(fleet.devices_of(one.requests) * one.count for one in gang.pod_sets)
    lost = max(now - max(gang.checkpointed_at, gang.admitted_at), 0.0) + policy.restart
    return int(pool.price_micro / max(pool.per_node, 1) * max(devices, 1) * lost / _HOUR)


def _fit_elsewhere(fleet: Fleet, supply: Supply, have: PoolSupply, row: int, gangs: Sequence[WorkloadState]) -> bool:
    """Whether all of them, taken off, fit whole again without this row. Then they stay there; else all is as before."""
    before = have.free.copy()
    rows = {name: at for at, name in enumerate(have.names)}
    asks: list[Ask] = []
    for gang in gangs:
        ask = supply.ask(Shape(gang.pod_sets, gang.required_topology, "", gang.jurisdictions, gang.flavors))
        where = {node for _, node, _ in gang.placements}
        if ask is None or not where <= rows.keys() or any(rows[node] >= have.ready for node in where):
            return False
        asks.append(ask)
    for gang, ask in zip(gangs, asks, strict=True):
        pods = {pod.pod_set.name: pod for pod in ask.pods}
        for name, node, count in gang.placements:
            have.untake(pods[name], rows[node], count)
    have.free[row] = 0
    have.log.append(row)
    for ask in asks:
        if have.place(ask, have.ready) is None:
            have.free[:] = before
            have.log.extend(range(len(have)))
            return False
    return True
