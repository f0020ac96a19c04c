"""A stream ends when its reader may not have it any more, and not before."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from services.kit.errors import PermissionDenied, ServiceUnavailable
from services.kit.watch import watched


async def forever(closed: list[bool], pause: float = 60) -> AsyncIterator[int]:
    """One message, then silence."""
    try:
        yield 1
        await asyncio.sleep(pause)
        yield 2
    finally:
        closed.append(True)


async def denied() -> None:
    """The reader has lost the right."""
    raise PermissionDenied("no more", permission="")


async def test_a_quiet_stream_ends_with_the_reason_and_its_task_lives_on() -> None:
    closed: list[bool] = []
    stream = watched(forever(closed), denied, 0.02)
    assert await anext(stream) == 1
    with pytest.raises(PermissionDenied):
        await anext(stream)
    assert closed == [True]
    await asyncio.sleep(0)
    task = asyncio.current_task()
    assert task is not None
    assert not task.cancelling()


async def test_nothing_is_told_after_the_right_is_lost() -> None:
    stream = watched(forever([], 0.05), denied, 0.02)
    assert await anext(stream) == 1
    await asyncio.sleep(0.1)  # the reader is slow: nobody wakes its task while it is elsewhere
    with pytest.raises(PermissionDenied):
        await anext(stream)


async def test_a_stream_goes_on_while_nobody_knows() -> None:
    async def away() -> None:
        raise ServiceUnavailable("the database restarts", service="database")

    assert [message async for message in watched(forever([], 0.1), away, 0.01)] == [1, 2]


async def test_a_call_that_is_cancelled_is_cancelled() -> None:
    async def read() -> None:
        async for _ in watched(forever([]), denied, 60):
            pass

    task = asyncio.create_task(read())
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
