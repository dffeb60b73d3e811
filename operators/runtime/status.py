"""One status patch a reconcile, and only when it differs."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from operators.runtime.cluster import ApiFault, Cluster, Object
from operators.runtime.resources import type_of
from operators.runtime.store import Stores


async def write_status(
    cluster: Cluster, stores: Stores, obj: Mapping[str, Any], status: Mapping[str, Any], manager: str
) -> bool:
    """Apply `status` as the whole of what `manager` says about `obj`. False when it is so already.

    Several managers may share a status if each keeps to its own top-level fields.
    """
    if not differs(obj, status, manager):
        return False
    meta = obj["metadata"]
    # The uid makes the apply fail rather than create or touch a later object of the same name.
    identity = {key: meta[key] for key in ("name", "namespace", "uid") if meta.get(key)}
    body: Object = {
        "apiVersion": obj["apiVersion"],
        "kind": obj["kind"],
        "metadata": identity,
        "status": dict(status),
    }
    stores.observe(await cluster.apply(body, manager, subresource="status"))
    return True


def change_of(obj: Mapping[str, Any], status: Mapping[str, Any], owns: Collection[str]) -> dict[str, Any]:
    """The RFC 7396 patch that makes the fields which are `owns` as `status` says; empty when they are so already."""
    present = obj.get("status") or {}
    change: dict[str, Any] = {field: value for field, value in status.items() if present.get(field) != value}
    change.update({field: None for field in owns if field in present and field not in status})
    for field, value in change.items():
        if isinstance(value, dict):
            # A merge patch adds to a mapping; what is not in it any more has to be named.
            change[field] = {**dict.fromkeys(present.get(field) or ()), **value}
    return change


async def patch_status(
    cluster: Cluster, stores: Stores, obj: Mapping[str, Any], change: Mapping[str, Any], manager: str
) -> None:
    """Merge a `change_of` a status, for kinds that are written hundreds of times a second.

    It costs the API server less than an apply and carries less. The resourceVersion makes it fail with a conflict
    when the object is not the one that was looked at; lists are replaced whole, so this is what keeps entries
    that others have written meanwhile.
    """
    meta = obj["metadata"]
    body = {"metadata": {"resourceVersion": meta["resourceVersion"], "uid": meta["uid"]}, "status": dict(change)}
    stores.observe(
        await cluster.merge_patch(type_of(obj), meta["name"], body, manager, meta.get("namespace"), "status")
    )


def differs(obj: Mapping[str, Any], status: Mapping[str, Any], manager: str) -> bool:
    """Whether the object's status says something else, in the fields that are this manager's or are to be."""
    present = obj.get("status") or {}
    if any(present.get(field) != value for field, value in status.items()):
        return True
    return any(field in present and field not in status for field in _stated(obj, manager))


def _stated(obj: Mapping[str, Any], manager: str) -> set[str]:
    """The top-level status fields that this manager applied before (metadata.managedFields)."""
    fields: set[str] = set()
    for entry in obj["metadata"].get("managedFields") or ():
        if entry.get("manager") == manager and entry.get("subresource") == "status":
            stated = (entry.get("fieldsV1") or {}).get("f:status") or {}
            fields |= {name[2:] for name in stated if name.startswith("f:")}
    return fields


async def add_finalizer(cluster: Cluster, stores: Stores, obj: Object, finalizer: str, manager: str) -> Object:
    """Make sure the finalizer is there before the first side effect; returns the newest object."""
    present = obj["metadata"].get("finalizers") or []
    if finalizer in present:
        return obj
    return await _set_finalizers(cluster, stores, obj, [*present, finalizer], manager)


async def drop_finalizer(cluster: Cluster, stores: Stores, obj: Object, finalizer: str, manager: str) -> None:
    """Let the object go; to be called when nothing of it is left."""
    present = obj["metadata"].get("finalizers") or []
    if finalizer not in present:
        return
    try:
        left = await _set_finalizers(cluster, stores, obj, [f for f in present if f != finalizer], manager)
    except ApiFault as fault:
        if not fault.gone:
            raise
        left = obj
    if left is obj or (left["metadata"].get("deletionTimestamp") and not left["metadata"].get("finalizers")):
        stores.forget(left)  # the last finalizer was ours: it is gone, though its event is still under way


async def _set_finalizers(cluster: Cluster, stores: Stores, obj: Object, finalizers: list[str], manager: str) -> Object:
    meta = obj["metadata"]
    patch = {"metadata": {"finalizers": finalizers, "resourceVersion": meta["resourceVersion"], "uid": meta["uid"]}}
    fresh = await cluster.merge_patch(type_of(obj), meta["name"], patch, manager, meta.get("namespace"))
    stores.observe(fresh)
    return fresh
