"""Watches over a stream: it ends soon after its reader lost the right to it, however quiet or long it is."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

from services.kit import telemetry
from services.kit.errors import DomainError, Kind

T = TypeVar("T")

EVERY_SECONDS = 3.0
"""How often it is looked at whether the reader may still have the stream."""

_ENDS = {Kind.UNAUTHENTICATED, Kind.PERMISSION_DENIED}

Look = Callable[[], Awaitable[None]]
"""Raises when the reader may not have the stream any more."""


async def watched(messages: AsyncIterator[T], look: Look, every: float | None = None) -> AsyncIterator[T]:
    """The messages, for as long as their reader may have them.

    Raises:
        DomainError: Why they may not any more.
    """
    watch = _Watch(asyncio.current_task())
    looking = asyncio.create_task(watch.run(look, EVERY_SECONDS if every is None else every))
    try:
        while True:
            watch.refuse()
            watch.waiting = True
            try:
                message = await anext(messages)
            except StopAsyncIteration:
                return
            except asyncio.CancelledError:
                watch.refuse()
                raise
            finally:
                watch.waiting = False
            watch.refuse()
            yield message
    finally:
        looking.cancel()


class _Watch:
    """One stream under watch. Its task is woken only while it waits for a message: elsewhere it is not ours to wake."""

    def __init__(self, task: "asyncio.Task[Any] | None") -> None:
        self.waiting = False
        self._task = task
        self._refusal: DomainError | None = None
        self._woken = False

    async def run(self, look: Look, every: float) -> None:
        """Look again and again, until the reader may not have the stream any more."""
        while self._refusal is None:
            await asyncio.sleep(every)
            try:
                await look()
            except DomainError as refusal:
                if refusal.kind in _ENDS:
                    self._refusal = refusal
            except Exception as error:  # noqa: BLE001 - a fault of ours ends nobody's stream; it is looked again
                telemetry.log().error("nobody knows whether a stream may go on", exc_info=error)
        if self.waiting and self._task is not None:
            self._woken = True
            self._task.cancel()

    def refuse(self) -> None:
        """End the stream, if its reader may not have it any more.

        Raises:
            DomainError: They may not.
        """
        if self._refusal is None:
            return
        if self._woken and self._task is not None:
            self._woken = False
            if self._task.uncancel():  # somebody else has ended the call, too
                raise asyncio.CancelledError
        raise self._refusal
