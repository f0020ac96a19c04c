"""A running Envoy before small servers that stand in for the API, for Runtime and for a model provider."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from socket import socket
from typing import Any

import grpc.aio
import httpx
import pytest
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_status import rpc_status
from orginabox.api.v1 import (
    health_service_pb2,
    health_service_pb2_grpc,
    session_service_pb2,
    session_service_pb2_grpc,
    turn_service_pb2,
    turn_service_pb2_grpc,
)
from orginabox.turn.v1 import turn_event_pb2, turn_log_service_pb2, turn_log_service_pb2_grpc

from services.box import envoy

Context = grpc.aio.ServicerContext[Any, Any]


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short name: sockets go into it."""
    with tempfile.TemporaryDirectory(prefix="oiab-") as name:
        yield Path(name)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class StandInHealth(health_service_pb2_grpc.HealthServiceServicer):
    """Says that all is well."""

    async def GetHealth(self, request: Any, context: Context) -> health_service_pb2.GetHealthResponse:
        return health_service_pb2.GetHealthResponse(ok=True)


@dataclass
class StandInSessions(session_service_pb2_grpc.SessionServiceServicer):
    """Remembers what it was asked with."""

    metadata: dict[str, str] = field(default_factory=dict)

    async def CreateSession(
        self, request: session_service_pb2.CreateSessionRequest, context: Context
    ) -> session_service_pb2.CreateSessionResponse:
        self.metadata.clear()
        self.metadata.update({key: str(value) for key, value in context.invocation_metadata() or ()})
        return session_service_pb2.CreateSessionResponse(session_id="s1")

    async def GetSession(self, request: Any, context: Context) -> Any:
        info = error_details_pb2.ErrorInfo(reason="ERROR_REASON_SESSION_NOT_FOUND", domain="orginabox.dev")
        detail = any_pb2.Any()
        detail.Pack(info)
        refusal = status_pb2.Status(code=5, message="no session of yours has this id", details=[detail])
        await context.abort_with_status(rpc_status.to_status(refusal))


@dataclass
class StandInTurns(turn_service_pb2_grpc.TurnServiceServicer):
    """Streams as many events as the turn's id says."""

    cancelled: asyncio.Event = field(default_factory=asyncio.Event)

    async def StreamTurnEvents(
        self, request: turn_service_pb2.StreamTurnEventsRequest, context: Context
    ) -> AsyncIterator[turn_event_pb2.TurnEvent]:
        if request.turn_id == "endless":
            yield turn_event_pb2.TurnEvent(sequence=1, turn_id="endless")
            try:
                await asyncio.sleep(60)
            finally:
                self.cancelled.set()
        resumed = dict(context.invocation_metadata() or ()).get("last-event-id", request.from_sequence)
        for sequence in range(int(resumed) + 1, int(request.turn_id) + 1):
            event = turn_event_pb2.TurnEvent(sequence=sequence, turn_id=request.turn_id)
            event.text_delta.text = 'a line\ndata: {"sequence":"99"} \n\ndata: {"sequence":"98"'
            yield event


class StandInLog(turn_log_service_pb2_grpc.TurnLogServiceServicer):
    """A method of the mesh, on the same server as the public ones."""

    async def OpenTurn(self, request: Any, context: Context) -> turn_log_service_pb2.OpenTurnResponse:
        return turn_log_service_pb2.OpenTurnResponse(text="secret")


@dataclass
class Running:
    """Envoy, and what stands behind it."""

    edge: envoy.Edge
    http: httpx.AsyncClient
    sessions: StandInSessions
    turns: StandInTurns
    api: grpc.aio.Server

    @property
    def target(self) -> str:
        """Where gRPC clients connect."""
        return f"127.0.0.1:{self.edge.port}"


def edge_in(folder: Path) -> envoy.Edge:
    """An edge whose files are all in the folder."""
    return envoy.Edge(
        port=free_port(),
        admin=folder / "admin.sock",
        model=folder / "model" / "model.sock",
        clusters_file=folder / "clusters.yaml",
        access_log=folder / "access.log",
        api_address=f"unix://{folder}/api.sock",
        runtime_address=f"unix://{folder}/runtime.sock",
        cors_origins=("https://chat.example",),
    )


@asynccontextmanager
async def running_envoy(folder: Path, edge: envoy.Edge) -> AsyncIterator[None]:
    """Envoy, from ready to gone."""
    edge.model.parent.mkdir(exist_ok=True)
    configuration = envoy.prepare(folder, edge, envoy.render(edge, envoy.read_contract()))
    spec = envoy.spec(configuration, edge, {})
    log = (folder / "envoy.log").open("w")
    process = await asyncio.create_subprocess_exec(*spec.argv, stdout=log, stderr=log)
    try:
        async with asyncio.timeout(20):
            while not await spec.probe():  # noqa: ASYNC110 - what is waited for is another process
                await asyncio.sleep(0.02)
        yield
    finally:
        process.terminate()
        await process.wait()
        log.close()


async def start_api(address: str, sessions: StandInSessions, turns: StandInTurns) -> grpc.aio.Server:
    """The stand-in of the API."""
    server = grpc.aio.server()
    health_service_pb2_grpc.add_HealthServiceServicer_to_server(StandInHealth(), server)
    session_service_pb2_grpc.add_SessionServiceServicer_to_server(sessions, server)
    turn_service_pb2_grpc.add_TurnServiceServicer_to_server(turns, server)
    turn_log_service_pb2_grpc.add_TurnLogServiceServicer_to_server(StandInLog(), server)
    checks = health.aio.HealthServicer()
    await checks.set("", health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    server.add_insecure_port(address)
    await server.start()
    return server


@pytest.fixture
async def running(folder: Path) -> AsyncIterator[Running]:
    """Envoy before the stand-in of the API."""
    async with _running(folder, edge_in(folder)) as found:
        yield found


@pytest.fixture
async def strict(folder: Path) -> AsyncIterator[Running]:
    """The same, with a rate limit of one request a second."""
    async with _running(folder, replace(edge_in(folder), rate_limit=1)) as found:
        yield found


@asynccontextmanager
async def _running(folder: Path, edge: envoy.Edge) -> AsyncIterator[Running]:
    sessions, turns = StandInSessions(), StandInTurns()
    api = await start_api(edge.api_address, sessions, turns)
    try:
        async with (
            running_envoy(folder, edge),
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{edge.port}", timeout=20, trust_env=False) as client,
        ):
            yield Running(edge, client, sessions, turns, api)
    finally:
        await api.stop(0)
