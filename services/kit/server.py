"""A service's server: its interceptor, health, reflection, and a stop that lets calls end."""

import asyncio
import signal
import sys
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import grpc
import uvloop
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from services.kit import telemetry
from services.kit.gate import Gate
from services.kit.interceptor import CallInterceptor
from services.kit.memory import collect_seldom
from services.kit.mesh import MeshIdentity, serve_as
from services.kit.policy import require_policies
from services.kit.user_token import hand_over

Register = Callable[[grpc.aio.Server], None]

MAX_MESSAGE_BYTES = 4 * 1024 * 1024
STOP_GRACE_SECONDS = 3.0

OPTIONS: list[tuple[str, Any]] = [
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", 4 * MAX_MESSAGE_BYTES),
    # A peer that is gone without a word is noticed within half a minute.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    # Two processes on one port would share its calls without a word.
    ("grpc.so_reuseport", 0),
]


async def serve(
    address: str,
    services: Sequence[str],
    register: Register,
    *,
    identity: MeshIdentity,
    gate: Gate | None = None,
    stop: asyncio.Event,
) -> None:
    """Serve until told to stop, then refuse new calls and give the running ones a moment to end.

    Args:
        address: Where to listen: `unix:///run/queue.sock` or `host:port`.
        services: The full names of the services, for reflection, health and the check of their policies.
        register: Adds the handlers to the server.
        identity: Who serves. Clients have to prove who they are by a certificate of the same installation.
        gate: Lets calls in. Default: one for methods that services call, and no users.
        stop: Set when the server has to stop.
    """
    gate = gate or Gate(hand_over=hand_over)
    server, checks = await build(services, register, gate, identity.server_options())
    _clear_socket(address)
    server.add_secure_port(address, identity.server_credentials())
    serve_as(identity)
    await server.start()
    telemetry.log().info("serving", address=address)
    await stop.wait()
    await checks.enter_graceful_shutdown()
    await server.stop(STOP_GRACE_SECONDS)
    telemetry.log().info("stopped")


async def build(
    services: Sequence[str], register: Register, gate: Gate, options: Sequence[tuple[str, Any]] = ()
) -> tuple[grpc.aio.Server, health.aio.HealthServicer]:
    """A server that listens nowhere yet, and what answers for its health."""
    require_policies(services)
    server = grpc.aio.server(interceptors=[CallInterceptor(gate)], options=[*OPTIONS, *options])
    register(server)
    checks = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    names = (*services, health.SERVICE_NAME, reflection.SERVICE_NAME)
    reflection.enable_server_reflection(names, server)
    for name in ("", *names):
        await checks.set(name, health_pb2.HealthCheckResponse.SERVING)
    return server, checks


def run(service: str, main: Callable[[asyncio.Event], Coroutine[Any, Any, None]], level: str = "info") -> None:
    """Run a service as this process until SIGTERM or SIGINT.

    Args:
        service: The name of the service, for logs and traces.
        main: The composition root. It is given the event that tells it to stop.
        level: The least level of logs to write.
    """
    telemetry.configure(service, level)
    collect_seldom()

    async def supervised() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        await main(stop)

    try:
        uvloop.run(supervised())
    except Exception as error:  # noqa: BLE001 - the last word of a process goes to its log, in the log's form
        telemetry.log().error("the service ended", exc_info=error)
        sys.exit(1)


def _clear_socket(address: str) -> None:
    """Remove the socket that a killed process left; a living one is guarded by the supervisor's lock."""
    if address.startswith("unix://"):
        Path(address.removeprefix("unix://")).unlink(missing_ok=True)
