from __future__ import annotations

from dataclasses import replace

from scheduler import BoundPod, ClassQuota, Memory, PodSet, TenantState, Toleration, plan
from scheduler.fleet import MachineState, Taint
from scheduler.queueing.order import ByAge
from tests.unit.scheduler.fleets import GPU, add_node, apply, fleet, job, node_of, pool, tenant


def codes(decided, key: str) -> list[str]:
    return [reason.code for waiting in decided.waiting if waiting.workload == key for reason in waiting.reasons]


def test_a_gang_is_admitted_whole_on_few_nodes() -> None:
    made = fleet(pools=[pool()], nodes=4)
    made.upsert_workload(job("gang", count=6, devices=4))
    decided, _ = plan(made, Memory(), 0.0)
    (admission,) = decided.admissions
    assert sum(placed.count for placed in admission.placements) == 6
    assert len({placed.node for placed in admission.placements}) == 3
    assert admission.accelerator == "H200"
    assert not list(decided.waiting)


def test_a_gang_that_does_not_fit_whole_takes_nothing_and_grows_the_pool() -> None:
    made = fleet(pools=[pool()], nodes=2)
    made.upsert_workload(job("gang", count=4, devices=8))
    decided, _ = plan(made, Memory(), 0.0)
    assert not decided.admissions
    assert [request.name for request in decided.machine_requests] == ["h200-2", "h200-3"]
    assert codes(decided, "train/gang") == ["MachinesComing"]


def test_late_machines_count_as_coming_not_as_missing() -> None:
    made = fleet(pools=[pool()])
    made.upsert_workload(job("gang", count=3))
    first, memory = plan(made, Memory(), 0.0)
    apply(made, first, boot=False)
    second, _ = plan(made, memory, 30.0)
    assert len(first.machine_requests) == 3
    assert second.machine_requests == ()
    assert codes(second, "train/gang") == ["MachinesComing"]


def test_scales_from_zero_runs_and_scales_to_zero_after_the_delay() -> None:
    made = fleet(pools=[pool()])
    made.upsert_workload(job("gang", count=4))
    first, memory = plan(made, Memory(), 0.0)
    apply(made, first)
    second, memory = plan(made, memory, 1.0)
    apply(made, second)
    assert len(second.admissions) == 1
    running, memory = plan(made, memory, 100.0)
    assert running.machine_removals == ()
    made.upsert_workload(replace(made.workloads["train/gang"], finished=True, placements=()))
    idle, memory = plan(made, memory, 101.0)
    assert idle.machine_removals == ()
    assert idle.next_wake == 161.0
    assert len(idle.idle) == 4
    early, memory = plan(made, memory, 160.9)
    assert early.machine_removals == ()
    late, _ = plan(made, memory, 161.0)
    assert len(late.machine_removals) == 4


def test_minimum_and_headroom_are_kept() -> None:
    made = fleet(pools=[pool(minimum=2, headroom=1, scale_down_delay=0.0)])
    first, memory = plan(made, Memory(), 0.0)
    assert len(first.machine_requests) == 2
    apply(made, first)
    made.upsert_workload(job("one", count=2))
    second, memory = plan(made, memory, 1.0)
    apply(made, second)
    assert [request.reason for request in second.machine_requests] == ["to keep headroom"]
    third, _ = plan(made, memory, 2.0)
    assert third.machine_requests == ()
    assert third.machine_removals == ()


def test_the_cheapest_pool_that_fits_grows() -> None:
    cheap = pool("cheap", accelerator="H100", price_micro=1, maximum=1)
    dear = pool("dear", price_micro=5)
    made = fleet(pools=[cheap, dear])
    made.upsert_workload(job("small"))
    made.upsert_workload(job("large", count=3, created_at=1.0))
    decided, _ = plan(made, Memory(), 0.0)
    assert sorted({request.pool for request in decided.machine_requests if request.workload == "train/small"}) == [
        "cheap"
    ]
    assert {request.pool for request in decided.machine_requests if request.workload == "train/large"} == {"dear"}


def test_priority_goes_before_age() -> None:
    made = fleet(pools=[pool(maximum=1)], nodes=1)
    made.upsert_workload(job("old", created_at=0.0))
    made.upsert_workload(job("urgent", created_at=9.0, priority=10))
    decided, _ = plan(made, Memory(), 10.0)
    assert [admission.workload for admission in decided.admissions] == ["train/urgent"]
    assert codes(decided, "train/old") == ["PoolAtMaximum"]


def devices_admitted(decided) -> dict[str, int]:
    counted: dict[str, int] = {}
    for admission in decided.admissions:
        owner = admission.workload.split("-")[0].removeprefix("train/")
        counted[owner] = counted.get(owner, 0) + sum(placed.count for placed in admission.placements)
    return counted


def test_tenants_take_turns_by_weight_whoever_came_first() -> None:
    tenants = [tenant("first"), tenant("second"), tenant("heavy", weight=200)]
    made = fleet(pools=[pool(maximum=8)], nodes=8, tenants=tenants)
    for at, owner in enumerate(("first", "second", "heavy")):
        for index in range(40):
            made.upsert_workload(job(f"{owner}-{index}", devices=4, tenant=owner, created_at=at * 100.0 + index))
    decided, _ = plan(made, Memory(), 0.0)
    assert devices_admitted(decided) == {"first": 4, "second": 4, "heavy": 8}
    oldest, _ = plan(made, Memory(), 0.0, lambda fleet, scratch: ByAge())
    assert devices_admitted(oldest) == {"first": 16}


def test_a_tenant_within_its_nominal_goes_before_one_that_borrows() -> None:
    tenants = [
        TenantState("lender", quota={"H200": ClassQuota(48)}),
        TenantState("borrower", weight=1_000_000, quota={"H200": ClassQuota(8, borrow=56)}),
    ]
    made = fleet(pools=[pool(maximum=8)], nodes=8, tenants=tenants)
    for index in range(10):
        made.upsert_workload(job(f"borrower-{index}", tenant="borrower", created_at=float(index)))
        made.upsert_workload(job(f"lender-{index}", tenant="lender", created_at=100.0 + index))
    decided, _ = plan(made, Memory(), 0.0)
    assert devices_admitted(decided) == {"lender": 6, "borrower": 2}


def test_quota_says_how_much_is_missing() -> None:
    made = fleet(pools=[pool()], nodes=4, tenants=[TenantState("aurora", quota={"H200": ClassQuota(8, borrow=8)})])
    for name in ("a", "b", "c"):
        made.upsert_workload(job(name))
    decided, _ = plan(made, Memory(), 0.0)
    assert len(decided.admissions) == 2
    (waiting,) = decided.waiting
    (reason,) = waiting.reasons
    assert reason.code == "QuotaExceeded"
    assert "uses 16 of 16 H200 and asks for 8 more" in reason.message
    assert "8 H200" in reason.nearest


def test_quota_is_freed_as_pods_end() -> None:
    made = fleet(pools=[pool()], nodes=4, tenants=[tenant(devices=16)])
    made.upsert_workload(job("a", count=2))
    decided, memory = plan(made, Memory(), 0.0)
    apply(made, decided)
    made.upsert_workload(job("b"))
    assert codes(plan(made, memory, 1.0)[0], "train/b") == ["QuotaExceeded"]
    running = made.workloads["train/a"]
    made.upsert_workload(replace(running, placements=running.placements[:1]))
    assert [a.workload for a in plan(made, memory, 2.0)[0].admissions] == ["train/b"]


def test_rights_and_places_that_refuse_are_named() -> None:
    confidential = pool("snp", confidential="sev-snp")
    tainted = pool("tainted", taints=(Taint("team", "x"),))
    abroad = pool("abroad", jurisdiction="US")
    made = fleet(
        pools=[confidential, tainted, abroad, pool("plain")],
        tenants=[tenant(isolation="confidential", jurisdictions=frozenset({"JP"}))],
    )
    made.upsert_workload(job("a"))
    decided, _ = plan(made, Memory(), 0.0)
    assert {request.pool for request in decided.machine_requests} == {"snp"}
    made.upsert_tenant(tenant(jurisdictions=frozenset({"DE"})))
    (reason,) = next(iter(plan(made, Memory(), 0.0)[0].waiting)).reasons
    assert reason.code == "NoPoolFits"
    assert "abroad: stands in US, outside the tenant's residency" in reason.message


def test_unknown_tenant_hold_inactive_and_foreign_class() -> None:
    made = fleet(pools=[pool()], nodes=1, tenants=[tenant("held", hold=True), TenantState("poor")])
    made.upsert_workload(job("a", tenant="nobody"))
    made.upsert_workload(job("b", tenant="held"))
    made.upsert_workload(job("c", tenant="poor"))
    made.upsert_workload(job("d", active=False))
    decided, _ = plan(made, Memory(), 0.0)
    assert codes(decided, "train/a") == ["TenantUnknown"]
    assert codes(decided, "train/b") == ["TenantOnHold"]
    assert codes(decided, "train/c") == ["ClassNotInQuota"]
    assert codes(decided, "train/d") == []


def test_work_without_devices_needs_no_quota() -> None:
    made = fleet(pools=[pool()], nodes=1, tenants=[TenantState("aurora")])
    made.upsert_workload(job("cpu", count=3, devices=0))
    (admission,) = plan(made, Memory(), 0.0)[0].admissions
    assert admission.accelerator == ""


def test_selectors_tolerations_and_runtime_class() -> None:
    tainted = pool("tainted", accelerator="H100", taints=(Taint("team", "x"),))
    snp = pool("snp", confidential="sev-snp", price_micro=99_000_000)
    made = fleet(pools=[tainted, snp, pool("plain")], nodes=1)
    shape = PodSet("main", 1, {GPU: 1})
    made.upsert_workload(job("sel", pod_sets=(replace(shape, node_selector={"kekkai.dev/accelerator": "H100"}),)))
    made.upsert_workload(job("tee", pod_sets=(replace(shape, confidential=True),)))
    tolerant = replace(
        shape, node_selector={"kekkai.dev/accelerator": "H100"}, tolerations=(Toleration("team", "Exists"),)
    )
    made.upsert_workload(job("tol", pod_sets=(tolerant,)))
    decided, _ = plan(made, Memory(), 0.0)
    assert {a.workload: a.pool for a in decided.admissions} == {"train/tee": "snp", "train/tol": "tainted"}
    assert "has the taint team" in next(iter(decided.waiting)).reasons[0].message


def test_pods_of_others_take_room() -> None:
    made = fleet(pools=[pool(maximum=1)], nodes=1)
    made.upsert_pod(BoundPod("kube-system/agent", "h200-0", {GPU: 1}))
    made.upsert_workload(job("a"))
    assert not plan(made, Memory(), 0.0)[0].admissions
    made.remove_pod("kube-system/agent")
    assert plan(made, Memory(), 0.0)[0].admissions


def test_required_topology_keeps_a_gang_in_one_rack() -> None:
    racked = pool(nodes_per_rack=2, maximum=8)
    made = fleet(pools=[racked])
    for index, rack in ((0, "r0"), (1, "r0"), (2, "r1"), (4, "r2"), (5, "r2")):
        machine = MachineState(f"h200-{index}", "h200", f"h200-{index}", rack=f"h200-{rack.replace('r', 'rack-')}")
        made.upsert_machine(machine)
        made.upsert_node(node_of(racked, machine))
    made.upsert_workload(
        job(
            "blocker",
            devices=4,
            created_at=-1.0,
            pod_sets=(PodSet("main", 1, {GPU: 4}, {"kubernetes.io/hostname": "h200-0"}),),
        )
    )
    made.upsert_workload(job("gang", count=2, required_topology="rack"))
    decided, _ = plan(made, Memory(), 0.0)
    placed = {a.workload: sorted(p.node for p in a.placements) for a in decided.admissions}
    assert placed["train/gang"] == ["h200-4", "h200-5"]
    made.upsert_workload(job("toowide", count=3, required_topology="rack"))
    assert codes(plan(made, Memory(), 0.0)[0], "train/toowide") == ["TopologyTooNarrow"]


def test_growth_for_a_rack_asks_for_slots_of_one_rack() -> None:
    made = fleet(pools=[pool(nodes_per_rack=4, maximum=12)])
    for index in (0, 1, 2):
        add_node(made, made.pools["h200"], index)
    made.upsert_workload(job("gang", count=3, required_topology="rack"))
    # The three nodes carry no rack, so only a fresh rack serves.
    decided, _ = plan(made, Memory(), 0.0)
    assert {request.rack for request in decided.machine_requests} == {"h200-rack-1"}
    assert len(decided.machine_requests) == 3


def test_growth_finishes_the_rack_that_needs_the_fewest_machines() -> None:
    racked = pool(nodes_per_rack=4, maximum=16)
    made = fleet(pools=[racked])
    for index in (0, 8, 9):
        machine = MachineState(f"h200-{index}", "h200", f"h200-{index}", rack=f"h200-rack-{index // 4}")
        made.upsert_machine(machine)
        made.upsert_node(node_of(racked, machine))
    made.upsert_workload(job("gang", count=3, required_topology="rack"))
    decided, _ = plan(made, Memory(), 0.0)
    assert [request.name for request in decided.machine_requests] == ["h200-10"]


def test_growth_for_zone_and_site_levels() -> None:
    made = fleet(pools=[pool(labels={"topology.kubernetes.io/zone": "tokyo-a"})])
    for level in ("zone", "site"):
        made.upsert_workload(job(level, count=2, required_topology=level))
    decided, _ = plan(made, Memory(), 0.0)
    assert len(decided.machine_requests) == 4


def test_nothing_is_bought_for_pods_that_select_a_host_that_does_not_exist() -> None:
    made = fleet(pools=[pool(scale_down_delay=0.0)])
    shape = PodSet("main", 1, {GPU: 8}, {"kubernetes.io/hostname": "elsewhere"})
    made.upsert_workload(job("lost", pod_sets=(shape,)))
    decided, _ = plan(made, Memory(), 0.0)
    assert decided.machine_requests == ()
    assert codes(decided, "train/lost") == ["PoolAtMaximum"]


def test_pods_that_select_a_rack_get_machines_of_that_rack() -> None:
    made = fleet(pools=[pool(nodes_per_rack=4)])
    shape = PodSet("main", 2, {GPU: 8}, {"kekkai.dev/rack": "h200-rack-1"})
    made.upsert_workload(job("picky", pod_sets=(shape,)))
    decided, _ = plan(made, Memory(), 0.0)
    assert [request.name for request in decided.machine_requests] == ["h200-4", "h200-5"]


def test_further_taints_of_single_nodes_keep_pods_away() -> None:
    made = fleet(pools=[pool(maximum=2)], nodes=2)
    made.upsert_node(replace(made.nodes["h200-0"], taints=(Taint("node.kubernetes.io/disk-pressure"),)))
    made.upsert_workload(job("a"))
    made.upsert_workload(job("b", created_at=1.0))
    (admission,) = plan(made, Memory(), 0.0)[0].admissions
    assert admission.placements[0].node == "h200-1"
    made.upsert_node(replace(made.nodes["h200-0"], taints=()))
    assert len(plan(made, Memory(), 0.0)[0].admissions) == 2


def test_a_silent_node_is_coming_but_what_runs_on_it_stays_counted() -> None:
    made = fleet(pools=[pool(maximum=1)], nodes=1)
    made.upsert_workload(job("runs", devices=6))
    decided, memory = plan(made, Memory(), 0.0)
    apply(made, decided)
    made.upsert_node(replace(made.nodes["h200-0"], ready=False))
    made.upsert_workload(job("small", devices=2))
    made.upsert_workload(job("large", devices=4, created_at=1.0))
    decided, _ = plan(made, memory, 1.0)
    assert decided.admissions == decided.evictions == ()
    assert codes(decided, "train/small") == ["MachinesComing"]
    assert codes(decided, "train/large") == ["PoolAtMaximum"]


def test_a_cordoned_node_takes_nothing_and_is_not_coming() -> None:
    made = fleet(pools=[pool(maximum=1)], nodes=1)
    made.upsert_node(replace(made.nodes["h200-0"], schedulable=False))
    made.upsert_workload(job("a"))
    assert codes(plan(made, Memory(), 0.0)[0], "train/a") == ["PoolAtMaximum"]


def test_daemonset_pods_neither_use_up_headroom_nor_keep_a_node() -> None:
    made = fleet(pools=[pool(headroom=1, scale_down_delay=0.0)], nodes=2)
    for index in range(2):
        made.upsert_pod(BoundPod(f"kube-system/agent-{index}", f"h200-{index}", {"cpu": 100}))
    decided, memory = plan(made, Memory(), 0.0)
    assert decided.machine_requests == ()
    assert [removal.machine for removal in decided.machine_removals] == ["h200-0"]
    made.upsert_pod(BoundPod("other/web", "h200-0", {"cpu": 100}, keeps_node=True))
    decided, _ = plan(made, memory, 1.0)
    assert decided.machine_removals == ()
    made.remove_pod("other/web")
    made.upsert_pod(BoundPod("other/web", "h200-1", {"cpu": 100}))
    assert len(plan(made, memory, 2.0)[0].machine_removals) == 1


def test_other_extended_resources_are_not_devices() -> None:
    fabric = pool(allocatable={"cpu": 64_000, "memory": 2**39, "pods": 110, GPU: 8, "rdma/hca": 100})
    made = fleet(pools=[fabric], nodes=1, tenants=[tenant(devices=8)])
    made.upsert_workload(job("a", pod_sets=(PodSet("main", 1, {GPU: 8, "rdma/hca": 4}),)))
    decided, _ = plan(made, Memory(), 0.0)
    assert len(decided.admissions) == 1
    apply(made, decided)
    assert made.use.devices["aurora", "H200"] == 8


def test_a_gang_of_two_shapes_is_placed_together_or_not_at_all() -> None:
    made = fleet(pools=[pool(maximum=2)], nodes=2)
    sets = (PodSet("driver", 1, {"cpu": 4000}), PodSet("worker", 2, {GPU: 8, "cpu": 32_000}))
    made.upsert_workload(job("two", pod_sets=sets))
    (admission,) = plan(made, Memory(), 0.0)[0].admissions
    assert sorted((one.pod_set, one.count) for one in admission.placements if one.pod_set == "driver") == [
        ("driver", 1)
    ]
    assert sum(one.count for one in admission.placements if one.pod_set == "worker") == 2
    made.upsert_workload(job("two", pod_sets=(sets[0], replace(sets[1], count=3))))
    decided, _ = plan(made, Memory(), 0.0)
    assert decided.admissions == ()
    (reason,) = next(iter(decided.waiting)).reasons
    assert "2 of 3 worker pods have room on 2 nodes" in reason.message
    assert "needs 1 more free node of h200" in reason.nearest


def test_a_lost_node_evicts_what_ran_on_it() -> None:
    made = fleet(pools=[pool()], nodes=2)
    made.upsert_workload(job("gang", count=2))
    decided, memory = plan(made, Memory(), 0.0)
    apply(made, decided)
    made.remove_node("h200-1")
    (eviction,) = plan(made, memory, 1.0)[0].evictions
    assert eviction.workload == "train/gang"
    assert "h200-1" in eviction.reason.message


def test_a_clock_that_went_back_does_not_remove_early() -> None:
    made = fleet(pools=[pool(scale_down_delay=10.0)], nodes=1)
    _, memory = plan(made, Memory(), 1000.0)
    decided, memory = plan(made, memory, 500.0)
    assert decided.machine_removals == ()
    assert plan(made, memory, 509.0)[0].machine_removals == ()
    assert len(plan(made, memory, 510.0)[0].machine_removals) == 1


def test_a_freed_slot_is_used_again() -> None:
    made = fleet(pools=[pool()], nodes=3)
    made.remove_node("h200-1")
    made.remove_machine("h200-1")
    made.upsert_workload(job("gang", count=3))
    assert [request.name for request in plan(made, Memory(), 0.0)[0].machine_requests] == ["h200-1"]
