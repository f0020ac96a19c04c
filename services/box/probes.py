"""How to ask a process whether it does its work. A probe says yes or no and never raises."""

import asyncio
import http.client
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.box.process import Probe
from services.kit.certificates import dns_name
from services.kit.mesh import MeshIdentity

PROBE_SECONDS = 2.0


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: Path, timeout: float = PROBE_SECONDS) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket instead of a host."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def http_status(connection: http.client.HTTPConnection, method: str, path: str) -> int | None:
    """The status of one request, or nothing when there is no answer."""
    try:
        connection.request(method, path)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def http_probe(connect: Callable[[], http.client.HTTPConnection], path: str) -> Probe:
    """Whether a GET of the path answers 200."""

    async def probe() -> bool:
        return await asyncio.to_thread(http_status, connect(), "GET", path) == http.client.OK

    return probe


def grpc_probe(socket_path: Path, name: str, certificates: Path) -> Probe:
    """Whether the gRPC server on the socket is the service of that name, and says that it serves."""
    options = [("grpc.enable_http_proxy", 0), ("grpc.ssl_target_name_override", dns_name(name))]

    async def probe() -> bool:
        # A channel costs more than a look, and everybody else is starting too.
        if not await asyncio.to_thread(socket_path.exists):
            return False
        identity = MeshIdentity.load(certificates / "box")
        async with grpc.aio.secure_channel(
            f"unix://{socket_path}", identity.channel_credentials(), options=options
        ) as channel:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            try:
                answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=PROBE_SECONDS)
            except grpc.aio.AioRpcError:
                return False
            return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    return probe
