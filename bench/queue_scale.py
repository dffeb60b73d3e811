"""The queue alone, end to end on a real API server, at the grain of Kueue's scheduler performance test.

15,000 Workload objects and no pods: 5 cohorts x 6 queues x 500 (small, medium and large: 1, 5 and 20 devices for
200, 500 and 1,000 ms, arriving 350 x every 100 ms, 100 x 500 ms, 50 x 1,200 ms a queue), nominal 20 a queue, borrow
100. A cohort is a pool of 15 nodes x 8 devices = 120, which its six tenants share; a device is a pod, so that large
means a gang of 20. Each Workload stands for an object of a foreign kind (`spec.ref`): the operators admit it, and
this process, the foreign controller, creates it, waits its run time and reports Finished. The API server, etcd and
the operators run for real; the controller manager and kwok only until the nodes and namespaces are ready, since
Kueue's test runs none. Both controllers use tokens of their ServiceAccounts, as they do in a cluster.

    python bench/queue_scale.py [--per-queue 500] [-o json]
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
import yaml
from kueue_baseline.foreign import Foreign
from kueue_baseline.load import CLASSES, COHORTS, NODES, NOMINAL, PEER, QUEUES, RUNNER, SYSTEM, class_of, setup_objects
from kueue_baseline.writer import Writer
from rich.console import Console
from rich.table import Table

from crds.conditions import is_true
from crds.labels import OPERATOR_USER
from local.controlplane import ControlPlane
from local.stack import install
from operators.runtime import RESOURCES, Cluster
from operators.runtime.watch import Watch

# The API server of Kueue's test (envtest) writes no audit log.
API_SERVER_FLAGS = ("--audit-log-path=",)


def progress(text: str) -> None:
    print(f"  {text}", file=sys.stderr, flush=True)


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def high_water_mb(pid: int) -> int:
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) // 1024


async def requests_of(cluster: Cluster) -> Counter[str]:
    """Write requests that the API server has answered, by verb and resource, from its own metrics."""
    out: Counter[str] = Counter()
    for line in (await cluster.text("/metrics")).splitlines():
        if not line.startswith("apiserver_request_total{"):
            continue
        labels, _, value = line.rpartition(" ")
        found = dict(
            part.split("=", 1) for part in labels[labels.index("{") + 1 : -1].replace('"', "").split(",") if "=" in part
        )
        if found["verb"] in {"POST", "PUT", "PATCH", "APPLY", "DELETE"}:
            what = found["resource"] + (f"/{found['subresource']}" if found.get("subresource") else "")
            out[f"{found['verb'].lower()} {what}"] += int(float(value))
    return out


async def ready(cluster: Cluster) -> None:
    for what, kind, count in (("tenants", "Tenant", COHORTS * QUEUES), ("machines", "Machine", COHORTS * NODES)):
        deadline = time.monotonic() + 120
        while sum(is_true(obj, "Ready") for obj in await cluster.list(RESOURCES[kind])) < count:
            if time.monotonic() > deadline:
                raise SystemExit(f"not all {what} became ready in 120 s")
            await asyncio.sleep(0.5)
        progress(f"{count} {what} ready")


async def measure(plane: ControlPlane, per_queue: float, hook: str, pprof: Path | None) -> dict[str, Any]:
    async with await Cluster.connect(plane.admin_kubeconfig) as admin:
        for obj in setup_objects():
            await admin.apply(obj, "bench")
        await ready(admin)
        for name in ("kube-controller-manager", "kwok"):
            plane.supervisor.stop(name)
        await asyncio.sleep(3)
        total = COHORTS * QUEUES * sum(round(of.count * per_queue) for of in CLASSES)
        pids = {
            name: pid
            for name, pid in plane.supervisor.pids().items()
            if name in {"etcd", "kube-apiserver", "operators"}
        }
        pids["this process"] = os.getpid()
        before, cpu = await requests_of(admin), {name: cpu_seconds(pid) for name, pid in pids.items()}
        identity = kubeconfig_of(plane, RUNNER)
        async with await Cluster.connect(identity) as mine:
            foreign = Foreign(Writer(identity), total)
            foreign.store.listen(foreign.observe)
            watch = Watch(mine, foreign.store)
            await watch.list()
            watching = asyncio.create_task(watch.run())
            profile = None
            if hook:
                env = os.environ | {
                    name.upper().replace("-", "_").replace(" ", "_"): str(pid) for name, pid in pids.items()
                }
                profile = await asyncio.create_subprocess_shell(hook, env=env)
            elif pprof is not None:
                profile = await api_profile.record(plane, pprof)
            foreign.started = time.monotonic()
            working = asyncio.gather(foreign.create_all(per_queue), foreign.finish_all())
            last, idle = (0, 0), 0
            while not working.done():
                await asyncio.sleep(5)
                at = time.monotonic() - foreign.started
                made, begun, gone = len(foreign.created), len(foreign.admitted), len(foreign.ended)
                progress(f"{at:4.0f} s: {made} created, {begun} admitted, {gone} finished")
                idle = 0 if (begun, gone) != last else idle + 1
                last = begun, gone
                if idle >= 12 or watching.done():
                    left = [one for one in foreign.store if not is_true(one, "Finished")]
                    raise SystemExit(f"it does not come to an end: {json.dumps(left[:3], indent=1)}")
            await working
            watching.cancel()
            foreign.writer.close()
            if profile is not None:
                await profile.wait()
        after = await requests_of(admin)
        seconds = max(foreign.ended.values()) - foreign.started
        writes = after - before
        held = sum(class_of(key).devices * (foreign.ended[key] - at) for key, at in foreign.admitted.items())
        waits: dict[str, list[float]] = defaultdict(list)
        for key, at in foreign.admitted.items():
            waits[class_of(key).name].append(at - foreign.created[key])
        used = {name: cpu_seconds(pid) - cpu[name] for name, pid in pids.items()}
        return {
            "workloads": total,
            "seconds": round(seconds, 1),
            "perSecond": round(total / seconds, 1),
            "usePercent": round(100 * held / (COHORTS * QUEUES * NOMINAL * seconds)),
            "writesPerWorkload": round(sum(writes.values()) / total, 3),
            "writes": {name: round(count / total, 3) for name, count in writes.most_common(8)},
            "cpu": {name: round(value, 1) for name, value in used.items()},
            "cpuMillisPerWorkload": {name: round(1000 * value / total, 2) for name, value in used.items()},
            "rssMb": {name: high_water_mb(pid) for name, pid in pids.items()},
            "wait": {name: round(sum(all_) / len(all_), 1) for name, all_ in sorted(waits.items())},
            "gogc": int(os.environ.get("GOGC", 300)),
            "load": round(os.getloadavg()[1], 1),  # of the last five minutes; CPU seconds grow with it too
            "evictions": foreign.evictions,
            "retries": foreign.retries,
        }


def kubeconfig_of(plane: ControlPlane, account: str) -> Path:
    """A kubeconfig with a token of this ServiceAccount."""
    token = plane.kubectl("create", "token", account, "-n", SYSTEM, "--duration=24h").stdout.strip()
    found = yaml.safe_load(plane.admin_kubeconfig.read_text())
    found["users"][0]["user"] = {"token": token}
    path = plane.data_dir / f"{account}-token.kubeconfig"
    path.touch(mode=0o600)
    path.write_text(yaml.safe_dump(found))
    return path


def start_operators(plane: ControlPlane, profile: Path | None) -> None:
    kubeconfig = kubeconfig_of(plane, OPERATOR_USER.rpartition(":")[2])
    python = [sys.executable, *(["-m", "cProfile", "-o", str(profile)] if profile else []), "-m", "operators"]
    plane.supervisor.spawn("operators", [*python, f"--kubeconfig={kubeconfig}"])


def show(result: dict[str, Any]) -> None:
    table = Table(title=f"{result['workloads']} Workloads, {COHORTS} cohorts x {QUEUES} queues", title_justify="left")
    for heading in ("", "Kekkai", "Kueue v0.19 (15,000; two cores)"):
        table.add_column(heading, justify="right" if heading else "left")
    table.add_row("makespan, s", str(result["seconds"]), str(PEER["seconds"]))
    table.add_row("workloads/s", str(result["perSecond"]), str(PEER["perSecond"]))
    table.add_row("queue use, %", str(result["usePercent"]), str(PEER["usePercent"]))
    for of in reversed(CLASSES):
        ours, theirs = result["wait"][of.name], PEER["wait"][of.name]
        ratio = f"{ours / result['seconds']:.2f}", f"{theirs / PEER['seconds']:.2f}"
        table.add_row(f"mean wait {of.name}, s (of the makespan)", f"{ours} ({ratio[0]})", f"{theirs} ({ratio[1]})")
    for name, value in result["cpu"].items():
        table.add_row(f"CPU {name}, s", str(value), str(PEER["cpu"].get(name, "")))
    for name, value in result["rssMb"].items():
        table.add_row(f"memory {name}, MB", str(value), str(PEER["rssMb"].get(name, "")))
    table.add_row("API CPU a workload, ms", str(result["cpuMillisPerWorkload"]["kube-apiserver"]), "~40")
    table.add_row("writes a workload", str(result["writesPerWorkload"]), "")
    console = Console()
    console.print(table)
    for name, count in result["writes"].items():
        console.print(f"  {count:6.3f}  {name}", highlight=False)
    console.print(
        f"evictions {result['evictions']}, retries of the foreign controller {result['retries']}; "
        f"GOGC {result['gogc']}; the machine: {os.cpu_count()} CPUs, load {result['load']}",
        highlight=False,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--per-queue", type=int, default=500, help="Workloads a queue; 500 is Kueue's")
    parser.add_argument("--profile", type=Path, help="run the operators under cProfile, written to this file")
    parser.add_argument(
        "--hook", default="", help="shell command to run beside, with pids as KUBE_APISERVER, OPERATORS …"
    )
    parser.add_argument("--pprof", type=Path, help="write a CPU profile of the API server's first 40 s to this file")
    parser.add_argument(
        "--gogc",
        type=int,
        help="garbage collection target of API server and etcd in per cent; 300 unless told, Go's own is 100",
    )
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table")
    given = parser.parse_args()
    if given.gogc:
        os.environ["GOGC"] = str(given.gogc)
    flags = [*API_SERVER_FLAGS, *(api_profile.FLAGS if given.pprof else ())]
    with ControlPlane.start(components=("controller-manager", "kwok"), api_server_flags=flags) as plane:
        install(plane)
        start_operators(plane, given.profile)
        result = asyncio.run(measure(plane, given.per_queue / 500, given.hook, given.pprof))
        if given.profile:
            plane.supervisor.stop("operators")
    if given.output == "json":
        print(json.dumps(result, indent=2))
    else:
        show(result)


if __name__ == "__main__":
    main()
