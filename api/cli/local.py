"""`kekkai up`, `kekkai down`, `kekkai status`: local control planes."""

from __future__ import annotations

import json
import time
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from crds.errors import Conflict

Name = Annotated[str, typer.Option("--name", "-n", help="Several can run at once under different names.")]


def up(
    name: Name = "default",
    bare: Annotated[
        bool, typer.Option("--bare", help="Only Kubernetes: without Kekkai's operators and key service.")
    ] = False,
) -> None:
    """Start a real control plane on this machine and leave it running.

    etcd, API server, controller manager, scheduler and kwok; on top Kekkai's kinds,
    policies, operators, key service and emulated confidential hardware.

    Example: kekkai up && export KUBECONFIG=$(kekkai status -o kubeconfig)
    """
    from local import stack
    from local.controlplane import ControlPlane, named
    from local.controlplane.progress import Progress

    started = time.monotonic()
    with named.held(name), Progress() as progress:
        if named.running(name):
            raise Conflict(
                f"{name} is running already", where="--name", fix=f"use it, or run: kekkai down --name {name}"
            )
        named.remove(name)
        with progress.step("control plane"):
            plane = ControlPlane.start(named.folder_of(name), progress=progress)
        try:
            if not bare:
                with progress.step("Kekkai on top"):
                    stack.start(plane)
            plane.detach()  # only now: when this command is killed before, nothing is left
        except BaseException:
            plane.stop()
            raise
    console = Console()
    console.print(f"{name} is up after {time.monotonic() - started:.0f} s at {plane.server}", highlight=False)
    console.print(f"  export KUBECONFIG={plane.admin_kubeconfig}", highlight=False, soft_wrap=True)
    console.print(f"  {plane.binaries['kubectl']} get kekkai -A", highlight=False, soft_wrap=True)
    console.print(f"  kekkai down{'' if name == 'default' else f' --name {name}'}", highlight=False)


def down(
    name: Name = "default",
    everything: Annotated[bool, typer.Option("--all", help="All of them.")] = False,
) -> None:
    """Stop a local control plane and delete its data.

    Example: kekkai down --all
    """
    from local.controlplane import named

    removed = []
    for one in named.names() if everything else [name]:
        with named.held(one):
            removed += [one] if named.remove(one) else []
    typer.echo(f"removed: {', '.join(removed)}" if removed else "nothing to remove")


def status(
    output: Annotated[str, typer.Option("--output", "-o", help="table, json, or kubeconfig (the path).")] = "table",
    name: Annotated[str | None, typer.Option("--name", "-n", help="Only this one.")] = None,
) -> None:
    """Show the local control planes and their processes.

    Example: kekkai status -o json
    """
    from local.controlplane import named

    planes = {one: named.running(one) for one in named.names() if name in {None, one}}
    if output == "kubeconfig":
        path = next((plane.admin_kubeconfig for plane in planes.values() if plane), None)
        if path is None:
            typer.echo("none is running; start one with: kekkai up", err=True)
            raise typer.Exit(1)
        typer.echo(path)
        return
    rows: list[dict[str, Any]] = [
        {
            "name": one,
            "running": plane is not None,
            "server": plane.server if plane else "",
            "kubeconfig": str(plane.admin_kubeconfig) if plane else "",
            "processes": [
                {"name": p.name, "pid": p.pid, "running": p.running, "restarts": p.restarts, "seconds": p.seconds}
                for p in (plane.supervisor.processes() if plane else [])
            ],
        }
        for one, plane in planes.items()
    ]
    if output == "json":
        typer.echo(json.dumps(rows, indent=2))
        return
    if not rows:
        typer.echo("none; start one with: kekkai up")
        return
    table = Table("name", "process", "pid", "state", "restarts", "up for")
    for row in rows:
        if not row["running"]:
            table.add_row(str(row["name"]), "", "", "[red]stopped[/red]", "", "")
        for process in row["processes"]:
            state = "[green]running[/green]" if process["running"] else "[red]ended[/red]"
            spent = f"{process['seconds']:.0f} s"
            table.add_row(
                row["name"], process["name"], str(process["pid"] or ""), state, str(process["restarts"]), spent
            )
    Console().print(table)
