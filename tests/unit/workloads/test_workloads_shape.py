"""From a Job to its pod set: counts, requirements, refusals."""

import copy

import pytest

from crds.labels import CONFIDENTIAL, KEYS, PRIORITY
from scheduler.objects.job_shape import Shape, pods_at_once, shape_of
from tests.unit.workloads.workload_objects import job

SNP = {
    "metadata": {"name": "kata-qemu-snp"},
    "handler": "kata-qemu-snp",
    "overhead": {"podFixed": {"cpu": "250m", "memory": "2Gi"}},
    "scheduling": {"tolerations": [{"key": "tee", "operator": "Exists"}]},
}


def changed(path: str, value: object) -> dict:
    """A Job whose pod spec has one field set."""
    out = copy.deepcopy(job())
    out["spec"]["template"]["spec"][path] = value
    return out


@pytest.mark.parametrize(
    ("parallelism", "completions", "succeeded", "count"),
    [
        (None, None, 0, 1),
        (4, 4, 0, 4),
        (4, 10, 0, 4),
        (4, 10, 8, 2),
        (4, 10, 10, 0),
        (8, 3, 0, 3),
        (3, None, 0, 3),
        (0, 4, 0, 0),
    ],
)
def test_pods_at_once(parallelism: int | None, completions: int | None, succeeded: int, count: int) -> None:
    assert pods_at_once(job(parallelism, completions, succeeded=succeeded)) == count


def test_a_plain_job() -> None:
    shape = shape_of(job(4, 4))
    assert shape == Shape(
        [
            {
                "name": "main",
                "count": 4,
                "requests": {"cpu": "1", "nvidia.com/gpu": "2"},
                "runtimeClassName": "",
            }
        ]
    )


def test_the_runtime_class_brings_overhead_tolerations_and_the_tee() -> None:
    one = changed("runtimeClassName", "kata-qemu-snp")
    (pod_set,) = shape_of(one, runtime_classes={"kata-qemu-snp": SNP}).pod_sets
    assert pod_set["requests"]["cpu"] == "1250m"
    assert pod_set["nodeSelector"] == {CONFIDENTIAL: "sev-snp"}
    assert pod_set["tolerations"] == [{"key": "tee", "operator": "Exists", "value": "", "effect": ""}]


def test_priority_and_keys_come_from_label_and_annotation() -> None:
    one = job()
    one["metadata"] |= {"labels": {PRIORITY: "-5"}, "annotations": {KEYS: "dataset, model,dataset"}}
    shape = shape_of(one)
    assert shape.priority == -5
    assert shape.keys == [{"name": "dataset"}, {"name": "model"}]


def test_simple_node_affinity_is_a_selector() -> None:
    term = {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["tokyo"]}]}
    affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}}
    (pod_set,) = shape_of(changed("affinity", affinity)).pod_sets
    assert pod_set["nodeSelector"] == {"zone": "tokyo"}


_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
_TERM = {"matchExpressions": [{"key": "zone", "operator": "NotIn", "values": ["tokyo"]}]}


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("schedulingGates", [{"name": "another"}], "NotGated"),
        ("nodeName", "n1", "UnsupportedPlacement"),
        ("schedulerName", "mine", "UnsupportedPlacement"),
        ("resourceClaims", [{"name": "x"}], "UnsupportedPlacement"),
        ("affinity", {"podAntiAffinity": {_REQUIRED: [{"topologyKey": "z"}]}}, "UnsupportedPlacement"),
        ("affinity", {"podAffinity": {_REQUIRED: [{"topologyKey": "z"}]}}, "UnsupportedPlacement"),
        ("affinity", {"nodeAffinity": {_REQUIRED: {"nodeSelectorTerms": [_TERM]}}}, "UnsupportedPlacement"),
        ("topologySpreadConstraints", [{"whenUnsatisfiable": "DoNotSchedule"}], "UnsupportedPlacement"),
        ("runtimeClassName", "nowhere", "RuntimeClassNotFound"),
        ("containers", [{"name": "c", "resources": {"limits": {"cpu": "lots"}}}], "InvalidResources"),
    ],
)
def test_refusals(field: str, value: object, code: str) -> None:
    refusal = shape_of(changed(field, value)).refusal
    assert refusal is not None
    assert refusal.code == code
    assert refusal.nearest


@pytest.mark.parametrize("text", ["high", "1001", "-1001", "1.5", "99999"])
def test_a_priority_that_is_none_is_refused(text: str) -> None:
    one = job()
    one["metadata"]["labels"] = {PRIORITY: text}
    refusal = shape_of(one).refusal
    assert refusal is not None
    assert refusal.code == "InvalidPriority"


def test_another_controllers_job_and_an_empty_one_are_refused() -> None:
    one = job()
    one["spec"]["managedBy"] = "example.com/mine"
    assert shape_of(one).refusal.code == "RunByAnother"  # type: ignore[union-attr]
    assert shape_of(job(0, 1)).refusal.code == "NothingToRun"  # type: ignore[union-attr]
