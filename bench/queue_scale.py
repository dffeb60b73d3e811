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
import heapq
import json
import os
import sys
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

from crds.conditions import is_true, timestamp
from crds.labels import OPERATOR_USER
from local.controlplane import ControlPlane
from local.stack import install
from operators.runtime import RESOURCES, ApiFault, Cluster, Store
from operators.runtime.watch import Watch

API = "kekkai.dev/v1alpha1"
GPU = "nvidia.com/gpu"
COHORTS, QUEUES, NODES = 5, 6, 15
NOMINAL, BORROW = 20, 100
SYSTEM, RUNNER = "kekkai-system", "foreign-controller"
WORKLOADS = RESOURCES["Workload"]


@dataclass(frozen=True, slots=True)
class Class:
    """A class of Kueue's baseline configuration."""

    name: str
    count: int  # a queue
    every: float  # seconds between two arrivals in a queue
    devices: int
    runtime: float  # seconds
    priority: int


CLASSES = (
    Class("large", 50, 1.2, 20, 1.0, 200),
    Class("medium", 100, 0.5, 5, 0.5, 100),
    Class("small", 350, 0.1, 1, 0.2, 50),
)
PEER = {  # Kueue v0.19 built and run on two cores (reference/scheduling.md)
    "seconds": 470,
    "perSecond": 32,
    "usePercent": 62,
    "cpu": {"operators": 129, "kube-apiserver": 611},
    "rssMb": {"operators": 633, "kube-apiserver": 1900},
    "wait": {"small": 259, "medium": 149, "large": 51},
}


def tenants() -> dict[str, str]:
    """Tenant, which is a namespace too, to the pool that is its cohort's."""
    return {f"cohort-{c}-queue-{q}": f"cohort-{c}" for c in range(COHORTS) for q in range(QUEUES)}


def setup_objects() -> list[dict[str, Any]]:
    """The site, a pool a cohort, a tenant a queue."""
    out: list[dict[str, Any]] = [
        {"apiVersion": API, "kind": "Site", "metadata": {"name": "tokyo"}, "spec": {"jurisdiction": "JP"}}
    ]
    for cohort in dict.fromkeys(tenants().values()):
        spec: dict[str, Any] = {
            "site": "tokyo",
            "accelerator": {"type": "H200", "perNode": 8},
            "scaling": {"min": NODES, "max": NODES},
            "provider": {"kwok": {}},
        }
        out.append({"apiVersion": API, "kind": "AcceleratorPool", "metadata": {"name": cohort}, "spec": spec})
    for tenant, cohort in tenants().items():
        spec = {
            "owners": [{"kind": "User", "name": "owner"}],
            "namespaces": [{"name": tenant}],
            "quota": [{"accelerator": "H200", "nominal": NOMINAL, "borrow": BORROW}],
            "isolation": {"pools": [cohort]},
        }
        out.append({"apiVersion": API, "kind": "Tenant", "metadata": {"name": tenant}, "spec": spec})
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": RUNNER},
        "roleRef": {
            "apiGroup": "rbac.authorization.k8s.io",
            "kind": "ClusterRole",
            "name": "kekkai-external-controller",
        },
        "subjects": [{"kind": "ServiceAccount", "name": RUNNER, "namespace": SYSTEM}],
    }
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": RUNNER, "namespace": SYSTEM}}
    return [*out, account, binding]


def workload(tenant: str, of: Class, index: int) -> dict[str, Any]:
    """A Workload as a foreign controller makes it for its own object."""
    name = f"{of.name}-{index}"
    return {
        "apiVersion": API,
        "kind": "Workload",
        "metadata": {"name": name, "namespace": tenant, "labels": {"class": of.name}},
        "spec": {
            "ref": {"apiVersion": "bench.example/v1", "kind": "Task", "name": name, "uid": f"{tenant}-{name}"},
            "tenant": tenant,
            "priority": of.priority,
            "podSets": [{"name": "main", "count": of.devices, "requests": {"cpu": "1", GPU: "1"}}],
        },
    }


@dataclass
class Foreign:
    """The foreign controller: creates on time, starts what is admitted, reports the end. Single-threaded."""

    cluster: Cluster
    total: int
    started: float = 0.0
    created: dict[tuple[str, str], float] = field(default_factory=dict)  # when the creation was sent
    admitted: dict[tuple[str, str], float] = field(default_factory=dict)
    ended: dict[tuple[str, str], float] = field(default_factory=dict)  # when its Finished was answered
    evictions: int = 0
    retries: int = 0
    store: Store = field(default_factory=lambda: Store(WORKLOADS))
    _running: list[tuple[float, tuple[str, str]]] = field(default_factory=list)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def observe(self, old: dict[str, Any] | None, new: dict[str, Any] | None) -> None:
        """A Workload changed: is it admitted now?"""
        if new is None or (new.get("status") or {}).get("admission") is None:
            return
        key = (new["metadata"]["namespace"], new["metadata"]["name"])
        if is_true(new, "Evicted"):
            if key in self.admitted and not is_true(new, "Finished"):
                self.evictions += 1
                del self.admitted[key]
                self._spawn(self._report(key, "PodsReady", "False", "Stopped"))
        elif key not in self.admitted:
            self.admitted[key] = time.monotonic()
            heapq.heappush(self._running, (self.admitted[key] + class_of(key).runtime, key))

    async def create_all(self, per_queue: float) -> None:
        """Each arrival at its time, or as soon as a connection is free."""
        arrivals = sorted(
            (of.every * index, tenant, of.name, index)
            for tenant in tenants()
            for of in CLASSES
            for index in range(round(of.count * per_queue))
        )
        gate = asyncio.Semaphore(24)

        async def create(tenant: str, of: Class, index: int) -> None:
            body = workload(tenant, of, index)
            self.created[tenant, body["metadata"]["name"]] = time.monotonic()
            try:
                await self._patiently(lambda: self.cluster.create(body, RUNNER))
            finally:
                gate.release()

        for at, tenant, name, index in arrivals:
            wait = self.started + at - time.monotonic()
            if wait > 0:
                await asyncio.sleep(wait)
            await gate.acquire()
            self._spawn(create(tenant, BY_NAME[name], index))

    async def finish_all(self) -> None:
        """Report the end of what has run its time, until all have ended."""
        while len(self.ended) < self.total:
            now = time.monotonic()
            while self._running and self._running[0][0] <= now:
                at, key = heapq.heappop(self._running)
                if key in self.admitted and self.admitted[key] + class_of(key).runtime <= at:  # else: evicted meanwhile
                    self._spawn(self._finish(key))
            await asyncio.sleep(0.01)

    async def _finish(self, key: tuple[str, str]) -> None:
        if await self._report(key, "Finished", "True", "Succeeded"):
            self.ended.setdefault(key, time.monotonic())

    async def _report(self, key: tuple[str, str], kind: str, status: str, reason: str) -> bool:
        """Set a condition; again when somebody else wrote first. False when it was evicted meanwhile."""
        while True:
            found = self.store.get(key[1], key[0])
            assert found is not None
            if kind == "Finished" and is_true(found, "Evicted"):
                return False
            now = timestamp(datetime.now(UTC))
            said = {"type": kind, "status": status, "reason": reason, "lastTransitionTime": now}
            conditions = [one for one in found["status"]["conditions"] if one["type"] != kind]
            meta = {"resourceVersion": found["metadata"]["resourceVersion"]}
            body = {"metadata": meta, "status": {"conditions": [*conditions, said]}}
            try:
                await self._patiently(
                    lambda body=body: self.cluster.merge_patch(WORKLOADS, key[1], body, RUNNER, key[0], "status")
                )
                return True
            except ApiFault as fault:
                if not fault.conflict:
                    raise
                self.retries += 1
                await asyncio.sleep(0.02)

    async def _patiently(self, send: Any) -> None:
        while True:
            try:
                await send()
                return
            except ApiFault as fault:
                if fault.code not in {0, 429, 500, 503, 504}:
                    raise
                self.retries += 1
                await asyncio.sleep(0.2)

    def _spawn(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            print(f"the foreign controller failed: {task.exception()!r}", file=sys.stderr, flush=True)


BY_NAME = {one.name: one for one in CLASSES}


def class_of(key: tuple[str, str]) -> Class:
    return BY_NAME[key[1].split("-")[0]]


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


async def measure(plane: ControlPlane, per_queue: float, hook: str) -> dict[str, Any]:
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
        async with await Cluster.connect(kubeconfig_of(plane, RUNNER), connections=64) as mine:
            foreign = Foreign(mine, total)
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
        f"evictions {result['evictions']}, retries of the foreign controller {result['retries']}", highlight=False
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--per-queue", type=int, default=500, help="Workloads a queue; 500 is Kueue's")
    parser.add_argument("--profile", type=Path, help="run the operators under cProfile, written to this file")
    parser.add_argument(
        "--hook", default="", help="shell command to run beside, with pids as KUBE_APISERVER, OPERATORS …"
    )
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table")
    given = parser.parse_args()
    with ControlPlane.start(components=("controller-manager", "kwok")) as plane:
        install(plane)
        start_operators(plane, given.profile)
        result = asyncio.run(measure(plane, given.per_queue / 500, given.hook))
        if given.profile:
            plane.supervisor.stop("operators")
    if given.output == "json":
        print(json.dumps(result, indent=2))
    else:
        show(result)


if __name__ == "__main__":
    main()
