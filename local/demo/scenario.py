"""What happens in the demo, in order, and what must come of it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

from crds.conditions import find, is_true
from crds.errors import KekkaiError
from local.demo import attacks
from local.demo.expectation import Expectation, Report
from local.demo.materials import Materials
from local.demo.view import View
from local.demo.world import World, message_of

PODS = 4
BATCH = 20
QUOTA = 8
Step = Callable[[], Awaitable[str]]


class Scenario:
    """Runs every step; a step returns what came, or raises what was wrong."""

    def __init__(self, world: World, materials: Materials, report: Report, view: View, lost_replies: int = 0) -> None:
        self.world = world
        self.materials = materials
        self.report = report
        self.view = view
        self._lost_replies = lost_replies  # when processes are killed on purpose: releases that no guest got
        self._most_at_once = 0
        self._queued: dict[str, str] = {}

    def rows(self) -> list[tuple[Expectation, Step]]:
        """The whole list, before anything has run."""
        refused = attacks.Attacks(self.world, self.materials)
        return [
            (Expectation("two tenants, isolated", "both Ready, namespaces in force"), self.tenants),
            (Expectation("a brought key under a signed policy", "Active, policy bound in"), self.key),
            (Expectation("a gang and a batch arrive", "both pools grow from zero"), self.grow),
            (Expectation("an owner unsuspends a queued job", "denied", "refused"), refused.unsuspend),
            (Expectation("four enclaves prove themselves", "each decrypts the dataset"), self.gang),
            (Expectation("a guest with a changed kernel command line", "no key", "refused"), refused.tampered),
            (Expectation("a guest that allows debugging", "no key", "refused"), refused.debug),
            (Expectation("tenant B asks for tenant A's key", "no key", "refused"), refused.foreign),
            (Expectation("a nonce is replayed", "no token", "refused"), refused.replayed),
            (Expectation("an administrator edits the key's policy", "old policy stays", "refused"), refused.policy),
            (Expectation("a privileged pod", "denied", "refused"), refused.privileged),
            (Expectation("a pod in a namespace not yet isolated", "denied", "refused"), refused.early),
            (Expectation("twenty jobs over quota drain", "never over 8 devices, with reasons"), self.batch),
            (Expectation("idle machines go away", "both pools back at zero"), self.shrink),
            (Expectation("the log tells it all", "4 releases, every denial, offline"), self.log),
        ]

    async def run(self) -> None:
        """All steps; a failed one does not keep the others from being tried."""
        steps = self.rows()
        self.report.rows.extend(row for row, _ in steps)
        watch = asyncio.create_task(self._watch_batch())
        try:
            for row, step in steps:
                row.state, started = "running", time.monotonic()
                self.view.started(row)
                try:
                    row.got = await step()
                    row.state = "held"
                except (KekkaiError, TimeoutError, AssertionError, KeyError, ValueError) as error:
                    row.got, row.state = f"{type(error).__name__}: {error}", "broken"
                row.seconds = time.monotonic() - started
                self.view.ended(row)
        finally:
            watch.cancel()

    async def tenants(self) -> str:
        for example in ("00-site.yaml", "10-pools.yaml", "20-baseline.yaml", "30-tenants.yaml"):
            await self.world.apply(example)

        async def ready() -> bool:
            tenants = await self.world.list("Tenant")
            return len(tenants) == 2 and all(is_true(tenant, "Ready") for tenant in tenants)

        await self.world.until("both tenants Ready", ready)
        quota = await self.world.list("ResourceQuota", "aurora-train")
        policies = await self.world.list("NetworkPolicy", "aurora-train")
        return f"Ready; {len(quota)} quota, {len(policies)} network policies in each namespace"

    async def key(self) -> str:
        digest = await asyncio.to_thread(self.materials.sign_and_submit_policy)
        await self.world.apply("40-protected-key.yaml", {"POLICY_DIGEST": digest}, self.world.alice)

        async def known() -> bool:
            key = await self.world.get("ProtectedKey", "dataset", "aurora-train")
            return bool(key and (key.get("status") or {}).get("state"))

        await self.world.until("the key service knows the key", known)
        await asyncio.to_thread(self.materials.import_key)

        async def active() -> dict[str, Any] | None:
            key = await self.world.get("ProtectedKey", "dataset", "aurora-train")
            return key if key and is_true(key, "Ready") else None

        key = await self.world.until("the key Active", active)
        assert key is not None
        assert key["status"]["policyDigest"] == digest, "another policy is in force"
        sealed = str(self.materials.sealed)
        await self.world.kubectl(
            "create",
            "configmap",
            "dataset",
            "-n",
            "aurora-train",
            f"--from-file=dataset.sealed={sealed}",
            user=self.world.alice,
        )
        return f"{key['status']['state']}, version {key['status']['version']}, policy {digest[:19]}…"

    async def grow(self) -> str:
        await self.world.apply("50-training-gang.yaml", self.materials.gang("train", PODS), self.world.alice)
        jobs = [self.materials.batch(index) for index in range(1, BATCH + 1)]
        text = "\n---\n".join(jobs)
        await self.world.kubectl("apply", "-f", "-", user=self.world.bob, stdin=text)

        async def grown() -> dict[str, int] | None:
            count: dict[str, int] = {}
            for node in await self.world.list("Node"):
                pool = node["metadata"]["labels"].get("kekkai.dev/pool", "")
                count[pool] = count.get(pool, 0) + 1
            return count if count.get("h200-snp", 0) >= PODS and count.get("h100-plain", 0) >= 1 else None

        count = await self.world.until("nodes for the gang and the batch", grown)
        assert count is not None
        return ", ".join(f"{pool} 0 → {nodes}" for pool, nodes in sorted(count.items()))

    async def gang(self) -> str:
        async def ended() -> list[dict[str, Any]] | None:
            pods = await self.world.list("Pod", "aurora-train", "job-name=train")
            done = [pod for pod in pods if (pod.get("status") or {}).get("phase") == "Succeeded"]
            return done if len(done) >= PODS else None

        pods = await self.world.until("the gang's four pods succeeded", ended, 90)
        assert pods is not None
        nodes = {pod["spec"]["nodeName"] for pod in pods}
        for pod in pods:
            code, text = message_of(pod)
            result = json.loads(text)
            assert code == 0, f"exit code {code}"
            assert result["sha256"] == self.materials.dataset_sha256, "an enclave decrypted something else"
        return f"{len(pods)} pods on {len(nodes)} nodes decrypted {self.materials.records} records, same SHA-256"

    async def batch(self) -> str:
        async def drained() -> bool:
            jobs = await self.world.list("Job", "borealis-batch")
            batch = [job for job in jobs if job["metadata"]["name"].startswith("batch-")]
            return len(batch) == BATCH and all((job.get("status") or {}).get("succeeded") == 1 for job in batch)

        await self.world.until("all twenty jobs complete", drained, 120)
        assert self._queued, "no job was seen waiting with a reason"
        assert self._most_at_once <= QUOTA, f"{self._most_at_once} devices were held at once"
        return f"20 of 20; at most {self._most_at_once} devices at once; e.g. {next(iter(self._queued.values()))}"

    async def shrink(self) -> str:
        async def empty() -> bool:
            nodes = await self.world.list("Node")
            return not nodes and not await self.world.list("Machine")

        await self.world.until("no machine and no node left", empty, 90)
        return "0 machines, 0 nodes"

    async def log(self) -> str:
        return await asyncio.to_thread(self.materials.verify_log, PODS, PODS + self._lost_replies)

    async def _watch_batch(self) -> None:
        """Note what the batch's workloads say while they wait, and how much is held at once."""
        while True:
            try:
                workloads = await self.world.list("Workload", "borealis-batch")
                pods = await self.world.list("Pod", "borealis-batch", "job-name!=foreign")
            except KekkaiError:
                workloads, pods = [], []
            for workload in workloads:
                admitted = find((workload.get("status") or {}).get("conditions"), "Admitted")
                if admitted is not None and admitted["reason"] == "QuotaExceeded":
                    self._queued[workload["metadata"]["name"]] = f"{admitted['reason']}: {admitted['message']}"
            alive = [pod for pod in pods if (pod.get("status") or {}).get("phase") in {"Pending", "Running"}]
            held = sum(_devices(pod) for pod in alive if pod["spec"].get("nodeName"))
            self._most_at_once = max(self._most_at_once, held)
            await asyncio.sleep(0.3)


def _devices(pod: dict[str, Any]) -> int:
    limits = (container["resources"].get("limits", {}) for container in pod["spec"]["containers"])
    return sum(int(limit.get("nvidia.com/gpu", 0)) for limit in limits)
