"""A kind is followed from its list without a gap, and listed anew when the server has forgotten where it was."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from operators.runtime import RESOURCES, ApiFault, Store
from operators.runtime.watch import Watch


def pod(name: str, version: int, uid: str = "") -> dict[str, Any]:
    meta = {"name": name, "namespace": "a", "uid": uid or name, "resourceVersion": str(version)}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta}


def event(kind: str, obj: dict[str, Any]) -> bytes:
    return json.dumps({"type": kind, "object": obj}).encode()


class Server:
    """Answers lists and watches from a script; when that ends, the watch stays silent."""

    def __init__(self, lists: list[tuple[list[dict[str, Any]], str]], streams: list[list[bytes] | ApiFault]) -> None:
        self.lists, self.streams = lists, streams
        self.asked: list[str] = []  # resourceVersions that watches began at
        self.idle = asyncio.Event()

    async def list_at(self, resource: Any, label_selector: str = "") -> tuple[list[dict[str, Any]], str]:
        return self.lists.pop(0)

    async def stream(self, path: str, query: dict[str, Any], silence: float) -> AsyncIterator[list[bytes]]:
        self.asked.append(query["resourceVersion"])
        if not self.streams:
            self.idle.set()
            await asyncio.sleep(60)
        found = self.streams.pop(0)
        if isinstance(found, ApiFault):
            raise found
        for line in found:
            yield [line, b""]


async def follow(server: Server, listener: Any = None) -> Store:
    store = Store(RESOURCES["Pod"])
    if listener is not None:
        store.listen(listener)
    task = asyncio.create_task(Watch(server, store).run())  # type: ignore[arg-type]
    await asyncio.wait_for(server.idle.wait(), 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    return store


def names(store: Store) -> list[str]:
    return sorted(one["metadata"]["name"] for one in store)


async def test_it_goes_on_from_its_list_and_from_where_a_connection_ended() -> None:
    first = [event("ADDED", pod("b", 12)), event("MODIFIED", pod("a", 13)), event("DELETED", pod("b", 14))]
    bookmark = {"kind": "Pod", "metadata": {"resourceVersion": "20"}}
    server = Server([([pod("a", 9)], "11")], [first, [event("BOOKMARK", bookmark)], [event("ADDED", pod("c", 21))]])
    store = await follow(server)
    assert server.asked == ["11", "14", "20", "21"]
    assert names(store) == ["a", "c"]


@pytest.mark.parametrize("how", ["event", "refusal"])
async def test_what_is_too_old_is_listed_anew(how: str) -> None:
    gone = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"}
    told: list[bytes] | ApiFault = [event("ERROR", gone)] if how == "event" else ApiFault(410, "Expired", "too old")
    server = Server([([pod("a", 9)], "11"), ([pod("c", 40)], "41")], [told])
    store = await follow(server)
    assert server.asked == ["11", "41"]
    assert names(store) == ["c"]


async def test_an_unreachable_server_is_asked_again_from_the_same_place() -> None:
    server = Server([([pod("a", 9)], "11")], [ApiFault(0, "Unreachable", "no answer"), [event("ADDED", pod("b", 12))]])
    store = await follow(server)
    assert server.asked == ["11", "11", "12"]
    assert names(store) == ["a", "b"]


async def test_an_object_that_a_listener_cannot_read_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    def listener(old: dict[str, Any] | None, new: dict[str, Any] | None) -> None:
        if new is not None and new["metadata"]["name"] == "bad":
            raise ValueError("unreadable")

    server = Server([([], "11")], [[event("ADDED", pod("bad", 12)), event("ADDED", pod("good", 13))]])
    store = await follow(server, listener)
    assert server.asked == ["11", "13"]
    assert "good" in names(store)
    assert "Pod bad was not taken in whole" in caplog.text
