"""The reader of an agent's events outlives whatever they bring."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from services.sandbox.agent_events import AgentEvent, Connected, SessionIdle
from services.sandbox.hub import Hub

IDLE = SessionIdle(sessionID="ses_1")


class BreakingAgent:
    """An agent whose first stream of events breaks in a way that nobody thought of."""

    def __init__(self) -> None:
        self.streams = 0

    @asynccontextmanager
    async def events(self) -> AsyncIterator[AsyncIterator[AgentEvent]]:
        """The stream."""
        self.streams += 1
        yield self._said(self.streams)

    async def _said(self, stream: int) -> AsyncIterator[AgentEvent]:
        yield Connected()
        if stream == 1:
            raise RecursionError
        yield IDLE
        await asyncio.Event().wait()


async def test_a_stream_that_breaks_is_read_again() -> None:
    agent: Any = BreakingAgent()
    hub = Hub(agent)
    try:
        with hub.feed("ses_1") as feed:
            async with asyncio.timeout(5):
                heard = [await feed.get() for _ in range(3)]
    finally:
        await hub.close()
    assert heard == [Connected(), Connected(), IDLE]
    assert agent.streams == 2
