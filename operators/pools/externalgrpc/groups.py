"""Node groups: pools that an external autoscaler sizes, and their Machines, as the protocol speaks of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from crds.conditions import INITIALIZED, LAUNCHED, REGISTERED, find, is_true
from crds.errors import InvalidInput, NotFound
from crds.labels import MACHINE, POOL
from operators.runtime import Stores
from scheduler.autoscale.slots import domains_of, machine_name
from scheduler.decision import MachineRequest
from scheduler.objects.fleet_objects import is_going, pool_state

Object = Mapping[str, Any]
OUT_OF_RESOURCES, OTHER_ERROR = 1, 99  # InstanceErrorClass of Cluster Autoscaler's cloudprovider package
_WAITING = frozenset({"Throttled", "NotLaunched"})  # reasons that are no fault


@dataclass(frozen=True, slots=True)
class Member:
    """A Machine as an instance of its group."""

    id: str  # the provider id of its node; before that is known, one of our own
    state: Literal["creating", "running", "deleting"]
    error_code: str = ""
    error_message: str = ""
    error_class: int = 0


class Groups:
    """Reads the stores; changes nothing."""

    def __init__(self, stores: Stores) -> None:
        self.pools, self.machines = stores.watch("AcceleratorPool"), stores.watch("Machine")
        self._of_pool = self.machines.index("pool", lambda machine: (machine["spec"]["pool"],))

    def all(self) -> list[dict[str, Any]]:
        """The pools that are node groups, by name."""
        found = [pool for pool in self.pools if _is_group(pool)]
        return sorted(found, key=lambda pool: str(pool["metadata"]["name"]))

    def get(self, name: str) -> dict[str, Any]:
        """The pool of a group. Raises NotFound."""
        pool = self.pools.get(name)
        if pool is None or not _is_group(pool):
            raise NotFound(f"there is no node group {name!r}", where="id", fix="ask NodeGroups for those that exist")
        return pool

    def standing(self, name: str) -> list[dict[str, Any]]:
        """Machines that count for the target size, by name."""
        found = [machine for machine in self._of_pool.get(name) if not is_going(machine)]
        return sorted(found, key=lambda machine: str(machine["metadata"]["name"]))

    def members(self, name: str) -> list[Member]:
        """All instances, those that go too."""
        found = sorted(self._of_pool.get(name), key=lambda machine: str(machine["metadata"]["name"]))
        return [member(machine) for machine in found]

    def of_node(self, provider_id: str, name: str, labels: Mapping[str, str]) -> dict[str, Any] | None:
        """The Machine of a node of some group, None when the autoscaler should leave the node alone."""
        machine = self.machines.get(labels.get(MACHINE, ""))
        if machine is None or (provider_id and identity(machine) != provider_id):
            named = (one for one in self.machines if provider_id and identity(one) == provider_id)
            machine = next(named, None)
        if machine is None and not provider_id:
            machine = next((one for one in self.machines if name and _node_name(one) == name), None)
        if machine is None:
            return None
        pool = self.pools.get(machine["spec"]["pool"])
        return machine if pool is not None and _is_group(pool) else None

    def pool_of_labels(self, labels: Mapping[str, str]) -> dict[str, Any]:
        """The group that a node, or the template of one, says it is of. Raises NotFound."""
        return self.get(labels.get(POOL, ""))

    def requests(self, name: str, delta: int) -> list[MachineRequest]:
        """Machines in the lowest free slots. Raises InvalidInput when the group's maximum forbids."""
        pool = self.get(name)
        most = pool["spec"]["scaling"]["max"]
        target = len(self.standing(name))
        if delta <= 0:
            raise InvalidInput(f"delta is {delta}", where="delta", fix="give a positive number")
        if target + delta > most:
            raise InvalidInput(
                f"{target} + {delta} machines are more than the {most} of group {name}",
                where="delta",
                fix="ask for fewer",
            )
        taken = {machine["metadata"]["name"] for machine in self._of_pool.get(name)}
        state = pool_state(pool, None)
        slots = (slot for slot in range(most + len(taken)) if machine_name(state, slot) not in taken)
        out: list[MachineRequest] = []
        for slot in slots:
            if len(out) == delta:
                break
            at = domains_of(state, slot)
            reason = "Cluster Autoscaler increased the size"
            out.append(
                MachineRequest(name, machine_name(state, slot), at["block"], at["rack"], at["nvlinkDomain"], reason)
            )
        return out

    def unfulfilled(self, name: str, count: int) -> list[dict[str, Any]]:
        """`count` machines that are no nodes yet, those least far first. Raises InvalidInput when there are fewer."""
        waiting = [machine for machine in self.standing(name) if not is_true(machine, REGISTERED)]
        if count > len(waiting):
            raise InvalidInput(
                f"only {len(waiting)} machines of group {name} have not become nodes",
                where="delta",
                fix="remove nodes by NodeGroupDeleteNodes",
            )
        waiting.sort(key=lambda one: (is_true(one, LAUNCHED), one["metadata"]["name"]))
        return waiting[:count]


def member(machine: Object) -> Member:
    """How a Machine looks to the autoscaler."""
    if is_going(machine):
        return Member(identity(machine), "deleting")
    if is_true(machine, INITIALIZED):
        return Member(identity(machine), "running")
    launched = find((machine.get("status") or {}).get("conditions"), LAUNCHED)
    if launched is None or launched["status"] == "True" or launched["reason"] in _WAITING:
        return Member(identity(machine), "creating")
    kind = OUT_OF_RESOURCES if launched["reason"] == "OutOfCapacity" else OTHER_ERROR
    return Member(identity(machine), "creating", launched["reason"], str(launched.get("message", "")), kind)


def identity(machine: Object) -> str:
    """The instance id of a Machine."""
    known = (machine.get("status") or {}).get("providerID")
    return str(known or f"kekkai://{machine['spec']['pool']}/{machine['spec']['clientToken']}")


def _node_name(machine: Object) -> str:
    return str((machine.get("status") or {}).get("nodeName") or "")


def _is_group(pool: Object) -> bool:
    return pool["spec"]["scaling"].get("driver") == "External" and not is_going(pool)
