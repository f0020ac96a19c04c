"""A small server that stands in for the API, in a test or as a process: `python -m tests.e2e.box.stand_in ADDRESS`."""

# The stand-ins have the contract's names, are documented there, and serve only the methods that a test calls.
# mypy: disable-error-code=abstract

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import grpc.aio
from google.api import httpbody_pb2
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

from services.api import event_text
from services.kit.mesh import MeshIdentity
from services.kit.settings import MeshSettings

Context = grpc.aio.ServicerContext[Any, Any]


class StandInHealth(health_service_pb2_grpc.HealthServiceServicer):
    """Says that all is well."""

    async def GetHealth(self, request: Any, context: Context) -> health_service_pb2.GetHealthResponse:
        return health_service_pb2.GetHealthResponse(ok=True)


@dataclass
class StandInSessions(session_service_pb2_grpc.SessionServiceServicer):
    """Remembers what it was asked with."""

    metadata: dict[str, str] = field(default_factory=dict)
    certificates: set[bytes] = field(default_factory=set)
    """Those of the clients that called."""

    async def CreateSession(
        self, request: session_service_pb2.CreateSessionRequest, context: Context
    ) -> session_service_pb2.CreateSessionResponse:
        self.certificates.update(context.auth_context()["x509_pem_cert"])
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

    async def StreamTurnEventsAsText(
        self, request: turn_service_pb2.StreamTurnEventsAsTextRequest, context: Context
    ) -> AsyncIterator[httpbody_pb2.HttpBody]:
        asked = turn_service_pb2.StreamTurnEventsRequest(turn_id=request.turn_id, from_sequence=request.from_sequence)
        yield event_text.OPENING
        async for event in self.StreamTurnEvents(asked, context):
            yield event_text.body_of(event)


class StandInLog(turn_log_service_pb2_grpc.TurnLogServiceServicer):
    """A method of the mesh, on the same server as the public ones."""

    async def OpenTurn(self, request: Any, context: Context) -> turn_log_service_pb2.OpenTurnResponse:
        return turn_log_service_pb2.OpenTurnResponse(text="secret")


async def start_api(
    address: str, sessions: StandInSessions, turns: StandInTurns, identity: MeshIdentity
) -> grpc.aio.Server:
    """The stand-in of the API."""
    server = grpc.aio.server(options=identity.server_options())
    health_service_pb2_grpc.add_HealthServiceServicer_to_server(StandInHealth(), server)
    session_service_pb2_grpc.add_SessionServiceServicer_to_server(sessions, server)
    turn_service_pb2_grpc.add_TurnServiceServicer_to_server(turns, server)
    turn_log_service_pb2_grpc.add_TurnLogServiceServicer_to_server(StandInLog(), server)
    checks = health.aio.HealthServicer()
    await checks.set("", health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    server.add_secure_port(address, identity.server_credentials())
    await server.start()
    return server


async def main() -> None:
    """Serve until told to stop."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    server = await start_api(sys.argv[1], StandInSessions(), StandInTurns(), MeshSettings().identity("api"))
    await stop.wait()
    await server.stop(0)


if __name__ == "__main__":
    asyncio.run(main())
