"""`kekkai plan`: where and when a workload would start, without creating anything."""

from __future__ import annotations

import json
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from rich.console import Console
from rich.table import Table

from api.cli import cluster_state
from api.cli.output import Format
from crds.errors import InvalidInput
from scheduler import Reason, WorkloadState
from scheduler.objects.manifest import KINDS, workload_of
from scheduler.objects.snapshot import Snapshot
from scheduler.simulate.forecast import Forecast, forecast

_MOST = 1 << 20  # bytes of a manifest
Answer = dict[str, Any]


def plan(
    filename: Annotated[str, typer.Option("--filename", "-f", help="A Job or Workload in YAML or JSON; - for stdin.")],
    namespace: Annotated[
        str,
        typer.Option("--namespace", "-n", help="Where it would be created. Default: what the file says, else default."),
    ] = "",
    offline: Annotated[
        Path | None, typer.Option(help="Plan on a saved state (kubectl get … -A -o json) instead of the live cluster.")
    ] = None,
    kubeconfig: Annotated[Path | None, typer.Option(help="Default: $KUBECONFIG, else ~/.kube/config.")] = None,
    tenant: Annotated[str, typer.Option(help="Plan for this tenant instead of the namespace's.")] = "",
    boot: Annotated[float, typer.Option(min=0, help="Seconds until a machine that is asked for is ready.")] = 300.0,
    output: Annotated[Format, typer.Option("--output", "-o", help="table or json.")] = Format.table,
) -> None:
    """Say where and when a workload would start. Nothing is created, and nothing is held for it.

    Examples:

    kekkai plan -f train.yaml -n aurora-train

    kubectl get sites,acceleratorpools,machines,nodes,tenants,workloads,namespaces,jobs,pods,limitranges,runtimeclasses
    -A -o json > fleet.json && kekkai plan -f train.yaml --offline fleet.json -o json
    """
    documents = _read(filename)
    snapshot = Snapshot(cluster_state.saved(offline) if offline else cluster_state.live(kubeconfig))
    answers = [answer(one, snapshot, namespace, tenant, time.time(), boot) for one in documents]
    if output is Format.json:
        typer.echo(json.dumps(answers if len(answers) > 1 else answers[0], indent=2))
        return
    for one in answers:
        _print(one)


def answer(
    manifest: dict[str, Any], snapshot: Snapshot, namespace: str, tenant: str, now: float, boot: float
) -> Answer:
    """What is to be said about one manifest, as data."""
    where = namespace or str((manifest.get("metadata") or {}).get("namespace") or "default")
    owner = tenant or snapshot.tenant_of(where)
    if not owner:
        raise InvalidInput(
            f"namespace {where} belongs to no tenant", where="-n", fix="name a tenant's namespace, or use --tenant"
        )
    wanted = workload_of(manifest, where, owner, now, snapshot.limit_ranges(where), snapshot.runtime_classes)
    if isinstance(wanted, Reason):
        name = str((manifest.get("metadata") or {}).get("name", "unnamed"))
        refused = {"workload": f"{where}/{name}", "tenant": owner, "verdict": "Refused", "reasons": [_reason(wanted)]}
        return {**refused, "summary": f"the queue would refuse it: {wanted.message}"}
    try:
        found = forecast(snapshot.fleet, wanted, now, boot_default=boot)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InvalidInput(
            f"an object of the cluster's state cannot be read: {error!r}",
            where="the state of the cluster",
            fix="save it anew, or ask for the object to be mended",
        ) from None
    return _as_data(wanted, found)


def _as_data(workload: WorkloadState, found: Forecast) -> Answer:
    verdict = "StartsNow" if found.starts_now else "StartsLater" if found.start is not None else "Waits"
    return {
        "workload": workload.key,
        "tenant": workload.tenant,
        "verdict": verdict,
        "summary": _summary(found),
        "pool": found.pool,
        "placements": [{"podSet": one.pod_set, "node": one.node, "count": one.count} for one in found.placements],
        "reasons": [_reason(one) for one in found.reasons],
        "evictions": list(found.evicts),
        "machineRequests": list(found.requests),
        "estimatedStart": _clock(found.start) if found.start is not None else None,
        "basis": found.basis,
    }


def _summary(found: Forecast) -> str:
    if found.starts_now:
        nodes = len({one.node for one in found.placements})
        return f"would start now on {nodes} node{'s' * (nodes != 1)} of pool {found.pool}"
    if found.start is not None:
        return f"would wait, and start in about {_span(found.start - found.now)}"
    return "would wait; no start can be foreseen"


def _reason(reason: Reason) -> dict[str, str]:
    return {"code": reason.code, "message": reason.message, "nearest": reason.nearest}


def _read(filename: str) -> list[dict[str, Any]]:
    fix = "give a Job or Workload as YAML or JSON"
    try:
        text = sys.stdin.read(_MOST + 1) if filename == "-" else _text(Path(filename))
        if len(text) > _MOST:
            raise InvalidInput("the manifest is larger than 1 MiB", where=filename, fix=fix)
        documents = [one for one in yaml.safe_load_all(text) if one is not None]
    except OSError as error:
        raise InvalidInput(
            error.strerror or "cannot be read", where=filename, fix="name a file that can be read"
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInput(f"not YAML: {error}", where=filename, fix=fix) from None
    if not documents or not all(isinstance(one, dict) for one in documents):
        raise InvalidInput("there is no manifest in it", where=filename, fix=fix)
    for one in documents:
        kind = one.get("kind")
        if kind not in KINDS:
            raise InvalidInput(f"cannot plan kind {kind!r}", where=filename, fix=f"give {' or '.join(KINDS)} only")
    return documents


def _text(path: Path) -> str:
    with path.open(encoding="utf-8") as lines:
        return lines.read(_MOST + 1)


def _print(one: Answer) -> None:
    console = Console(highlight=False)
    console.print(f"[bold]{one['workload']}[/bold] (tenant {one['tenant']}) {one['summary']}", soft_wrap=True)
    for placed in one.get("placements", ()):
        console.print(f"  {placed['count']} × {placed['podSet']} on {placed['node']}", soft_wrap=True)
    if one["reasons"]:
        table = Table("reason", "what was found", "nearest change that would admit it")
        for reason in one["reasons"]:
            table.add_row(reason["code"], reason["message"], reason["nearest"])
        console.print(table)
    for name, text in (
        ("machines asked for", ", ".join(one.get("machineRequests", ()))),
        ("would be stopped", ", ".join(one.get("evictions", ()))),
        ("estimated start", one.get("estimatedStart") or ""),
        ("basis", one.get("basis", "")),
    ):
        if text:
            console.print(f"  {name}: {text}", soft_wrap=True)


def _clock(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
