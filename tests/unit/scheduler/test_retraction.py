"""What a plan lets in is not let in for nothing: one that may reclaim goes before borrowers of the same plan."""

from __future__ import annotations

from scheduler import ClassQuota, Memory, PodSet, TenantState, plan
from scheduler.cycle.claim import GRACE
from tests.unit.scheduler.fleets import GPU, add_node, apply, fleet, job, pool

POOL = pool(minimum=3, maximum=3, scale_down_delay=1e9)


def gang(name: str, tenant: str, pods: int, created_at: float, **over: object):
    return job(name, tenant=tenant, created_at=created_at, pod_sets=(PodSet("main", pods, {"cpu": 1, GPU: 2}),), **over)


def crowded():
    """24 devices; `a` holds 14 of which 6 are borrowed, and `c`, whose 14 were lent, waits beside a borrower."""
    made = fleet(pools=[POOL])
    made.remove_tenant("aurora")
    for slot in range(3):
        add_node(made, POOL, slot)
    for name, nominal, borrow in (("a", 8, 8), ("b", 0, 8), ("c", 16, 0)):
        made.upsert_tenant(TenantState(name, quota={"H200": ClassQuota(nominal, borrow)}))
    made.upsert_workload(gang("firm", "a", 3, 0.0, priority=10))
    made.upsert_workload(gang("lent", "a", 4, 1.0))
    decided, memory = plan(made, Memory(), 2.0)
    assert {one.workload for one in decided.admissions} == {"train/firm", "train/lent"}
    apply(made, decided)
    made.upsert_workload(gang("owed", "c", 7, 3.0))
    for index in range(3):
        made.upsert_workload(gang(f"small{index}", "b", 1, 4.0 + index))
    return made, memory


def test_borrowers_are_not_let_in_where_the_owed_one_will_need_the_room() -> None:
    made, memory = crowded()
    let_in: set[str] = set()
    for _ in range(5):
        decided, memory = plan(made, memory, 3.0 + GRACE)
        assert not {one.workload for one in decided.evictions} & let_in
        let_in |= {one.workload for one in decided.admissions}
        apply(made, decided)
    assert "train/owed" in let_in
    assert made.workloads["train/lent"].admitted is False


def test_who_was_taken_back_is_let_in_where_room_is_left() -> None:
    made, memory = crowded()
    decided, memory = plan(made, memory, 3.0 + GRACE)
    assert [one.workload for one in decided.evictions] == ["train/lent"]
    # 10 devices are free, of which the owed one keeps 8; 6 more come free for it, and 2 beyond.
    assert [one.workload for one in decided.admissions] == ["train/small0"]


def test_one_that_is_owed_goes_before_a_borrower_of_higher_priority_for_whom_others_would_go() -> None:
    """Else the borrower would start in the room of its victim, and be evicted for the one that is owed."""
    made = fleet(pools=[POOL])
    made.remove_tenant("aurora")
    for slot in range(3):
        add_node(made, POOL, slot)
    for name, nominal, borrow in (("b", 20, 4), ("c", 4, 0)):
        made.upsert_tenant(TenantState(name, quota={"H200": ClassQuota(nominal, borrow)}))
    for index in range(12):
        made.upsert_workload(gang(f"low{index}", "b", 1, float(index)))
    decided, memory = plan(made, Memory(), 12.0)
    assert len(decided.admissions) == 12
    apply(made, decided)
    made.upsert_workload(gang("urgent", "b", 1, 13.0, priority=10))
    made.upsert_workload(gang("owed", "c", 2, 14.0))
    started, evicted = [], []
    for _ in range(6):
        decided, memory = plan(made, memory, 14.0 + GRACE)
        started += [one.workload for one in decided.admissions]
        evicted += [one.workload for one in decided.evictions]
        apply(made, decided)
    assert "train/owed" in started
    assert not set(started) & set(evicted)
    assert len(evicted) == len(set(evicted))
