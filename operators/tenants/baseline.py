"""Says in the SecurityBaseline's status how far it has come to the tenants' namespaces."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from crds.baseline import SecurityBaselineSpec
from crds.conditions import READY, set_condition
from crds.labels import MANAGER_TENANTS
from operators.runtime import Cluster, Key, Stores
from operators.runtime.controller import Touches
from operators.runtime.status import write_status
from operators.tenants.namespaces import pod_security_level
from operators.tenants.ownership import tenant_of

_NAMED = 5  # namespaces that a message names at most


class BaselineController:
    """Visits the one SecurityBaseline. What it asks for is put into force by the Tenant controller and at admission."""

    name = "baseline"
    workers = 1

    def __init__(
        self, cluster: Cluster, stores: Stores, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._cluster, self._stores, self._clock = cluster, stores, clock
        self._baselines, self._namespaces = stores.watch("SecurityBaseline"), stores.watch("Namespace")
        self.watches: Mapping[str, Touches] = {
            "SecurityBaseline": lambda obj: [("", obj["metadata"]["name"])],
            "Namespace": lambda obj: [("", one["metadata"]["name"]) for one in self._baselines if tenant_of(obj)],
        }

    async def reconcile(self, key: Key) -> float | None:
        """Read, decide, status."""
        obj = self._baselines.get(key[1])
        if obj is None or obj["metadata"].get("deletionTimestamp"):
            return None
        spec = SecurityBaselineSpec.model_validate(obj.get("spec") or {})
        verdict = in_force(spec, (one for one in self._namespaces if tenant_of(one)))
        generation = obj["metadata"].get("generation", 0)
        old = (obj.get("status") or {}).get("conditions")
        conditions = set_condition(old, READY, *verdict, self._clock(), generation)
        status = {"conditions": conditions, "observedGeneration": generation}
        await write_status(self._cluster, self._stores, obj, status, MANAGER_TENANTS)
        return None


def in_force(spec: SecurityBaselineSpec, namespaces: Iterable[Mapping[str, Any]]) -> tuple[bool, str, str]:
    """(status, reason, message) of Ready: whether every namespace of a tenant has the Pod Security level."""
    wanted, count, behind = spec.pod_security.level, 0, []
    for namespace in namespaces:
        if namespace["metadata"].get("deletionTimestamp"):
            continue
        count += 1
        if pod_security_level(namespace) != wanted:
            behind.append(namespace["metadata"]["name"])
    if behind:
        names = ", ".join(sorted(behind)[:_NAMED]) + (" and others" if len(behind) > _NAMED else "")
        return False, "RollingOut", f"{len(behind)} of {count} namespaces are not at level {wanted} yet: {names}"
    return True, "InForce", f"level {wanted} in {count} tenant namespace{'s' * (count != 1)}"
