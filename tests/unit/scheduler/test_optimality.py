"""How near a plan comes to the optimum: the oracle is right, and the plan is near it."""

from __future__ import annotations

import itertools
import statistics

import pytest

from bench.optimality import admitted, devices_of, instance, optimum, planned, priorities, score, scores
from scheduler import Admission, Fleet, Memory, Plan, plan

SLICE = range(1, 13)


def fits(fleet: Fleet, chosen: dict[str, str]) -> bool:
    """Whether the plan's own rules let in exactly these gangs, each in the pool that it is given: by quota and by room.

    Brute force over the nodes of each pod, so it is for tiny instances only.
    """
    use: dict[tuple[str, str], int] = {}
    for key, pool in chosen.items():
        share = (fleet.pending[key].tenant, fleet.pools[pool].accelerator)
        use[share] = use.get(share, 0) + devices_of(fleet.pending[key])
    for (tenant, accelerator), devices in use.items():
        quota = fleet.tenants[tenant].quota[accelerator]
        if devices > quota.nominal + quota.borrow:
            return False
    free = {
        name: {
            resource: int(fleet.table.allocatable[row, column] - fleet.table.used[row, column])
            for resource, column in fleet.table.columns.items()
        }
        for name, row in fleet.table.rows.items()
    }
    return place(fleet, [(key, pool) for key, pool in sorted(chosen.items())], free)


def place(fleet: Fleet, left: list[tuple[str, str]], free: dict[str, dict[str, int]]) -> bool:
    if not left:
        return True
    (key, pool), rest = left[0], left[1:]
    workload = fleet.pending[key]
    if any(not set(one.node_selector.items()) <= fleet.pools[pool].labels.items() for one in workload.pod_sets):
        return False
    pods = [one for one in workload.pod_sets for _ in range(one.count)]
    nodes = sorted(name for name in fleet.nodes if fleet.nodes[name].pool == pool)
    racks = {fleet.nodes[name].rack for name in nodes} if workload.required_topology else {""}
    for rack in sorted(racks):
        inside = [name for name in nodes if not rack or fleet.nodes[name].rack == rack]
        for spots in itertools.product(inside, repeat=len(pods)):
            then = {name: dict(amounts) for name, amounts in free.items()}
            for pod, spot in zip(pods, spots, strict=True):
                for resource, amount in {**pod.requests, "pods": 1}.items():
                    then[spot][resource] -= amount
            if all(amount >= 0 for amounts in then.values() for amount in amounts.values()) and place(
                fleet, rest, then
            ):
                return True
    return False


def tiny(seed: int) -> Fleet | None:
    """An instance cut down to what brute force can do."""
    fleet = instance(seed)
    small = [one for one in fleet.pending.values() if sum(each.count for each in one.pod_sets) <= 2][:4]
    if len(fleet.nodes) > 6 or len(small) < 3:
        return None
    for key in set(fleet.pending) - {one.key for one in small}:
        fleet.remove_workload(key)
    return fleet


def test_the_oracle_finds_what_brute_force_finds() -> None:
    seen = 0
    for seed in range(1, 60):
        fleet = tiny(seed)
        if fleet is None:
            continue
        best = [0] * (2 * len(priorities(fleet)))
        for where in itertools.product([None, *sorted(fleet.pools)], repeat=len(fleet.pending)):
            chosen = {key: pool for key, pool in zip(sorted(fleet.pending), where, strict=True) if pool is not None}
            reached = admitted(fleet, Plan(tuple(Admission(key, "", pool, ()) for key, pool in chosen.items())))
            if reached > best and fits(fleet, chosen):
                best = reached
        assert optimum(fleet) == best, seed
        seen += 1
        if seen == 6:
            break
    assert seen == 6


def test_no_plan_is_better_than_the_optimum() -> None:
    for seed in SLICE:
        fleet = instance(seed)
        assert admitted(fleet, planned(fleet)) <= optimum(fleet), seed


def test_what_is_missed_at_the_top_is_not_made_up_for_below() -> None:
    assert score([8, 8, 16, 16], [4, 4, 16, 16]) == 0.5
    assert score([0, 8, 0, 16], [0, 8, 0, 12]) == 0.75
    assert score([4, 8], [5, 9]) == 1.0
    assert score([0, 0], [0, 0]) == 1.0


def test_plans_are_near_the_optimum() -> None:
    found = scores(SLICE)
    assert statistics.fmean(found) >= 0.98
    assert min(found) >= 0.9


@pytest.mark.campaign
@pytest.mark.xfail(reason="two of the three hundred are still below 90 %", strict=False)
def test_plans_are_near_the_optimum_on_three_hundred_instances() -> None:
    found = scores(range(1, 301))
    assert statistics.fmean(found) >= 0.98
    assert min(found) >= 0.9


def test_a_plan_admits_what_it_says_it_admits() -> None:
    """The bench reads admissions only: their placements hold whole gangs."""
    for seed in SLICE:
        fleet = instance(seed)
        for one in plan(fleet, Memory(), 1000.0)[0].admissions:
            wanted = {each.name: each.count for each in fleet.pending[one.workload].pod_sets}
            placed: dict[str, int] = {}
            for spot in one.placements:
                placed[spot.pod_set] = placed.get(spot.pod_set, 0) + spot.count
            assert placed == wanted
