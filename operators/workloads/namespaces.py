"""What a namespace says about its tenant."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from crds.labels import READY, TENANT

Object = Mapping[str, Any]


def tenant_of(namespace: Object | None) -> str:
    """The tenant that owns it; "" when none does. Only Kekkai may set that label (admission)."""
    if namespace is None:
        return ""
    return str((namespace["metadata"].get("labels") or {}).get(TENANT, ""))


def is_ready(namespace: Object | None) -> bool:
    """Whether its isolation is in force and it is not going away."""
    if namespace is None or namespace["metadata"].get("deletionTimestamp"):
        return False
    return (namespace["metadata"].get("labels") or {}).get(READY) == "true"
