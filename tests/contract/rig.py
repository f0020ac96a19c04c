"""A server in this process on a unix socket, for tests that call a handler as its clients do."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import grpc

from services.kit.channel import connect
from services.kit.interceptor import Layer
from services.kit.server import Register, serve
from tests.identities import identity


@asynccontextmanager
async def served(
    services: Sequence[str],
    register: Register,
    layers: Sequence[Layer] = (),
    *,
    socket: Path | None = None,
    name: str = "",
    client: str = "api",
) -> AsyncIterator[grpc.aio.Channel]:
    """Serve handlers as a process of their own would, on a new socket or the one given, and give a channel to them.

    Args:
        services: The full names of the services.
        register: Adds the handlers to the server.
        layers: What stands around the handlers.
        socket: Where to listen.
        name: Who serves. Default: whose contract the first service is of.
        client: Who calls.
    """
    name = name or services[0].split(".")[1]
    with tempfile.TemporaryDirectory(prefix="oiab-") as folder:
        address = f"unix://{socket or Path(folder, 's.sock')}"
        stop = asyncio.Event()
        server = asyncio.create_task(
            serve(address, services, register, identity=identity(name), layers=layers, stop=stop)
        )
        async with connect(address, to=name, identity=identity(client)) as channel:
            await channel.channel_ready()
            yield channel
        stop.set()
        await server
