"""Single-device Jobs of many tenants, and one gang, over emulated nodes, through the real control plane.

Prints the rate, API writes and CPU a Job by process, beside the same Jobs on the same nodes
without Kekkai (plain Kubernetes: no queue, no quota), measured in the same run. KAI v0.17 on
500 nodes: 4,000 single-device jobs in 398 s, a gang of 512 pods in 48.7 s (reference/scheduling.md).

    python bench/jobs.py [--jobs 1000] [--tenants 50] [--nodes 100] [--gang 0] [-o json]
    python bench/jobs.py --jobs 4000 --nodes 500 --gang 512
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import api_profile
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
PROCESSES = ("kube-apiserver", "etcd", "kube-scheduler", "kube-controller-manager", "kwok", "operators")


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


def job(name: str, namespace: str, pods: int = 1) -> dict[str, Any]:
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
        "spec": {"template": {"spec": spec}, "parallelism": pods, "completions": pods},
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
            tries = 0
            while True:
                try:
                    await cluster.create(job(name, namespace), "bench")
                    return
                except ApiFault as fault:
                    if fault.conflict and "already exists" in str(fault) and tries:
                        return  # an answer was lost
                    # The quota admission of the API server asks to try again when two writers meet, or gives up.
                    if not fault.conflict and fault.code not in {0, 500}:
                        raise
                    tries += 1

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


async def run_gang(cluster: Cluster, namespace: str, pods: int, name: str) -> float:
    """One Job of so many pods at once; seconds from its creation until all have succeeded."""
    started = time.monotonic()
    await cluster.create(job(name, namespace, pods), "bench")
    while time.monotonic() < started + 600:
        found = await cluster.get(RESOURCES["Job"], name, namespace)
        done = ((found or {}).get("status") or {}).get("succeeded", 0)
        progress(f"{name}: {done} of {pods} pods, {time.monotonic() - started:.0f} s", done == pods)
        if done == pods:
            return time.monotonic() - started
        await asyncio.sleep(0.5)
    raise SystemExit(f"{name}: the gang did not complete in 600 s")


def cpu_of(plane: ControlPlane) -> dict[str, float]:
    """CPU seconds by process, this one included."""
    found = {name: cpu_seconds(pid) for name, pid in plane.supervisor.pids().items()}
    return {name: found[name] for name in PROCESSES} | {"this process": time.process_time()}


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def writes_since(plane: ControlPlane, offset: int) -> dict[str, Counter[str]]:
    """Write requests in the audit log after `offset`, by user, then by verb and resource."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    with plane.audit_log.open() as log:
        log.seek(offset)
        for line in log:
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if event["verb"] in {"create", "update", "patch", "delete"}:
                ref = event.get("objectRef") or {}
                name = f"{event['verb']} {ref.get('resource', '')}"
                name += f"/{ref['subresource']}" if ref.get("subresource") else ""
                counts[event["user"]["username"]][name] += 1
    return counts


async def bench(
    plane: ControlPlane, jobs: int, tenants: int, nodes: int, gang: int, pprof: Path | None
) -> dict[str, Any]:
    async with await Cluster.connect(plane.admin_kubeconfig) as cluster:
        site = {"apiVersion": API, "kind": "Site", "metadata": {"name": "tokyo"}, "spec": {"jurisdiction": "JP"}}
        await cluster.apply(site, "bench")
        await cluster.apply(pool(nodes), "bench")
        names = [f"tenant-{index}" for index in range(tenants)]
        for name in names:
            await cluster.apply(tenant(name, max(8, nodes * 8 // tenants, gang)), "bench")
        plain = [f"plain-{index}" for index in range(tenants)]
        for name in plain:
            await cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}, "bench")
        for what, kind, count in (("tenants", "Tenant", tenants), ("machines", "Machine", nodes)):
            while sum(is_true(obj, "Ready") for obj in await cluster.list(RESOURCES[kind])) < count:
                progress(f"waiting for {count} {what}")
                await asyncio.sleep(0.5)
            progress(f"{count} {what} ready", done=True)
        sides = {}
        for side, namespaces in (("plain", plain), ("queued", names)):
            await asyncio.sleep(3)  # the one before has its last writes behind it
            profile = await api_profile.record(plane, pprof) if pprof is not None and side == "queued" else None
            offset, before = plane.audit_log.stat().st_size, cpu_of(plane)
            seconds = await run_jobs(cluster, namespaces, jobs, side)
            cpu = {name: value - before[name] for name, value in cpu_of(plane).items()}
            writes = writes_since(plane, offset)
            sides[side] = {
                "seconds": round(seconds, 1),
                "perSecond": round(jobs / seconds, 1),
                "cpuSeconds": round(sum(cpu.values()), 1),
                "cpuMillisPerJob": {name: round(1000 * value / jobs, 1) for name, value in cpu.items()},
                "writesPerJob": round(sum(sum(one.values()) for one in writes.values()) / jobs, 2),
                "writesByUser": {user: round(sum(one.values()) / jobs, 2) for user, one in sorted(writes.items())},
                "operatorWrites": dict(writes[OPERATOR_USER].most_common(12)),
            }
            if profile is not None:
                await profile.wait()
            if gang:
                sides[side]["gangSeconds"] = round(await run_gang(cluster, namespaces[0], gang, f"{side}-gang"), 1)
        queued = sides["queued"]
        return {
            "jobs": jobs,
            "tenants": tenants,
            "nodes": nodes,
            "gang": gang,
            **sides,
            "ratio": round(sides["plain"]["seconds"] / queued["seconds"], 2),
            "operatorShare": round(queued["cpuMillisPerJob"]["operators"] / (1000 * queued["cpuSeconds"] / jobs), 3),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--tenants", type=int, default=50)
    parser.add_argument("--nodes", type=int, default=100)
    parser.add_argument("--gang", type=int, default=0, help="pods of one gang, run by itself after the Jobs; 0: none")
    parser.add_argument("--pprof", type=Path, help="write a CPU profile of the API server, queued side, to this file")
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table")
    given = parser.parse_args()
    with ControlPlane.start(api_server_flags=api_profile.FLAGS if given.pprof else ()) as plane:
        stack.start(plane)
        result = asyncio.run(bench(plane, given.jobs, given.tenants, given.nodes, given.gang, given.pprof))
    if given.output == "json":
        print(json.dumps(result, indent=2))
        return
    show(result)


def show(result: dict[str, Any]) -> None:
    title = f"{result['jobs']} Jobs of {result['tenants']} tenants over {result['nodes']} nodes"
    table = Table(title=title, title_justify="left")
    for heading in ("", "plain Kubernetes (bound)", "through Kekkai's queue"):
        table.add_column(heading, justify="right" if heading else "left")
    plain, queued = result["plain"], result["queued"]
    rows = [("Jobs/s", "perSecond"), ("seconds", "seconds"), ("writes a Job", "writesPerJob"), ("CPU, s", "cpuSeconds")]
    if result["gang"]:
        rows.append((f"gang of {result['gang']} pods, s", "gangSeconds"))
    for heading, key in rows:
        table.add_row(heading, str(plain[key]), str(queued[key]))
    for name, value in plain["cpuMillisPerJob"].items():
        table.add_row(f"CPU a Job, ms: {name}", str(value), str(queued["cpuMillisPerJob"][name]))
    console = Console()
    console.print(table)
    console.print(
        f"rate: {result['ratio']} of the bound; the operator has {result['operatorShare']:.0%} of the CPU and makes "
        f"{queued['writesByUser'].get(OPERATOR_USER, 0)} writes a Job",
        highlight=False,
    )
    for name, count in queued["operatorWrites"].items():
        console.print(f"  {count / result['jobs']:6.2f}  {name}", highlight=False)


if __name__ == "__main__":
    main()
