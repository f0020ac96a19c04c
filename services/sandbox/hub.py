"""One stream of an agent's events, shared by the turns that run in its sandbox."""

import asyncio
import contextlib
from collections.abc import Iterator

import httpx

from services.kit import telemetry
from services.sandbox.agent_events import AgentEvent, Connected, SessionChanged
from services.sandbox.opencode import Opencode, OpencodeError

_RETRY_SECONDS = (0.05, 0.2, 0.5, 1.0)

Feed = asyncio.Queue[AgentEvent]


class Hub:
    """Reads the events of one opencode server for as long as it lives, and gives each turn those of its session.

    After a cut it connects again. The turns find a `Connected` in their feeds then: what came before it may be missing.
    """

    def __init__(self, agent: Opencode) -> None:
        self._agent = agent
        self._feeds: dict[str, set[Feed]] = {}
        self._roots: dict[str, str] = {}
        self._connected = asyncio.Event()
        self._reader = asyncio.create_task(self._read_for_ever(), name="agent-events")

    async def connected(self) -> None:
        """Wait until every event from now on will be seen."""
        await self._connected.wait()

    async def close(self) -> None:
        """Stop reading."""
        self._reader.cancel()
        await asyncio.gather(self._reader, return_exceptions=True)

    @contextlib.contextmanager
    def feed(self, session_id: str) -> Iterator[Feed]:
        """The events of a session and of the sessions of its sub-agents."""
        feed: Feed = asyncio.Queue()
        self._feeds.setdefault(session_id, set()).add(feed)
        try:
            yield feed
        finally:
            self._feeds[session_id].discard(feed)
            if not self._feeds[session_id]:
                del self._feeds[session_id]
                self._roots = {child: root for child, root in self._roots.items() if root != session_id}

    async def _read_for_ever(self) -> None:
        failures = 0
        while True:
            try:
                async with self._agent.events() as stream:
                    async for event in stream:
                        failures = 0
                        self._hand_out(event)
            except (httpx.HTTPError, OpencodeError) as error:
                telemetry.log().info("agent events were cut", error=type(error).__name__)
            except Exception:  # noqa: BLE001 - whatever broke: without a reader no turn of the sandbox would ever end
                telemetry.log().exception("agent events broke")
            self._connected.clear()
            await asyncio.sleep(_RETRY_SECONDS[min(failures, len(_RETRY_SECONDS) - 1)])
            failures += 1

    def _hand_out(self, event: AgentEvent) -> None:
        if isinstance(event, Connected):
            self._connected.set()
            feeds = [feed for feeds in self._feeds.values() for feed in feeds]
        else:
            feeds = list(self._feeds.get(self._root(event), ()))
        for feed in feeds:
            feed.put_nowait(event)

    def _root(self, event: AgentEvent) -> str:
        """The session at the root of an event's session: that of a turn, when a sub-agent speaks."""
        if isinstance(event, SessionChanged):
            parent = event.info.parent_id
            root = self._roots.get(parent, parent) if parent else None
            if root in self._feeds:
                self._roots[event.info.id] = root
            return root or event.info.id
        session_id = "" if isinstance(event, Connected) else event.session_id
        return self._roots.get(session_id, session_id)
