from __future__ import annotations

import asyncio

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
