"""Repair: the next step of each machine, and the breaker."""

from __future__ import annotations

from dataclasses import replace

import pytest

from scheduler.autoscale.repair import ConditionSeen, NodeReport, RepairPolicy, Repairs, XidSeen, repairs

NOW = 100_000.0
WELL = NodeReport("m", "p", "n", created_at=1000.0, initialized=True, conditions=(ConditionSeen("Ready", "True", 1.0),))
SILENT = replace(WELL, conditions=(ConditionSeen("Ready", "Unknown", NOW - 700),))


def steps(*reports: NodeReport, policy: RepairPolicy | None = None) -> list[tuple[str, str, str]]:
    found = run(*reports, policy=policy)
    return [(one.machine, one.step, one.reason) for one in found.steps]


def run(*reports: NodeReport, policy: RepairPolicy | None = None) -> Repairs:
    named = [replace(one, machine=f"m{at}") for at, one in enumerate(reports)]
    return repairs(named, {"p": policy or RepairPolicy()}, NOW)


def test_the_steps_of_a_silent_node() -> None:
    assert steps(WELL) == []
    assert steps(SILENT) == [("m0", "cordon", "NotReady")]
    assert steps(replace(SILENT, cordoned=True)) == [("m0", "drain", "NotReady")]
    drained = replace(SILENT, cordoned=True, draining_since=NOW - 10)
    assert steps(drained) == []
    assert steps(replace(drained, drained=True)) == [("m0", "replace", "NotReady")]
    assert steps(replace(drained, draining_since=NOW - 4000)) == [("m0", "replace", "NotReady")]
    assert steps(replace(drained, going=True)) == []
    assert run(drained).next_wake == NOW - 10 + 3600


def test_patience_and_recovery() -> None:
    early = replace(SILENT, conditions=(ConditionSeen("Ready", "False", NOW - 10),))
    assert steps(early) == []
    assert run(early).next_wake == NOW + 590
    assert steps(replace(WELL, cordoned=True)) == [("m0", "release", "Recovered")]
    assert steps(replace(WELL, cordoned=True, draining_since=1.0)) == []
    assert steps(replace(early, cordoned=True)) == []  # not well yet


@pytest.mark.parametrize(
    ("xids", "busy", "expected"),
    [
        ((79,), True, [("m0", "drain", "DeviceBroken")]),
        ((63,), True, []),
        ((63,), False, [("m0", "drain", "DeviceWorn")]),
        ((63, 79), True, [("m0", "drain", "DeviceBroken")]),
        ((13, 31, 43), True, [("m0", "release", "Recovered")]),  # of applications
    ],
)
def test_xid_errors(xids: tuple[int, ...], busy: bool, expected: list[tuple[str, str, str]]) -> None:
    seen = tuple(XidSeen(code, NOW - 100 + at, "gpu0") for at, code in enumerate(xids))
    assert steps(replace(WELL, cordoned=True, busy=busy, xids=seen)) == expected


def test_missing_devices_and_further_conditions() -> None:
    lost = replace(WELL, devices=8, devices_missing=1, missing_since=NOW - 601)
    assert steps(lost) == [("m0", "cordon", "DevicesMissing")]
    full = replace(WELL, conditions=(*WELL.conditions, ConditionSeen("ReadonlyFilesystem", "True", NOW - 61)))
    assert steps(full) == []
    assert steps(full, policy=RepairPolicy(conditions={"ReadonlyFilesystem": 60.0}))[0][2] == "ReadonlyFilesystem"


def test_a_machine_that_never_joined_is_replaced_at_once_whatever_the_breaker_says() -> None:
    lost = replace(WELL, node="", initialized=False, created_at=NOW - 2000, conditions=())
    assert steps(lost, lost, lost) == [(f"m{at}", "replace", "NeverJoined") for at in range(3)]


def test_the_breaker() -> None:
    assert len(run(*[SILENT] * 2, *[WELL] * 8).steps) == 2
    found = run(*[SILENT] * 3, *[WELL] * 8)
    assert found.steps == ()
    assert "more than 20%" in found.held["p"]
    assert found.ill == {"p": 3}
    assert len(run(SILENT, WELL, WELL).steps) == 1  # one is always repaired


def test_expiry_goes_one_by_one_and_leaves_protected_nodes() -> None:
    policy = RepairPolicy(expire_after=50_000.0)
    assert steps(WELL, WELL, policy=policy) == [("m0", "cordon", "Expired")]
    assert steps(replace(WELL, going=True), WELL, policy=policy) == []
    assert steps(replace(WELL, do_not_disrupt=True), WELL, policy=policy) == [("m1", "cordon", "Expired")]
    assert steps(replace(WELL, cordoned=True, drained=True), WELL, policy=policy) == [("m0", "replace", "Expired")]
    young = replace(WELL, created_at=NOW - 10)
    assert run(young, policy=policy).next_wake == NOW - 10 + 50_000


def test_what_people_hold_is_left_alone() -> None:
    assert steps(replace(SILENT, held=True)) == []
    assert steps(SILENT, policy=RepairPolicy(enabled=False)) == []
    protected = replace(SILENT, cordoned=True, do_not_disrupt=True)
    assert steps(protected) == []
    assert steps(replace(protected, drained=True)) == [("m0", "replace", "NotReady")]
