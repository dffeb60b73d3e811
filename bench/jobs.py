"""1,000 Jobs of 50 tenants over 100 emulated nodes, through the real control plane.

Prints the rate, the API writes a Job and the operator's CPU, beside the same Jobs on the
same nodes without Kekkai (plain Kubernetes: no queue, no quota), measured in the same run.

    python bench/jobs.py [--jobs 1000] [--tenants 50] [--nodes 100] [-o json]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from crds.conditions import is_true
from crds.labels import OPERATOR_USER
from local import stack
from local.controlplane import ControlPlane
from operators.runtime import RESOURCES, ApiFault, Cluster

GPU = "nvidia.com/gpu"
API = "kekkai.dev/v1alpha1"
CREATORS = 16  # concurrent creations, in both runs


def pool(nodes: int) -> dict[str, Any]:
    return {
        "apiVersion": API,
        "kind": "AcceleratorPool",
        "metadata": {"name": "bench"},
        "spec": {
            "site": "tokyo",
            "accelerator": {"type": "H200", "perNode": 8},
            "scaling": {"min": nodes, "max": nodes},
            "provider": {"kwok": {}},
        },
    }


def tenant(name: str, devices: int) -> dict[str, Any]:
    return {
        "apiVersion": API,
        "kind": "Tenant",
        "metadata": {"name": name},
        "spec": {
            "owners": [{"kind": "User", "name": f"{name}-owner"}],
            "namespaces": [{"name": name}],
            "quota": [{"accelerator": "H200", "nominal": devices}],
        },
    }


def job(name: str, namespace: str) -> dict[str, Any]:
    container = {
        "name": "work",
        "image": "registry.example/work:1",
        "imagePullPolicy": "Always",
        "resources": {"limits": {GPU: "1", "cpu": "1", "memory": "1Gi"}},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    spec = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "securityContext": {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"template": {"spec": spec}},
    }


def progress(text: str, done: bool = False) -> None:
    """One line that is written over on a terminal; elsewhere only what is done."""
    if sys.stdout.isatty():
        print(f"\r  {text:60}", end="\n" if done else "", flush=True)
    elif done:
        print(f"  {text}", flush=True)


async def run_jobs(cluster: Cluster, namespaces: list[str], count: int, prefix: str) -> float:
    """Create all Jobs, wait until all completed; seconds from the first creation."""
    wanted = [(f"{prefix}-{index}", namespaces[index % len(namespaces)]) for index in range(count)]
    gate = asyncio.Semaphore(CREATORS)

    async def create(name: str, namespace: str) -> None:
        async with gate:
            while True:
                try:
                    await cluster.create(job(name, namespace), "bench")
                    return
                except ApiFault as fault:
                    # The quota admission of the API server asks to try again when two writers meet.
                    if not fault.conflict or "already exists" in str(fault):
                        raise

    started = time.monotonic()
    await asyncio.gather(*(create(*one) for one in wanted))
    names = set(wanted)
    deadline = started + 1200
    while time.monotonic() < deadline:
        done = 0
        for found in await cluster.list(RESOURCES["Job"]):
            key = (found["metadata"]["name"], found["metadata"]["namespace"])
            done += key in names and (found.get("status") or {}).get("succeeded") == 1
        progress(f"{prefix}: {done} of {count} complete, {time.monotonic() - started:.0f} s", done == count)
        if done == count:
            return time.monotonic() - started
        await asyncio.sleep(1.0)
    raise SystemExit(f"{prefix}: not all Jobs completed in 1200 s")


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def writes_of(plane: ControlPlane, user: str, offset: int) -> Counter[str]:
    """Write requests of a user in the audit log after `offset`, by verb and resource."""
    counts: Counter[str] = Counter()
    with plane.audit_log.open() as log:
        log.seek(offset)
        for line in log:
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if event["user"]["username"] == user and event["verb"] in {"create", "update", "patch", "delete"}:
                ref = event.get("objectRef") or {}
                name = f"{event['verb']} {ref.get('resource', '')}"
                counts[name + (f"/{ref['subresource']}" if ref.get("subresource") else "")] += 1
    return counts


async def bench(plane: ControlPlane, jobs: int, tenants: int, nodes: int) -> dict[str, Any]:
    async with await Cluster.connect(plane.admin_kubeconfig) as cluster:
        site = {"apiVersion": API, "kind": "Site", "metadata": {"name": "tokyo"}, "spec": {"jurisdiction": "JP"}}
        await cluster.apply(site, "bench")
        await cluster.apply(pool(nodes), "bench")
        names = [f"tenant-{index}" for index in range(tenants)]
        for name in names:
            await cluster.apply(tenant(name, max(8, nodes * 8 // tenants)), "bench")
        plain = [f"plain-{index}" for index in range(tenants)]
        for name in plain:
            await cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}, "bench")
        for what, kind, count in (("tenants", "Tenant", tenants), ("machines", "Machine", nodes)):
            while sum(is_true(obj, "Ready") for obj in await cluster.list(RESOURCES[kind])) < count:
                progress(f"waiting for {count} {what}")
                await asyncio.sleep(0.5)
            progress(f"{count} {what} ready", done=True)
        without = await run_jobs(cluster, plain, jobs, "plain")
        pid = plane.supervisor.pids()["operators"]
        offset, cpu = plane.audit_log.stat().st_size, cpu_seconds(pid)
        with_kekkai = await run_jobs(cluster, names, jobs, "queued")
        cpu = cpu_seconds(pid) - cpu
        writes = writes_of(plane, OPERATOR_USER, offset)
        return {
            "jobs": jobs,
            "tenants": tenants,
            "nodes": nodes,
            "plainSeconds": round(without, 1),
            "queuedSeconds": round(with_kekkai, 1),
            "plainPerSecond": round(jobs / without, 1),
            "queuedPerSecond": round(jobs / with_kekkai, 1),
            "ratio": round(without / with_kekkai, 2),
            "operatorWritesPerJob": round(sum(writes.values()) / jobs, 2),
            "operatorCpuMillisPerJob": round(1000 * cpu / jobs, 1),
            "writes": dict(writes.most_common(12)),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--tenants", type=int, default=50)
    parser.add_argument("--nodes", type=int, default=100)
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table")
    given = parser.parse_args()
    with ControlPlane.start() as plane:
        stack.start(plane)
        result = asyncio.run(bench(plane, given.jobs, given.tenants, given.nodes))
    if given.output == "json":
        print(json.dumps(result, indent=2))
        return
    table = Table(title=f"{given.jobs} Jobs of {given.tenants} tenants over {given.nodes} nodes", title_justify="left")
    for heading in ("", "Jobs/s", "seconds"):
        table.add_column(heading, justify="right" if heading else "left")
    table.add_row("plain Kubernetes (bound)", str(result["plainPerSecond"]), str(result["plainSeconds"]))
    table.add_row("through Kekkai's queue", str(result["queuedPerSecond"]), str(result["queuedSeconds"]))
    console = Console()
    console.print(table)
    console.print(
        f"ratio to the bound {result['ratio']}; operator: {result['operatorWritesPerJob']} writes and "
        f"{result['operatorCpuMillisPerJob']} ms CPU a Job",
        highlight=False,
    )
    for name, count in result["writes"].items():
        console.print(f"  {count / given.jobs:6.2f}  {name}", highlight=False)


if __name__ == "__main__":
    main()
