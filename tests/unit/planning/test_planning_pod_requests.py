"""Pod requests as the Kubernetes scheduler counts them."""

import pytest

from crds.errors import InvalidInput
from scheduler.objects.pod_requests import exceeds, limit_defaults, pod_requests, show_amounts

GI = 2**30


def container(name: str = "c", restart: str | None = None, **requests: str) -> dict:
    out: dict = {"name": name, "resources": {"requests": requests}}
    if restart:
        out["restartPolicy"] = restart
    return out


def test_containers_add_up() -> None:
    spec = {"containers": [container(cpu="500m", memory="1Gi"), container(cpu="1.5")]}
    assert pod_requests(spec) == {"cpu": 2000, "memory": GI}


def test_a_limit_without_a_request_is_the_request() -> None:
    spec = {"containers": [{"name": "c", "resources": {"limits": {"nvidia.com/gpu": "8", "cpu": "2"}}}]}
    assert pod_requests(spec) == {"cpu": 2000, "nvidia.com/gpu": 8}


def test_a_request_wins_over_its_limit() -> None:
    spec = {"containers": [{"name": "c", "resources": {"limits": {"cpu": "4"}, "requests": {"cpu": "1"}}}]}
    assert pod_requests(spec) == {"cpu": 1000}


def test_init_containers_count_by_the_largest() -> None:
    spec = {
        "containers": [container(cpu="1")],
        "initContainers": [container(cpu="3"), container(cpu="2", memory="1Gi")],
    }
    assert pod_requests(spec) == {"cpu": 3000, "memory": GI}


def test_a_sidecar_runs_beside_the_containers_and_the_inits_after_it() -> None:
    # component-helpers: max(1 + 2, max(4, 2 sidecar, 2 + 3)) = 5
    spec = {
        "containers": [container(cpu="1")],
        "initContainers": [container(cpu="4"), container(restart="Always", cpu="2"), container(cpu="3")],
    }
    assert pod_requests(spec) == {"cpu": 5000}


def test_overhead_comes_on_top_and_the_pods_own_wins() -> None:
    spec = {"containers": [container(cpu="1")]}
    assert pod_requests(spec, overhead={"cpu": "250m"}) == {"cpu": 1250}
    assert pod_requests({**spec, "overhead": {"cpu": "100m"}}, overhead={"cpu": "250m"}) == {"cpu": 1100}


def test_pod_level_resources_replace_the_sum() -> None:
    spec = {"containers": [container(cpu="1", memory="1Gi")], "resources": {"requests": {"cpu": "3"}}}
    assert pod_requests(spec) == {"cpu": 3000, "memory": GI}


def test_limit_range_defaults_fill_in_what_is_not_stated() -> None:
    ranges = [
        {
            "metadata": {"name": "defaults"},
            "spec": {
                "limits": [
                    {
                        "type": "Container",
                        "default": {"cpu": "1"},
                        "defaultRequest": {"cpu": "500m", "memory": "512Mi"},
                    },
                    {"type": "Pod", "max": {"cpu": "9"}},
                ]
            },
        }
    ]
    requests, limits = limit_defaults(ranges)
    spec = {"containers": [container(), container(cpu="2")], "initContainers": [container(memory="1Gi")]}
    assert pod_requests(spec, requests, limits) == {"cpu": 2500, "memory": GI}


def test_a_malformed_quantity_is_refused() -> None:
    with pytest.raises(InvalidInput):
        pod_requests({"containers": [container(cpu="many")]})


def test_show_is_exact() -> None:
    assert show_amounts({"cpu": 1250, "memory": 2 * GI, "nvidia.com/gpu": 8}) == {
        "cpu": "1250m",
        "memory": "2Gi",
        "nvidia.com/gpu": "8",
    }


def test_exceeds_names_what_is_more() -> None:
    assert exceeds({"cpu": 2000, "memory": 1}, {"cpu": 1000, "memory": 1}) == ["cpu"]
    assert exceeds({"cpu": 1000}, {"cpu": 1000, "memory": 1}) == []
