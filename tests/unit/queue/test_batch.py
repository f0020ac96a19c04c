"""Natural batching: nobody waits for a timer, nobody is served twice."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from services.queue.batch import Batcher


@asynccontextmanager
async def running(batcher: Batcher[int, int]) -> AsyncIterator[None]:
    loop = asyncio.create_task(batcher.run())
    try:
        yield
    finally:
        loop.cancel()
        await asyncio.gather(loop, return_exceptions=True)


async def test_what_comes_during_a_batch_makes_up_the_next() -> None:
    batches: list[Sequence[int]] = []
    gate = asyncio.Event()

    async def work(items: Sequence[int]) -> Sequence[int]:
        batches.append(items)
        await gate.wait()
        return [item * 2 for item in items]

    batcher: Batcher[int, int] = Batcher(work, limit=3)
    async with running(batcher):
        first = batcher.put(0)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        rest = [batcher.put(n) for n in range(1, 6)]
        gate.set()
        assert await asyncio.gather(first, *rest) == [0, 2, 4, 6, 8, 10]
    assert batches == [[0], [1, 2, 3], [4, 5]]


async def test_items_weigh_what_they_weigh_and_a_heavy_one_goes_alone() -> None:
    batches: list[Sequence[int]] = []

    async def work(items: Sequence[int]) -> Sequence[int]:
        batches.append(items)
        return items

    batcher: Batcher[int, int] = Batcher(work, limit=10, weigh=int)
    items = [4, 6, 1, 25, 10, 1]
    waiting = [batcher.put(item) for item in items]
    async with running(batcher):
        assert await asyncio.gather(*waiting) == items
    assert batches == [[4, 6], [1], [25], [10], [1]]


async def test_each_item_has_its_own_end() -> None:
    async def work(items: Sequence[int]) -> Sequence[int | Exception]:
        return [ValueError("odd") if item % 2 else item for item in items]

    batcher: Batcher[int, int] = Batcher(work, limit=10)
    async with running(batcher):
        even, odd = batcher.put(2), batcher.put(3)
        assert await even == 2
        with pytest.raises(ValueError, match="odd"):
            await odd


async def test_a_batch_that_fails_fails_for_all_of_it_and_the_next_goes_on() -> None:
    broken = True

    async def work(items: Sequence[int]) -> Sequence[int]:
        if broken:
            raise OSError("gone")
        return items

    batcher: Batcher[int, int] = Batcher(work, limit=10)
    async with running(batcher):
        outcomes = await asyncio.gather(batcher.put(1), batcher.put(2), return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [OSError, OSError]
        broken = False
        assert await batcher.put(3) == 3


async def test_drained_waits_for_what_is_under_way() -> None:
    gate = asyncio.Event()

    async def work(items: Sequence[int]) -> Sequence[int]:
        await gate.wait()
        return items

    batcher: Batcher[int, int] = Batcher(work, limit=10)
    async with running(batcher):
        await batcher.drained()
        batcher.put(1)
        waiting = asyncio.create_task(batcher.drained())
        await asyncio.sleep(0.01)
        assert not waiting.done()
        gate.set()
        await waiting
