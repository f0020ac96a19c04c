"""A relay between two sockets that can be cut, or held still as a network that loses everything."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Self

Connect = Callable[[], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]
CHUNK = 65536


class Relay:
    """Carries bytes both ways.

    Args:
        connect: Opens a connection to the far side.
    """

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self._open: set[asyncio.StreamWriter] = set()
        self._flows = asyncio.Event()
        self._flows.set()

    def cut(self) -> int:
        """Cut every connection at once, without a word; tell how many there were."""
        found = list(self._open)
        for writer in found:
            writer.transport.abort()
        return len(found) // 2

    def hold(self) -> None:
        """Let nothing through, and close nothing."""
        self._flows.clear()

    def release(self) -> None:
        """Let through again, what was held included."""
        self._flows.set()

    @classmethod
    @asynccontextmanager
    async def unix(cls, listen: Path, to: Path) -> AsyncIterator[Self]:
        """A relay on a unix socket to another one."""
        relay = cls(lambda: asyncio.open_unix_connection(to))
        server = await asyncio.start_unix_server(relay._serve, listen)
        try:
            yield relay
        finally:
            relay.cut()
            server.close()

    @classmethod
    @asynccontextmanager
    async def tcp(cls, listen: int, to: int) -> AsyncIterator[Self]:
        """A relay on a port of this machine to another one."""
        relay = cls(lambda: asyncio.open_connection("127.0.0.1", to))
        server = await asyncio.start_server(relay._serve, "127.0.0.1", listen)
        try:
            yield relay
        finally:
            relay.cut()
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await self._connect()
        except OSError:
            writer.transport.abort()
            return
        self._open |= {writer, far_writer}
        try:
            await asyncio.gather(self._carry(reader, far_writer), self._carry(far_reader, writer))
        finally:
            for each in (writer, far_writer):
                self._open.discard(each)
                each.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(CHUNK):
                await self._flows.wait()
                writer.write(data)
                await writer.drain()
        with suppress(OSError, RuntimeError):
            writer.close()
