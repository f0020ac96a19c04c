"""A server in this process on a unix socket, for tests that call a handler as its clients do."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import grpc

from services.kit.channel import connect
from services.kit.gate import Gate
from services.kit.server import Register, serve
from tests.allowed import AllowedChannel
from tests.identities import identity


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
        client: Who calls. Default: for each method somebody who may.
    """
    name = name or services[0].split(".")[1]
    with tempfile.TemporaryDirectory(prefix="oiab-") as folder:
        address = f"unix://{socket or Path(folder, 's.sock')}"
        stop = asyncio.Event()
        server = asyncio.create_task(serve(address, services, register, identity=identity(name), gate=gate, stop=stop))
        caller = connect(address, to=name, identity=identity(client)) if client else AllowedChannel(address, name)
        async with caller as channel:
            await channel.channel_ready()
            yield channel
        stop.set()
        await server
