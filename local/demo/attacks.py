"""What must fail, and that it fails for the right reason."""

from __future__ import annotations

import asyncio
from typing import Any

from crds.conditions import find
from crds.labels import OPERATOR_USER
from local.demo.materials import Materials
from local.demo.world import World, last_line, message_of

_SHOWN = 110


class Attacks:
    """Each method tries one thing and returns how it was refused; it raises when it was not."""

    def __init__(self, world: World, materials: Materials) -> None:
        self.world = world
        self.materials = materials

    async def tampered(self) -> str:
        """Kata's kernel parameters change the kernel command line, and so the launch measurement."""
        values = self.materials.gang("tampered", 1, kernel_params="agent.debug_console")
        return await self._refused_guest(values, self.world.alice, "measurement")

    async def debug(self) -> str:
        """A guest whose policy lets the host read its memory."""
        values = self.materials.gang("debug", 1, runtime_class="kata-qemu-snp-debug")
        return await self._refused_guest(values, self.world.alice, "Debug")

    async def foreign(self) -> str:
        """Tenant B runs the same image on the same hardware, with its own init-data, and asks for A's key."""
        await self.world.kubectl(
            "create",
            "configmap",
            "dataset",
            "-n",
            "borealis-batch",
            f"--from-file=dataset.sealed={self.materials.sealed}",
            user=self.world.bob,
        )
        values = self.materials.gang("foreign", 1, namespace="borealis-batch")
        return await self._refused_guest(values, self.world.bob, "init_data")

    async def replayed(self) -> str:
        """The same evidence, sent a second time."""
        reason = await asyncio.to_thread(self.materials.replay_nonce)
        assert "Nonce" in reason, f"refused for another reason: {reason}"
        return reason

    async def policy(self) -> str:
        """cluster-admin writes another digest into the ProtectedKey."""
        key = await self.world.get("ProtectedKey", "dataset", "aurora-train")
        assert key is not None
        before = key["status"]["policyDigest"]
        patch = '{"spec":{"releasePolicy":{"digest":"sha256:' + "0" * 64 + '"}}}'
        await self.world.kubectl("patch", "protectedkey", "dataset", "-n", "aurora-train", "--type=merge", "-p", patch)

        async def said() -> dict[str, Any] | None:
            now = await self.world.get("ProtectedKey", "dataset", "aurora-train")
            found = find((now or {}).get("status", {}).get("conditions"), "PolicyAccepted")
            return dict(found) if now and found and found["status"] == "False" else None

        condition = await self.world.until("PolicyAccepted turned False", said)
        assert condition is not None
        now = await self.world.get("ProtectedKey", "dataset", "aurora-train")
        assert now is not None
        assert now["status"]["policyDigest"] == before, "another policy is in force"
        await self.world.kubectl(
            "patch",
            "protectedkey",
            "dataset",
            "-n",
            "aurora-train",
            "--type=merge",
            "-p",
            '{"spec":{"releasePolicy":{"digest":"' + before + '"}}}',
        )
        return f"{condition['reason']}; {before[:19]}… stays in force"

    async def unsuspend(self) -> str:
        """The owner of a queued job sets suspend to false."""

        async def queued() -> str | None:
            for job in await self.world.list("Job", "borealis-batch"):
                name = job["metadata"]["name"]
                if job["spec"].get("suspend") and name.startswith("batch-"):
                    return str(name)
            return None

        patch = '{"spec":{"suspend":false}}'
        while True:
            name = await self.world.until("a suspended job of tenant B", queued, 30)
            assert name is not None
            tried = await self.world.kubectl(
                "patch", "job", name, "-n", "borealis-batch", "-p", patch, user=self.world.bob, check=False
            )
            # The queue may admit this very job between the look and the try: then there is nothing to unsuspend.
            if "no change" not in tried.stdout:
                return _denied(tried.returncode, last_line(tried), "spec.suspend")

    async def privileged(self) -> str:
        tried = await self.world.apply("70-privileged-pod.yaml", user=self.world.bob, check=False)
        return _denied(tried.returncode, last_line(tried), "PodSecurity")

    async def early(self) -> str:
        """A namespace that has its tenant's label but is not marked ready yet."""
        name = "newcomer-early"
        await self.world.kubectl(
            "create",
            "-f",
            "-",
            f"--as={OPERATOR_USER}",
            stdin='{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"'
            + name
            + '","labels":{"kekkai.dev/tenant":"newcomer"}}}',
        )
        try:
            tried = await self.world.apply("71-plain-pod.yaml", {"NAMESPACE": name}, check=False)
            return _denied(tried.returncode, last_line(tried), "not ready")
        finally:
            await self.world.kubectl("delete", "namespace", name, f"--as={OPERATOR_USER}", "--wait=false", check=False)

    async def _refused_guest(self, values: dict[str, str], user: Any, expected: str) -> str:
        name, namespace = values["NAME"], values["NAMESPACE"]
        await self.world.apply("50-training-gang.yaml", values, user)

        async def ended() -> dict[str, Any] | None:
            for pod in await self.world.list("Pod", namespace, f"job-name={name}"):
                if (pod.get("status") or {}).get("phase") in {"Failed", "Succeeded"}:
                    return pod
            return None

        pod = await self.world.until(f"the pod of {name} ended", ended, 90)
        assert pod is not None
        code, text = message_of(pod)
        assert pod["status"]["phase"] == "Failed", f"the guest got the key: {text}"
        logged = await asyncio.to_thread(self.materials.last_denial, expected)
        await self.world.kubectl("delete", "job", name, "-n", namespace, "--wait=false", user=user)
        return f"exit code {code}; logged as {logged}"


def _denied(code: int, said: str, expected: str) -> str:
    assert code != 0, f"it was allowed: {said}"
    assert expected.lower() in said.lower(), f"refused for another reason: {said}"
    for before in ("denied request: ", "is forbidden: "):
        _, found, rest = said.partition(before)
        if found:
            return rest if len(rest) <= _SHOWN else rest[:_SHOWN].rsplit(" ", 1)[0] + " …"
    return said[:_SHOWN]
