"""kill -9 of the operators and the key service at ten random moments of the demo: it still ends right."""

from __future__ import annotations

import asyncio
import os
import random
from pathlib import Path

import pytest

from local import stack
from local.controlplane import ControlPlane
from local.controlplane.supervision import SupervisorError
from local.demo.scenario import PODS
from tests.e2e.demo_run import play, processes_naming

KILLS = 10
SPAN_SECONDS = 25.0  # the demo takes longer, the more so when it is disturbed


@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", [int(os.environ.get("KEKKAI_CHAOS_SEED", "20261124"))])
def test_killed_at_ten_random_moments(seed: int, tmp_path: Path) -> None:
    dice = random.Random(seed)
    moments = sorted(dice.uniform(1.0, SPAN_SECONDS) for _ in range(KILLS))
    victims = [dice.choice(["operators", "key-service"]) for _ in moments]
    killed: list[str] = []

    async def disturb(stacked: stack.Stack) -> None:
        past = 0.0
        for moment, victim in zip(moments, victims, strict=True):
            await asyncio.sleep(moment - past)
            past = moment
            try:
                await asyncio.to_thread(stacked.plane.supervisor.kill, victim)
                killed.append(victim)
            except SupervisorError:
                killed.append(f"{victim} (was just restarting)")

    with ControlPlane.start(tmp_path / "p") as plane:
        stacked = stack.start(plane)
        report, materials = asyncio.run(play(stacked, disturb, lost_replies=victims.count("key-service")))
        assert [(row.title, row.got) for row in report.broken] == [], f"seed {seed}, killed {killed}"
        assert len(killed) == KILLS
        releases = materials.releases()
        # A reply lost to a kill costs a run: its guest asks again, within the session or in a new one. What may
        # never happen is two releases from one entry, or a session that serves anyone but the guest it attested.
        counts = sorted(entry["count"] for entry in releases)
        assert counts == list(range(1, len(releases) + 1)), f"a run was counted twice or lost, seed {seed}"
        served: dict[str, set[tuple[str, str]]] = {}
        for entry in releases:
            served.setdefault(entry["session"], set()).add((entry["recipient"], entry["evidence"]))
        assert all(len(guests) == 1 for guests in served.values()), f"a session served two guests, seed {seed}"
        assert len(served) >= PODS, f"a pod got a key without an entry, seed {seed}"
        phases = plane.kubectl("get", "pods", "-A", "-o", "jsonpath={.items[*].status.phase}").stdout.split()
        assert set(phases) <= {"Succeeded", "Failed"}, f"orphan pods, seed {seed}"
        assert plane.kubectl("get", "nodes,machines", "-o", "name").stdout == "", f"orphan nodes, seed {seed}"
    assert processes_naming(str(tmp_path)) == [], f"orphan processes, seed {seed}"
