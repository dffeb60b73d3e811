"""Long runs on a real API server: gangs from zero nodes through a slow and failing provider; a thousand nodes.

Provider latencies of 30 to 120 s are scaled by a tenth.
"""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from local.controlplane import ControlPlane
from tests.integration.operators_harness import Operators, World, job, pool, site, until

pytestmark = [pytest.mark.campaign, pytest.mark.timeout(2400)]
CLASS = "H200"
GANGS = int(os.environ.get("KEKKAI_GANGS", "200"))
NODES = int(os.environ.get("KEKKAI_NODES", "1000"))


@pytest.fixture(scope="module")
def operators(installed: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operators]:
    one = Operators(installed, Path(tmp_path_factory.mktemp("operators")) / "operators.log")
    one.start()
    yield one
    one.stop()


@pytest.fixture
def world(installed: ControlPlane, operators: Operators) -> Iterator[World]:
    one = World(installed)
    one.apply(site())
    yield one
    one.plane.kubectl("delete", "acceleratorpool", "--all", "--wait=false")
    until("all machines are gone", lambda: not names(one, "machines"), 900)


def names(world: World, kind: str, *options: str) -> set[str]:
    return set(world.plane.kubectl("get", kind, *options, "-o", "name").stdout.split())


def rows(world: World, kind: str, columns: str, *options: str) -> list[list[str]]:
    done = world.plane.kubectl("get", kind, *options, "--no-headers", "-o", f"custom-columns={columns}", check=False)
    return [line.split() for line in done.stdout.splitlines()]


def test_gangs_from_zero_nodes_through_a_slow_and_failing_provider(world: World) -> None:
    chance = random.Random(7)
    sizes = [chance.randint(4, 64) for _ in range(GANGS)]
    need = -(-sum(sizes) // 8)
    namespace = world.tenant_with_namespace("campaign", CLASS, sum(sizes))
    slow = pool("slow", CLASS, maximum=need * 2, delay=5)
    slow["spec"]["interconnect"] = {}
    slow["spec"]["scaling"]["maxConcurrentLaunches"] = 1000
    slow["spec"]["provider"] = {"kwok": {"bootSeconds": 3, "bootSpreadSeconds": 9, "failurePercent": 5}}
    world.apply(slow)
    began = time.monotonic()
    batch = [job(f"gang-{n}", namespace, CLASS, size, 1, 20) for n, size in enumerate(sizes)]
    for first in range(0, len(batch), 20):
        world.apply(*batch[first : first + 20])
    most, ever, used, half = 0, set[str](), set[str](), set[str]()
    done = 0
    while done < GANGS:
        assert time.monotonic() - began < 1800, f"{done} of {GANGS} gangs are done"
        machines = rows(world, "machines", "NAME:.metadata.name")
        most = max(most, len(machines))
        ready = rows(world, "nodes", "N:.metadata.name,T:.spec.taints[*].key", "-l", "kekkai.dev/pool=slow")
        ever |= {name for name, taints in ready if "uninitialized" not in taints and "not-ready" not in taints}
        pods = rows(
            world, "pods", "J:.metadata.labels.batch\\.kubernetes\\.io/job-name,N:.spec.nodeName", "-n", namespace
        )
        bound = Counter(gang for gang, node in pods if node != "<none>")
        used |= {node for _, node in pods if node != "<none>"}
        admitted = {
            gang: admitted
            for gang, admitted in rows(
                world, "kwl", 'J:.spec.ref.name,A:.status.conditions[?(@.type=="Admitted")].status', "-n", namespace
            )
        }
        half |= {gang for gang in bound if admitted.get(gang) not in ("True", None, "<none>")}
        finished = rows(world, "jobs", "J:.metadata.name,C:.status.succeeded", "-n", namespace)
        done = sum(1 for gang, count in finished if count == str(sizes[int(gang.removeprefix("gang-"))]))
        time.sleep(3)
    took = time.monotonic() - began
    until("every node has gone after the delay", lambda: not names(world, "nodes", "-l", "kekkai.dev/pool=slow"), 300)
    until("no machine is left", lambda: not names(world, "machines"), 120)
    print(
        f"{GANGS} gangs, {sum(sizes)} pods, {need} nodes needed at once; most machines {most}; nodes seen ready "
        f"{len(ever)}, of these used {len(ever & used)}; all done after {took:.0f} s"
    )
    assert half == set()
    assert most <= need
    assert ever <= used


def test_a_thousand_nodes_join_and_go(world: World, operators: Operators) -> None:
    big = pool("big", CLASS, minimum=NODES, maximum=NODES, delay=1)
    big["spec"]["scaling"]["maxConcurrentLaunches"] = 1000
    big["spec"]["provider"] = {"kwok": {"bootSeconds": 3, "bootSpreadSeconds": 9, "failurePercent": 5}}
    began = time.monotonic()
    world.apply(big)

    def ready() -> bool:
        found = rows(world, "machines", 'R:.status.conditions[?(@.type=="Ready")].status')
        return sum(1 for (state,) in found if state == "True") == NODES

    until(f"{NODES} machines are ready", ready, 1200)
    up = time.monotonic() - began
    assert len(names(world, "nodes", "-l", "kekkai.dev/pool=big")) == NODES
    operators.kill()
    operators.start()  # between growth and shrinking, nothing tidied up
    began = time.monotonic()
    world.plane.kubectl("scale", "acceleratorpool/big", "--replicas=0")
    until("all nodes are gone", lambda: not names(world, "nodes", "-l", "kekkai.dev/pool=big"), 1200)
    until("all machines are gone", lambda: not names(world, "machines"), 300)
    print(f"{NODES} nodes: ready after {up:.0f} s, gone after {time.monotonic() - began:.0f} s")
