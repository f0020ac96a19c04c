"""A server that tells its clients who they are, and nothing else: what stands around handlers is not in its way."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
from cryptography import x509

from services.kit.mesh import MeshIdentity, peer_of, serve_as
from services.kit.server import _clear_socket

Context = grpc.aio.ServicerContext[Any, Any]


class Echo:
    """What the server sees of its clients."""

    def __init__(self) -> None:
        self.metadata: dict[str, str] = {}
        self.tls: set[str] = set()

    async def who(self, _: bytes, context: Context) -> bytes:
        """The name of the client, and the serial number of its certificate."""
        self.metadata = {key: str(value) for key, value in context.invocation_metadata() or ()}
        proofs = context.auth_context()
        self.tls |= {value.decode() for value in proofs["ssl_tls_version"]}
        serial = x509.load_pem_x509_certificate(next(iter(proofs["x509_pem_cert"]))).serial_number
        return f"{peer_of(context)} {serial}".encode()

    async def count(self, _: bytes, context: Context) -> AsyncIterator[bytes]:
        """One, two, three, as long as somebody listens."""
        number = 0
        while True:
            number += 1
            yield str(number).encode()
            await asyncio.sleep(0.02)

    def handlers(self) -> grpc.GenericRpcHandler:
        """The methods."""
        return grpc.method_handlers_generic_handler(
            "echo.Echo",
            {
                "Who": grpc.unary_unary_rpc_method_handler(self.who),
                "Count": grpc.unary_stream_rpc_method_handler(self.count),
            },
        )


@asynccontextmanager
async def echo(address: str, identity: MeshIdentity) -> AsyncIterator[Echo]:
    """Serve until the block ends."""
    _clear_socket(address)
    server, made = grpc.aio.server(options=identity.server_options()), Echo()
    server.add_generic_rpc_handlers((made.handlers(),))
    server.add_secure_port(address, identity.server_credentials())
    serve_as(identity)
    await server.start()
    try:
        yield made
    finally:
        await server.stop(0)


async def who(channel: grpc.aio.Channel, seconds: float = 5) -> tuple[str, int]:
    """Ask who one is."""
    method: Any = channel.unary_unary("/echo.Echo/Who")
    answer: bytes = await method(b"", timeout=seconds)
    name, _, serial = answer.decode().partition(" ")
    return name, int(serial)
