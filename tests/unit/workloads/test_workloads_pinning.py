"""Gated pods get the admission's places, each once, whatever was done before a restart."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from crds.labels import HOSTNAME, SCHEDULING_GATE
from operators.planning.holding import held, occupied
from operators.workloads.pinning import assign, patch
from tests.unit.workloads.workload_objects import job, pod, workload


def places(placements: dict[str, int], pods: list[dict]) -> dict[str, str]:
    pins, _ = assign(workload(placements), pods)
    return {pin.pod["metadata"]["name"]: pin.node for pin in pins}


def test_ranks_follow_the_order_of_the_placements() -> None:
    pods = [pod("d", index=3), pod("a", index=1), pod("c", index=0), pod("b", index=2)]
    assert places({"x": 2, "y": 2}, pods) == {"c": "x", "a": "x", "b": "y", "d": "y"}


def test_a_rank_has_its_place_in_whatever_order_the_pods_turn_up() -> None:
    assert places({"x": 1, "y": 1, "z": 1}, [pod("c", index=2), pod("a", index=0)]) == {"a": "x", "c": "z"}
    # Beyond the places there are, a rank takes what is free.
    assert places({"x": 1, "y": 1}, [pod("a", "x", "Running", index=0), pod("e", index=4)]) == {"e": "y"}


def test_what_is_pinned_already_counts_bound_or_not() -> None:
    pods = [pod("a", "x", "Running"), pod("b", "y", bound=False), pod("c"), pod("d")]
    assert places({"x": 2, "y": 2}, pods) == {"c": "x", "d": "y"}


def test_a_pod_that_ended_gives_its_place_to_the_next() -> None:
    assert places({"x": 1}, [pod("a", "x", "Failed"), pod("b")]) == {"b": "x"}


def test_more_pods_than_were_admitted_stay_gated() -> None:
    pins, left = assign(workload({"x": 1}), [pod("a"), pod("b")])
    assert [pin.node for pin in pins] == ["x"]
    assert left == 1


def test_a_pod_larger_than_admitted_stays_gated() -> None:
    pins, left = assign(workload({"x": 2}), [pod("a", cpu="64"), pod("b")])
    assert [pin.pod["metadata"]["name"] for pin in pins] == ["b"]
    assert left == 0


def test_a_pod_with_a_hostname_of_its_own_goes_there_or_nowhere() -> None:
    own = pod("a")
    own["spec"]["nodeSelector"] = {HOSTNAME: "y"}
    assert places({"x": 1, "y": 1}, [own]) == {"a": "y"}
    assert places({"x": 1}, [own]) == {}


def test_the_patch_pins_and_ungates_at_once_and_tests_what_was_read() -> None:
    one = pod("a")
    pins, _ = assign(workload({"x": 1}), [one])
    assert patch(pins[0]) == [
        {"op": "test", "path": "/metadata/uid", "value": "uid-a"},
        {"op": "test", "path": "/spec/schedulingGates", "value": [{"name": SCHEDULING_GATE}]},
        {"op": "add", "path": "/spec/nodeSelector", "value": {HOSTNAME: "x"}},
        {"op": "remove", "path": "/spec/schedulingGates"},
    ]


def test_the_patch_keeps_foreign_gates_and_selectors() -> None:
    one = pod("a")
    one["spec"]["nodeSelector"] = {"disk": "fast"}
    one["spec"]["schedulingGates"].append({"name": "theirs"})
    pins, _ = assign(workload({"x": 1}), [one])
    assert patch(pins[0])[2:] == [
        {"op": "add", "path": "/spec/nodeSelector/kubernetes.io~1hostname", "value": "x"},
        {"op": "replace", "path": "/spec/schedulingGates", "value": [{"name": "theirs"}]},
    ]


NODES = st.sampled_from(["x", "y", "z"])


@given(
    st.dictionaries(NODES, st.integers(1, 4), min_size=1),
    st.integers(0, 14),
    st.randoms(use_true_random=False),
)
def test_pinning_in_any_interruption_ends_at_the_admission(
    placements: dict[str, int], count: int, dice: object
) -> None:
    """Each round only some pins arrive (a crash); in the end no node has more than admitted, none is left."""
    pods = [pod(f"p{n:02}", index=n) for n in range(count)]
    for _ in range(count + 1):
        pins, _ = assign(workload(placements), pods)
        for pin in pins:
            if dice.random() < 0.5:  # type: ignore[attr-defined]
                name = pin.pod["metadata"]["name"]
                pods = [pod(name, pin.node) if p["metadata"]["name"] == name else p for p in pods]
        assert all(n <= placements[node] for node, n in occupied(pods).items())
    pins, _ = assign(workload(placements), pods)
    pods = [next((pod(one["metadata"]["name"], pin.node) for pin in pins if pin.pod is one), one) for one in pods]
    pins, left = assign(workload(placements), pods)
    assert pins == ()
    total = sum(placements.values())
    assert sum(occupied(pods).values()) == min(total, count)
    assert left == max(0, count - total)


@given(
    st.dictionaries(NODES, st.integers(1, 4), min_size=1),
    st.integers(0, 12),
    st.integers(0, 12),
    st.booleans(),
)
def test_held_is_between_what_is_occupied_and_what_was_admitted(
    placements: dict[str, int], running: int, succeeded: int, stopping: bool
) -> None:
    total = sum(placements.values())
    slots = [node for node, n in placements.items() for _ in range(n)]
    pods = [pod(f"p{n}", slots[n], "Running") for n in range(min(running, total))]
    holds = Counter(
        {node: n for _, node, n in held(workload(placements), job(total, total, succeeded=succeeded), pods, stopping)}
    )
    assert all(holds[node] >= n for node, n in occupied(pods).items())
    assert all(holds[node] <= placements[node] for node in holds)
    remaining = max(0, total - succeeded)
    expected = len(pods) if stopping else max(len(pods), min(total, remaining))
    assert sum(holds.values()) == expected
