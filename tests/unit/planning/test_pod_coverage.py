"""Pods of an admitted Workload are counted once, by it, along any chain of owners and in any order of events."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import pytest

from operators.planning.decisions import Decisions
from operators.planning.family import Family
from operators.planning.feed import Feed
from operators.planning.ownership import shadow_name
from operators.runtime import Stores
from operators.workloads.integrations import ALWAYS, WHERE_SERVED
from tests.unit.workloads.test_queued_kinds import made, pod

NAMESPACE = {
    "apiVersion": "v1",
    "kind": "Namespace",
    "metadata": {"name": "a", "uid": "ns", "resourceVersion": "1", "labels": {"kekkai.dev/tenant": "t", "kekkai.dev/ready": "true"}},
}  # fmt: skip
JOBSET = made("JobSet", "set", {"suspend": False, "replicatedJobs": []})
ITS_JOB = made("Job", "set-w-0", {"suspend": False, "template": {}}, JOBSET)
ITS_POD = pod("set-w-0-0", ITS_JOB, gated=False, phase="Running", labels={"jobset.sigs.k8s.io/replicatedjob-name": "w"})
ITS_POD["spec"]["nodeName"] = "x"
WORKLOAD: dict[str, Any] = {
    "apiVersion": "kekkai.dev/v1alpha1",
    "kind": "Workload",
    "metadata": {
        "name": shadow_name("set", "uid-JobSet-set", "jobset"),
        "namespace": "a",
        "uid": "w",
        "resourceVersion": "1",
        "creationTimestamp": "2026-01-01T00:00:00Z",
    },
    "spec": {
        "tenant": "t",
        "active": True,
        "ref": {"apiVersion": "jobset.x-k8s.io/v1alpha2", "kind": "JobSet", "name": "set", "uid": "uid-JobSet-set"},
        "podSets": [{"name": "w", "count": 2, "requests": {"nvidia.com/gpu": "2"}}],
    },
    "status": {
        "admission": {
            "accelerator": "H200",
            "admittedAt": "2026-01-01T00:00:00Z",
            "placements": [{"podSet": "w", "node": "x", "count": 1}, {"podSet": "w", "node": "y", "count": 1}],
        }
    },
}


@pytest.mark.parametrize("order", list(itertools.permutations([JOBSET, ITS_JOB, ITS_POD, WORKLOAD])))
def test_it_holds_its_admission_once_in_whatever_order_things_are_seen(order: tuple[dict[str, Any], ...]) -> None:
    stores = Stores()
    feed = Feed(stores, Decisions(), family=Family(stores, [*ALWAYS, *WHERE_SERVED]))
    stores.observe(copy.deepcopy(NAMESPACE))
    for obj in order:
        stores.observe(copy.deepcopy(obj))
        feed.refresh()
    key = f"a/{WORKLOAD['metadata']['name']}"
    assert feed.fleet.workloads[key].placements == (("w", "x", 1), ("w", "y", 1))
    assert feed.fleet.pods == {}, "its pod is not counted beside it"
    gone = copy.deepcopy(WORKLOAD)
    stores.forget(gone)
    feed.refresh()
    assert list(feed.fleet.pods) == ["a/set-w-0-0"], "until its own end the pod still takes room"
