"""Labels on what Kekkai makes for a tenant, and whether an object says what is wanted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from crds.errors import InvalidInput
from crds.labels import MANAGED_BY, MANAGED_BY_VALUE, TENANT
from crds.quantities import milli


def labels(tenant: str) -> dict[str, str]:
    """On every managed object, so that it is found, guarded and mended."""
    return {TENANT: tenant, MANAGED_BY: MANAGED_BY_VALUE}


def tenant_of(obj: Mapping[str, Any]) -> str:
    """The tenant whose managed object, or whose namespace, this is; empty for none."""
    found: str = (obj["metadata"].get("labels") or {}).get(TENANT, "")
    return found


def says(present: Any, wanted: Any, quantities: bool = False) -> bool:
    """Whether every field of `wanted` stands in `present` with the same value (lists whole).

    With `quantities`, texts that are the same quantity are equal: the API server writes 10000 as 10k.
    """
    if isinstance(wanted, Mapping):
        return isinstance(present, Mapping) and all(
            says(present.get(key), value, quantities) for key, value in wanted.items()
        )
    if isinstance(wanted, list):
        return (
            isinstance(present, list)
            and len(present) == len(wanted)
            and all(says(one, other, quantities) for one, other in zip(present, wanted, strict=True))
        )
    return bool(present == wanted) or (quantities and _same_quantity(present, wanted))


def _same_quantity(present: Any, wanted: Any) -> bool:
    if not isinstance(present, str) or not isinstance(wanted, str):
        return False
    try:
        return milli(present) == milli(wanted)
    except InvalidInput:
        return False
