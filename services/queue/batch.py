"""Natural batching: what comes while the last batch is under way makes up the next, so nobody waits for a timer."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class Batcher(Generic[T, R]):
    """Hands items to one piece of work in batches, one batch at a time, in the order in which they came.

    Args:
        work: Does a batch, and gives a result or an exception for each item of it.
        limit: The most that the items of a batch weigh together, unless one alone weighs more.
        weigh: Says what an item weighs.
    """

    def __init__(
        self,
        work: Callable[[Sequence[T]], Awaitable[Sequence[R | Exception]]],
        limit: int,
        weigh: Callable[[T], int] = lambda _: 1,
    ) -> None:
        self._work = work
        self._limit = limit
        self._weigh = weigh
        self._waiting: deque[tuple[T, asyncio.Future[R]]] = deque()
        self._filled = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    def put(self, item: T) -> asyncio.Future[R]:
        """Add an item; the future has its result."""
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        self._idle.clear()
        self._filled.set()
        return future

    async def run(self) -> None:
        """Do batches until cancelled."""
        while True:
            await self._filled.wait()
            await self._do(self._next_batch())
            if not self._waiting:
                self._filled.clear()
                self._idle.set()

    async def drained(self) -> None:
        """Return when nothing waits and nothing is under way."""
        await self._idle.wait()

    def _next_batch(self) -> list[tuple[T, asyncio.Future[R]]]:
        batch: list[tuple[T, asyncio.Future[R]]] = []
        room = self._limit
        while self._waiting and ((weight := self._weigh(self._waiting[0][0])) <= room or not batch):
            batch.append(self._waiting.popleft())
            room -= weight
        return batch

    async def _do(self, batch: Sequence[tuple[T, asyncio.Future[R]]]) -> None:
        try:
            results = await self._work([item for item, _ in batch])
        except Exception as error:  # noqa: BLE001 - whoever put the items in hears of it
            results = [error] * len(batch)
        for (_, future), result in zip(batch, results, strict=True):
            if future.done():
                continue
            if isinstance(result, Exception):
                future.set_exception(result)
            else:
                future.set_result(result)
