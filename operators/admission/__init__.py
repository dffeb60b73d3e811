"""The policies that the API server itself enforces: one file a property.

Races between what a user does and what an operator notices are closed here, at
admission, not by reconciling faster. `manifests()` gives the documents in order,
`install()` applies them and returns once the API server refuses what it should.
"""

from __future__ import annotations

import asyncio
import copy
import time
from pathlib import Path
from typing import Any

import yaml

from crds.errors import Unavailable
from operators.runtime.cluster import ApiFault, Cluster

MANAGER = "kekkai-install"
_PATIENCE_SECONDS = 60.0
_PROBE: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Namespace",
    "metadata": {"name": "kekkai-probe", "labels": {"kekkai.dev/tenant": "probe"}},
}


def manifests() -> list[dict[str, Any]]:
    """All documents, by file name: policies before their bindings."""
    folder = Path(__file__).resolve().parent / "policies"
    documents = [doc for path in sorted(folder.glob("*.yaml")) for doc in yaml.safe_load_all(path.read_text())]
    return [doc for doc in documents if doc]


async def install(cluster: Cluster) -> None:
    """Apply everything; return when the policies are in force. Raises Unavailable when they do not take hold."""
    for document in manifests():
        await _put(cluster, copy.deepcopy(document))
    deadline = time.monotonic() + _PATIENCE_SECONDS
    # A policy takes hold some time after it is bound; the last one bound tells for all.
    while not await _enforced(cluster):
        if time.monotonic() > deadline:
            raise Unavailable("the admission policies were applied and are not enforced", where="admission")
        await asyncio.sleep(0.1)


async def _put(cluster: Cluster, document: dict[str, Any]) -> None:
    if document["kind"] != "SecurityBaseline":
        await cluster.apply(document, MANAGER)
        return
    # The security master is the platform operator's: ours stands in only where there is none.
    try:
        await cluster.create(document, MANAGER)
    except ApiFault as fault:
        if not fault.conflict:
            raise


async def _enforced(cluster: Cluster) -> bool:
    key = {
        "apiVersion": "kekkai.dev/v1alpha1",
        "kind": "ProtectedKey",
        "metadata": {"name": "kekkai-probe", "namespace": "default"},
        "spec": {"jurisdiction": "JP", "releasePolicy": {"digest": "sha256:" + "0" * 64}},
    }
    refused = 0
    for path, body in (
        ("/api/v1/namespaces", _PROBE),
        ("/apis/kekkai.dev/v1alpha1/namespaces/default/protectedkeys", key),
    ):
        try:
            await cluster.request("POST", path, {"dryRun": "All"}, copy.deepcopy(body))
        except ApiFault as fault:
            refused += "ValidatingAdmissionPolicy" in str(fault)
    return refused == 2
