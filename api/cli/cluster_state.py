"""What `kekkai plan` reads: the objects of a live cluster, or those that somebody has saved."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from crds.errors import Forbidden, InvalidInput, Unavailable
from crds.labels import GROUP, VERSION
from scheduler.objects.snapshot import RESOURCES

_OURS = {
    "sites": "Site",
    "acceleratorpools": "AcceleratorPool",
    "machines": "Machine",
    "tenants": "Tenant",
    "workloads": "Workload",
}
_MOST = 512 << 20  # bytes of a saved state


def live(kubeconfig: Path | None) -> list[dict[str, Any]]:
    """All objects that a plan depends on. Raises Unavailable or Forbidden."""
    from kubernetes import client, config
    from kubernetes.client.exceptions import ApiException

    try:
        config.load_kube_config(config_file=str(kubeconfig) if kubeconfig else None)
    except config.ConfigException as error:
        raise Unavailable(str(error), where="--kubeconfig", fix="name a kubeconfig file, or set KUBECONFIG") from None
    core, batch, node = client.CoreV1Api(), client.BatchV1Api(), client.NodeV1Api()
    custom = client.CustomObjectsApi()
    found: list[dict[str, Any]] = []
    builtin: dict[str, Callable[..., Any]] = {
        "Node": core.list_node,
        "Namespace": core.list_namespace,
        "Pod": core.list_pod_for_all_namespaces,
        "LimitRange": core.list_limit_range_for_all_namespaces,
        "Job": batch.list_job_for_all_namespaces,
        "RuntimeClass": node.list_runtime_class,
    }
    what = ""
    try:
        for what, read in builtin.items():
            # The body as it came: the client's own classes would lose what the wire form has.
            items = json.loads(read(_preload_content=False).data)["items"]
            found += [{**one, "kind": what} for one in items]
        for plural, what in _OURS.items():
            listed: Any = custom.list_cluster_custom_object(GROUP, VERSION, plural)
            found += [{**one, "kind": what} for one in listed["items"]]
    except ApiException as error:
        raise _refused(what, error.status, error.reason) from None
    except OSError as error:
        raise Unavailable(f"the API server cannot be reached: {error}", where="--kubeconfig") from None
    except Exception as error:  # urllib3 has its own tree of errors
        if type(error).__module__.startswith("urllib3"):
            raise Unavailable(f"the API server cannot be reached: {error}", where="--kubeconfig") from None
        raise
    return found


def _refused(what: str, status: int | None, reason: str | None) -> Unavailable | Forbidden | InvalidInput:
    if status == 403:
        return Forbidden(
            f"you may not list every {what}",
            where="the cluster",
            fix="ask whoever runs the cluster for a saved state, and give it with --offline",
        )
    if status == 404:
        return InvalidInput(f"the cluster has no {what}: Kekkai is not installed there", where="--kubeconfig")
    return Unavailable(f"the API server answered {status} {reason}", where=what)


def saved(path: Path) -> list[dict[str, Any]]:
    """The objects of a file that `kubectl get … -o json` wrote, or of a JSON array. Raises InvalidInput."""
    fix = f"save it with: kubectl get {RESOURCES} -A -o json > {path.name}"
    try:
        if path.stat().st_size > _MOST:
            raise InvalidInput(f"{path} is larger than {_MOST >> 20} MiB", where="--offline", fix=fix)
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidInput(f"{path}: {error.strerror}", where="--offline", fix=fix) from None
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"{path} is not JSON: {error}", where="--offline", fix=fix) from None
    items = document.get("items") if isinstance(document, dict) else document
    if not isinstance(items, list) or not all(_is_object(one) for one in items):
        raise InvalidInput(f"{path} is not a list of objects", where="--offline", fix=fix)
    return items


def _is_object(one: Any) -> bool:
    return isinstance(one, dict) and bool(one.get("kind")) and isinstance(one.get("metadata"), dict)
