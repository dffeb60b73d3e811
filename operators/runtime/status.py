"""One status patch a reconcile, and only when it differs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from operators.runtime.cluster import Cluster, Object
from operators.runtime.resources import type_of
from operators.runtime.store import Stores


async def write_status(
    cluster: Cluster, stores: Stores, obj: Mapping[str, Any], status: Mapping[str, Any], manager: str
) -> bool:
    """Apply `status` as the whole of what `manager` says about `obj`. False when it is so already."""
    if (obj.get("status") or {}) == dict(status):
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


async def add_finalizer(cluster: Cluster, stores: Stores, obj: Object, finalizer: str, manager: str) -> Object:
    """Make sure the finalizer is there before the first side effect; returns the newest object."""
    present = obj["metadata"].get("finalizers") or []
    if finalizer in present:
        return obj
    return await _set_finalizers(cluster, stores, obj, [*present, finalizer], manager)


async def drop_finalizer(cluster: Cluster, stores: Stores, obj: Object, finalizer: str, manager: str) -> None:
    """Let the object go; to be called when nothing of it is left."""
    present = obj["metadata"].get("finalizers") or []
    if finalizer in present:
        await _set_finalizers(cluster, stores, obj, [f for f in present if f != finalizer], manager)


async def _set_finalizers(cluster: Cluster, stores: Stores, obj: Object, finalizers: list[str], manager: str) -> Object:
    meta = obj["metadata"]
    patch = {"metadata": {"finalizers": finalizers, "resourceVersion": meta["resourceVersion"], "uid": meta["uid"]}}
    fresh = await cluster.merge_patch(type_of(obj), meta["name"], patch, manager, meta.get("namespace"))
    stores.observe(fresh)
    return fresh
