"""Annotations of a Job become fields of its Workload's spec; what cannot be read is refused by name."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from crds.workload import WorkloadSpec
from operators.workloads.queueing import request, says
from scheduler.objects.fleet_objects import checks_passed, last_checkpoint, workload_state
from scheduler.objects.job_shape import shape_of
from scheduler.objects.queue_settings import LEVELS, SETTINGS
from tests.unit.workloads.workload_objects import job, pod, workload

K = "kekkai.dev/"


def annotated(**annotations: str) -> dict[str, Any]:
    out = copy.deepcopy(job(4, 8))
    out["metadata"]["annotations"] = {K + name.replace("_", "-"): text for name, text in annotations.items()}
    return out


ALL = {
    "topology_required": "rack",
    "accelerators": "H200, H100=0.6",
    "jurisdictions": "JP,DE",
    "preemptible": "false",
    "maximum_runtime_seconds": "3600",
    "pods_ready_timeout_seconds": "300",
    "admission_checks": "provisioning,budget",
}


def test_every_setting_is_read_and_is_a_good_spec() -> None:
    shape = shape_of(annotated(**ALL))
    assert shape.refusal is None
    assert shape.settings == {
        "topology": {"required": "rack"},
        "accelerators": [{"type": "H200", "throughput": "1"}, {"type": "H100", "throughput": "0.6"}],
        "residency": {"jurisdictions": ["DE", "JP"]},
        "preemptible": False,
        "maximumRuntimeSeconds": 3600,
        "podsReady": {"timeoutSeconds": 300, "backoffBaseSeconds": 60, "backoffMaxSeconds": 3600},
        "admissionChecks": ["provisioning", "budget"],
    }
    assert tuple(shape.settings) == tuple(name for name in SETTINGS if name in shape.settings)
    WorkloadSpec.model_validate(request(annotated(**ALL), "t", shape, owned=False))


def test_pod_set_settings_come_from_the_template_before_the_job() -> None:
    one = annotated(min_count="3", spread="zone", device_milli="1000")
    one["spec"]["template"]["metadata"] = {"annotations": {K + "min-count": "2"}}
    (pod_set,) = shape_of(one).pod_sets
    assert (pod_set["minCount"], pod_set["spread"], pod_set["deviceMilli"]) == (2, "zone", 1000)
    one["status"]["succeeded"] = 7
    assert shape_of(one).pod_sets[0]["minCount"] == 1, "only one completion remains"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("topology_required", "room"),
        ("topology_preferred", "Rack"),
        ("accelerators", "H200=0"),
        ("accelerators", "H200=1,H200=2"),
        ("accelerators", "H200=fast"),
        ("jurisdictions", "Japan"),
        ("preemptible", "yes"),
        ("maximum_runtime_seconds", "1h"),
        ("maximum_runtime_seconds", "0"),
        ("pods_ready_timeout_seconds", "99999999"),
        ("admission_checks", "a,b,c,d,e,f,g,h,i"),
        ("admission_checks", "Budget"),
        ("min_count", "-1"),
        ("spread", "galaxy"),
        ("device_milli", "1001"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_name_and_a_fix(name: str, text: str) -> None:
    refusal = shape_of(annotated(**{name: text})).refusal
    assert refusal is not None
    assert refusal.code == "InvalidSetting"
    assert K + name.replace("_", "-") in refusal.message
    assert refusal.nearest


def test_topology_is_required_or_preferred_not_both() -> None:
    refusal = shape_of(annotated(topology_required="rack", topology_preferred="rack")).refusal
    assert refusal is not None
    assert "not both" in refusal.nearest
    assert shape_of(annotated(topology_preferred="block")).settings == {"topology": {"preferred": "block"}}
    assert len(LEVELS) == 5


def test_a_share_is_of_one_device() -> None:
    refusal = shape_of(annotated(device_milli="500")).refusal  # its pods ask for two
    assert refusal is not None
    assert refusal.nearest == "ask for one device"


def test_a_setting_that_is_taken_off_the_job_is_taken_off_the_workload_unless_a_person_wrote_it() -> None:
    wanted = request(job(), "t", shape_of(job()), owned=False)
    one = workload(spec={**wanted, "topology": {"required": "rack"}})
    assert says(one, wanted)
    fields = {"f:spec": {"f:topology": {}}}
    one["metadata"]["managedFields"] = [{"manager": "kekkai-workloads", "fieldsV1": fields}]
    assert not says(one, wanted)


def state(one: dict[str, Any], **rest: Any) -> Any:
    given = {"admitted": False, "accelerator": "", "placements": (), "finished": False, "active": True}
    return workload_state(one, **{**given, **rest})


def test_the_scheduler_sees_them() -> None:
    spec = {**shape_of(annotated(**ALL)).settings, "podSets": shape_of(annotated(min_count="2")).pod_sets}
    one = workload(spec=spec)
    one["status"] |= {"requeue": {"count": 1, "notBefore": "2026-01-01T00:01:00Z"}, "pastRuntimeSeconds": 600}
    found = state(one, admitted_at=5.0, checkpointed_at=7.0)
    assert found.required_topology == "rack"
    assert found.flavors == (("H200", 1.0), ("H100", 0.6))
    assert found.jurisdictions == {"JP", "DE"}
    assert not found.preemptible
    assert found.max_runtime == 3000.0
    assert found.not_before == 1767225660.0
    assert not found.checks_passed
    assert (found.admitted_at, found.checkpointed_at) == (5.0, 7.0)
    assert (found.pod_sets[0].count, found.pod_sets[0].min_count, found.pod_sets[0].milli) == (4, 2, 1000)
    assert state(workload({"x": 1})).admitted_at == 1767225600.0


def test_checks_pass_when_all_that_are_named_are_ready() -> None:
    one = workload(spec={"admissionChecks": ["a", "b"]})
    assert not checks_passed(one)
    one["status"]["admissionChecks"] = [{"name": "a", "state": "Ready"}, {"name": "b", "state": "Pending"}]
    assert not checks_passed(one)
    one["status"]["admissionChecks"][1]["state"] = "Ready"
    assert checks_passed(one)
    assert checks_passed(workload())


def test_the_newest_checkpoint_of_job_and_pods_counts_and_nonsense_does_not() -> None:
    first, second, third = job(), pod("a"), pod("b")
    first["metadata"]["annotations"] = {K + "last-checkpoint": "2026-01-01T00:00:00Z"}
    second["metadata"]["annotations"] = {K + "last-checkpoint": "2026-01-01T00:00:09+00:00"}
    third["metadata"]["annotations"] = {K + "last-checkpoint": "yesterday"}
    assert last_checkpoint([first, second, third]) == 1767225609.0
    assert last_checkpoint([third, pod("c")]) == 0.0
