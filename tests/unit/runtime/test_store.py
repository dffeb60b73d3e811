from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from operators.runtime.resources import RESOURCES
from operators.runtime.store import Store


def node(name: str, version: int, uid: str = "") -> dict[str, Any]:
    return {"kind": "Node", "metadata": {"name": name, "resourceVersion": str(version), "uid": uid or f"uid-{name}"}}


def fresh() -> Store:
    return Store(RESOURCES["Node"])


def test_an_older_event_does_not_undo_our_own_write() -> None:
    store = fresh()
    assert store.observe(node("a", 7))
    assert not store.observe(node("a", 5))
    assert not store.observe(node("a", 7))
    assert store.get("a") == node("a", 7)


def test_a_late_event_of_the_dead_is_dropped() -> None:
    store = fresh()
    store.observe(node("a", 7))
    store.forget(node("a", 8))
    assert not store.observe(node("a", 6))
    assert store.get("a") is None
    assert store.observe(node("a", 9, uid="reborn"))


def test_deleting_a_former_bearer_of_the_name_spares_the_present_one() -> None:
    store = fresh()
    store.observe(node("a", 9, uid="second"))
    assert not store.forget(node("a", 8, uid="first"))
    assert store.get("a") == node("a", 9, uid="second")


def test_a_full_list_finds_deletions_but_spares_what_is_younger() -> None:
    store = fresh()
    for name, version in (("gone", 3), ("stays", 4)):
        store.observe(node(name, version))
    read_after = store.newest()
    store.observe(node("young", 9))
    store.replace([node("stays", 4)], read_after)
    assert sorted(obj["metadata"]["name"] for obj in store) == ["stays", "young"]


def test_listeners_hear_each_real_change_once() -> None:
    store, heard = fresh(), []
    store.listen(
        lambda old, new: heard.append(
            (old and old["metadata"]["resourceVersion"], new and new["metadata"]["resourceVersion"])
        )
    )
    store.observe(node("a", 1))
    store.observe(node("a", 1))
    store.observe(node("a", 2))
    store.forget(node("a", 3))
    store.forget(node("a", 3))
    assert heard == [(None, "1"), ("1", "2"), ("2", None)]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 50)), max_size=40))
def test_ends_at_the_newest_version_in_any_order(events: list[tuple[str, int]]) -> None:
    store = fresh()
    for name, version in events:
        store.observe(node(name, version))
    newest = {name: max(v for n, v in events if n == name) for name, _ in events}
    assert {o["metadata"]["name"]: int(o["metadata"]["resourceVersion"]) for o in store} == newest


def test_an_index_follows_changes_and_removals() -> None:
    store = Store(RESOURCES["Pod"])
    by_node = store.index("node", lambda pod: [pod["spec"]["nodeName"]])

    def pod(node: str, version: int) -> dict:
        return {
            "metadata": {"name": "a", "namespace": "n", "uid": "1", "resourceVersion": str(version)},
            "spec": {"nodeName": node},
        }

    store.observe(pod("x", 1))
    store.observe(pod("y", 2))
    assert by_node.get("x") == []
    assert [p["metadata"]["name"] for p in by_node.get("y")] == ["a"]
    assert by_node.values() == ["y"]
    store.forget(pod("y", 3))
    assert by_node.values() == []
    assert store.in_namespace("n") == []
