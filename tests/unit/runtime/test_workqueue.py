from __future__ import annotations

import asyncio
import time

from operators.runtime.workqueue import WorkQueue


async def until(check, seconds: float = 5.0) -> None:
    async with asyncio.timeout(seconds):
        while not check():
            await asyncio.sleep(0.005)


async def serve(queue: WorkQueue[str], check) -> None:
    task = asyncio.create_task(queue.run())
    try:
        await until(check)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_many_adds_before_a_visit_are_one_visit() -> None:
    visits: list[str] = []

    async def visit(key: str) -> None:
        visits.append(key)

    queue = WorkQueue("t", visit)
    for _ in range(10):
        queue.add("a")
    queue.add("b")
    await serve(queue, lambda: queue.idle and len(visits) >= 2)
    assert sorted(visits) == ["a", "b"]


async def test_a_change_during_a_visit_brings_another_one_and_never_two_at_once() -> None:
    running, most, visits = 0, 0, 0

    async def visit(key: str) -> None:
        nonlocal running, most, visits
        running += 1
        most = max(most, running)
        visits += 1
        if visits == 1:
            queue.add(key)
        await asyncio.sleep(0.01)
        running -= 1

    queue = WorkQueue("t", visit, workers=4)
    queue.add("a")
    await serve(queue, lambda: queue.idle and visits >= 2)
    assert (most, visits) == (1, 2)


async def test_a_failed_visit_is_retried_until_it_succeeds() -> None:
    tries = 0

    async def visit(key: str) -> None:
        nonlocal tries
        tries += 1
        if tries < 4:
            raise ConnectionError("not yet")

    queue = WorkQueue("t", visit, base_delay=0.001)
    queue.add("a")
    await serve(queue, lambda: tries == 4)
    assert tries == 4


async def test_a_visit_may_ask_to_come_again() -> None:
    visits = 0

    async def visit(key: str) -> float | None:
        nonlocal visits
        visits += 1
        return 0.001 if visits < 3 else None

    queue = WorkQueue("t", visit)
    queue.add("a")
    await serve(queue, lambda: visits == 3)
    assert visits == 3


async def test_the_earliest_wish_counts() -> None:
    seen: list[str] = []

    async def visit(key: str) -> None:
        seen.append(key)

    queue = WorkQueue("t", visit)
    queue.add_after("a", 0.01)
    queue.add_after("a", 100.0)
    await serve(queue, lambda: bool(seen))
    assert seen == ["a"]


async def test_what_is_urgent_goes_first_and_the_rest_comes_on_too() -> None:
    visits: list[str] = []

    async def visit(key: str) -> None:
        visits.append(key)

    queue = WorkQueue[str]("t", visit, workers=1, urgent=lambda key: key.startswith("u"))
    for index in range(100):
        queue.add(f"new-{index}")
    for index in range(40):
        queue.add(f"u-{index}")
    await serve(queue, lambda: queue.idle)
    assert visits[:16] == [f"u-{index}" for index in range(16)]
    assert visits[16] == "new-0"
    assert {key for key in visits[:42] if key.startswith("u")} == {f"u-{index}" for index in range(40)}
    assert len(visits) == len(set(visits)) == 140


async def test_what_becomes_urgent_while_it_waits_moves_to_the_front() -> None:
    visits: list[str] = []
    urgent: set[str] = set()

    async def visit(key: str) -> None:
        visits.append(key)

    queue = WorkQueue[str]("t", visit, workers=1, urgent=urgent.__contains__)
    for key in "abc":
        queue.add(key)
    urgent.add("c")
    queue.add("c")
    await serve(queue, lambda: queue.idle)
    assert visits == ["c", "a", "b"]


async def test_visits_that_wait_for_nothing_leave_others_their_turn() -> None:
    """A worker with thousands of keys must not keep watches from reading."""
    turns: list[int] = []
    visits = 0

    async def visit(key: int) -> None:
        nonlocal visits
        visits += 1
        end = time.monotonic() + 0.001
        while time.monotonic() < end:
            pass

    async def reader() -> None:
        while True:
            turns.append(visits)
            await asyncio.sleep(0)

    queue = WorkQueue[int]("t", visit, workers=4)
    for key in range(100):
        queue.add(key)
    reading = asyncio.create_task(reader())
    await serve(queue, lambda: visits == 100)
    reading.cancel()
    # Four workers give a turn after 5 ms of visits each: had none been given, no count in between were seen.
    assert len({seen for seen in turns if 0 < seen < 100}) >= 3
