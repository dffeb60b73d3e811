"""What a Tenant's Ready condition says."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from operators.tenants.namespaces import Split


def ready_condition(plan: Split, ready: Collection[str], refused: Mapping[str, str]) -> tuple[bool, str, str]:
    """(status, reason, message). `refused`: namespace → what the API server said to what we wanted in it."""
    if plan.conflicts:
        names = ", ".join(plan.conflicts)
        return (
            False,
            "NamespaceConflict",
            f"spec.namespaces: {names} exists and is not this tenant's; choose another name or delete it",
        )
    if refused:
        said = "; ".join(f"{name}: {why}" for name, why in sorted(refused.items()))
        return False, "ApplyRefused", f"the API server refused an object of this tenant: {said}"
    waiting = [wanted.name for wanted in plan.ours if wanted.name not in ready]
    if waiting:
        return False, "IsolationPending", f"quota and policies of {', '.join(waiting)} are not in force yet"
    return True, "Isolated", f"{len(ready)} namespaces in force"
