"""`kekkai why`: explain why a Job or Workload waits, or where it runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from crds.conditions import find
from crds.errors import NotFound, Unavailable
from crds.labels import GROUP, VERSION, WORKLOAD


def why(
    name: Annotated[str, typer.Argument(help="A Job or Workload.")],
    namespace: Annotated[str, typer.Option("--namespace", "-n", help="Its namespace.")] = "default",
    kubeconfig: Annotated[Path | None, typer.Option(help="Default: $KUBECONFIG, else ~/.kube/config.")] = None,
    output: Annotated[str, typer.Option("--output", "-o", help="text or json.")] = "text",
) -> None:
    """Explain why a Job or Workload waits, or where it runs.

    Example: kekkai why batch-7 -n borealis-batch
    """
    workload = _find(name, namespace, kubeconfig)
    answer = explain(workload)
    if output == "json":
        typer.echo(json.dumps(answer, indent=2))
        return
    console = Console(highlight=False)
    console.print(f"[bold]{answer['workload']}[/bold]  {answer['state']}: {answer['message']}", soft_wrap=True)
    if answer["reasons"]:
        table = Table("reason", "what was found", "nearest change that would admit it")
        for reason in answer["reasons"]:
            table.add_row(reason["code"], reason["message"], reason.get("nearest", ""))
        console.print(table)
    for placed in answer["placements"]:
        console.print(f"  {placed['count']} × {placed['podSet']} on {placed['node']}")


def explain(workload: dict[str, Any]) -> dict[str, Any]:
    """What is to be said about a Workload, as data."""
    meta, status = workload["metadata"], workload.get("status") or {}
    conditions = status.get("conditions")
    state, message = "Pending", "the operator has not looked at it yet"
    for kind in ("Finished", "Evicted", "Admitted"):
        found = find(conditions, kind)
        if found is not None and (found["status"] == "True" or kind == "Admitted"):
            state = kind if found["status"] == "True" else "Waiting"
            message = f"{found['reason']}. {found.get('message', '')}".strip()
            break
    return {
        "workload": f"{meta['namespace']}/{meta['name']}",
        "tenant": workload["spec"].get("tenant", ""),
        "state": state,
        "message": message,
        "reasons": status.get("reasons") or [],
        "placements": (status.get("admission") or {}).get("placements") or [],
    }


def _find(name: str, namespace: str, kubeconfig: Path | None) -> dict[str, Any]:
    from kubernetes import client, config
    from kubernetes.client.exceptions import ApiException

    try:
        config.load_kube_config(config_file=str(kubeconfig) if kubeconfig else None)
        found = client.CustomObjectsApi().list_namespaced_custom_object(GROUP, VERSION, namespace, "workloads")
    except config.ConfigException as error:
        raise Unavailable(str(error), where="--kubeconfig", fix="name a kubeconfig file, or set KUBECONFIG") from None
    except ApiException as error:
        raise Unavailable(f"the API server answered {error.status} {error.reason}", where=namespace) from None
    items: list[dict[str, Any]] = found["items"]  # type: ignore[index]  # the client types it as object
    for item in items:
        labels = item["metadata"].get("labels") or {}
        refers = (item["spec"].get("ref") or {}).get("name")
        if name in {item["metadata"]["name"], refers, labels.get(WORKLOAD)}:
            return item
    raise NotFound(
        f"no Workload stands for {name!r}",
        where=f"namespace {namespace}",
        fix="check the name and -n; only Jobs in a tenant's namespace are queued",
    )
