"""A server in this process on a unix socket, for tests that call a handler as its clients do."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grpc

from services.kit.channel import connect
from services.kit.gate import EDGE, Gate
from services.kit.policy import Access, rule_of
from services.kit.server import Register, serve
from tests.identities import identity


class Whoever(grpc.aio.Channel):
    """Calls each method as a service that may, by what the contract says; or all of them as one.

    Args:
        address: Where the server listens.
        to: Who serves.
        client: Who calls. Empty: who may.
    """

    def __init__(self, address: str, to: str, client: str = "") -> None:
        self._address, self._to, self._client = address, to, client
        self._channels: dict[str, grpc.aio.Channel] = {}

    def _for(self, method: str) -> Any:
        return self.as_client(self._client or _who_may(method))

    def as_client(self, client: str) -> grpc.aio.Channel:
        """The channel of one client."""
        if client not in self._channels:
            self._channels[client] = connect(self._address, to=self._to, identity=identity(client))
        return self._channels[client]

    def unary_unary(self, method: str, *args: Any, **form: Any) -> Any:
        """A method of one message and one answer."""
        return self._for(method).unary_unary(method, *args, **form)

    def unary_stream(self, method: str, *args: Any, **form: Any) -> Any:
        """A method of one message and many answers."""
        return self._for(method).unary_stream(method, *args, **form)

    def stream_unary(self, method: str, *args: Any, **form: Any) -> Any:
        """A method of many messages and one answer."""
        return self._for(method).stream_unary(method, *args, **form)

    def stream_stream(self, method: str, *args: Any, **form: Any) -> Any:
        """A method of many messages and many answers."""
        return self._for(method).stream_stream(method, *args, **form)

    async def close(self, grace: float | None = None) -> None:
        """Close every channel."""
        for channel in self._channels.values():
            await channel.close(grace)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """How the channel of the first client stands."""
        return self.as_client(self._client or EDGE).get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """Wait until the channel of the first client stands otherwise."""
        await self.as_client(self._client or EDGE).wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        """Wait until the server answers."""
        await self.as_client(self._client or EDGE).channel_ready()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


def _who_may(method: str) -> str:
    if method.startswith("/grpc."):
        return EDGE
    rule = rule_of(method)
    if rule.access is not Access.INTERNAL:
        return EDGE
    return "api" if "api" in rule.callers else min(rule.callers)


@asynccontextmanager
async def served(
    services: Sequence[str],
    register: Register,
    gate: Gate | None = None,
    *,
    socket: Path | None = None,
    name: str = "",
    client: str = "",
) -> AsyncIterator[grpc.aio.Channel]:
    """Serve handlers as a process of their own would, on a new socket or the one given, and give a channel to them.

    Args:
        services: The full names of the services.
        register: Adds the handlers to the server.
        gate: Lets calls in. Default: that of a server without users.
        socket: Where to listen.
        name: Who serves. Default: whose contract the first service is of.
        client: Who calls. Default: for each method, who may.
    """
    name = name or services[0].split(".")[1]
    with tempfile.TemporaryDirectory(prefix="oiab-") as folder:
        address = f"unix://{socket or Path(folder, 's.sock')}"
        stop = asyncio.Event()
        server = asyncio.create_task(serve(address, services, register, identity=identity(name), gate=gate, stop=stop))
        async with Whoever(address, name, client) as channel:
            await channel.channel_ready()
            yield channel
        stop.set()
        await server
