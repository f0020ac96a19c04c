"""What stands around every handler: nothing leaks, work is not cut in its middle, streams keep their refusals."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from ext_authz import external_auth_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from orginabox.audit.v1 import audit_service_pb2 as pb
from orginabox.audit.v1 import audit_service_pb2_grpc, record_pb2
from orginabox.turn.v1 import turn_event_pb2, turn_log_service_pb2, turn_log_service_pb2_grpc

from services.kit import policy, telemetry
from services.kit.errors import DomainError, Kind
from services.kit.interceptor import Context
from services.kit.status import refusal_of
from tests.contract.rig import served

SERVICES = ("orginabox.audit.v1.AuditService", "orginabox.turn.v1.TurnLogService")
TENANT = "00000000-0000-7000-8000-000000000001"


class TooTired(DomainError):
    """A refusal of this test."""

    kind = Kind.RESOURCE_EXHAUSTED
    reason = "RATE_LIMITED"


class Handler(audit_service_pb2_grpc.AuditServiceServicer, turn_log_service_pb2_grpc.TurnLogServiceServicer):
    """Two services that do what their request asks for."""

    def __init__(self) -> None:
        self.finished = asyncio.Event()
        self.traces: list[str] = []

    async def AppendRecords(self, request: pb.AppendRecordsRequest, context: Context) -> pb.AppendRecordsResponse:
        await asyncio.sleep(0.2)
        self.finished.set()
        return pb.AppendRecordsResponse(appended=1)

    async def ListRecords(self, request: pb.ListRecordsRequest, context: Context) -> pb.ListRecordsResponse:
        self.traces.append(telemetry.trace_id())
        match request.action:
            case "tired":
                raise TooTired("come back later", limit=3)
            case "broken":
                raise ValueError("password=hunter2 at /srv/secret.py")
            case _:
                return pb.ListRecordsResponse()

    async def OpenTurn(
        self, request: turn_log_service_pb2.OpenTurnRequest, context: Context
    ) -> turn_log_service_pb2.OpenTurnResponse:
        raise NotImplementedError

    async def AppendTurnEvents(
        self, request_iterator: AsyncIterator[turn_log_service_pb2.AppendTurnEventsRequest], context: Context
    ) -> AsyncIterator[turn_log_service_pb2.AppendTurnEventsResponse]:
        async for request in request_iterator:
            if request.lease_token == "tired":
                raise TooTired("come back later", limit=3)
            yield turn_log_service_pb2.AppendTurnEventsResponse(durable_sequence=len(request.events))


class Served:
    """A running server and its stubs."""

    def __init__(self, handler: Handler, channel: grpc.aio.Channel) -> None:
        self.handler = handler
        self.channel = channel
        self.audit = audit_service_pb2_grpc.AuditServiceStub(channel)
        self.log = turn_log_service_pb2_grpc.TurnLogServiceStub(channel)


@pytest.fixture
async def server() -> AsyncIterator[Served]:
    handler = Handler()  # type: ignore[abstract]

    def register(server: grpc.aio.Server) -> None:
        audit_service_pb2_grpc.add_AuditServiceServicer_to_server(handler, server)
        turn_log_service_pb2_grpc.add_TurnLogServiceServicer_to_server(handler, server)

    async with served(SERVICES, register) as channel:
        yield Served(handler, channel)


async def test_a_refusal_carries_its_code_sentence_reason_and_values(server: Served) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await server.audit.ListRecords(pb.ListRecordsRequest(tenant_id=TENANT, action="tired"))
    status = refusal_of(caught.value)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert status is not None
    assert (status.message, len(status.details)) == ("come back later", 1)
    assert "ERROR_REASON_RATE_LIMITED" in str(status.details[0].value)
    assert "limit" in str(status.details[0].value)


async def test_a_fault_tells_nothing_of_itself(server: Served) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await server.audit.ListRecords(pb.ListRecordsRequest(tenant_id=TENANT, action="broken"))
    said = f"{caught.value} {refusal_of(caught.value)}"
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert "hunter2" not in said
    assert "ValueError" not in said


async def test_work_goes_on_when_its_caller_is_gone(server: Served) -> None:
    call = server.audit.AppendRecords(pb.AppendRecordsRequest(records=[record_pb2.Record()]))
    await asyncio.sleep(0.05)
    call.cancel()
    await asyncio.wait_for(server.handler.finished.wait(), 5)


async def test_each_message_of_a_stream_is_checked(server: Served) -> None:
    call = server.log.AppendTurnEvents()
    good = turn_log_service_pb2.AppendTurnEventsRequest(
        turn_id=TENANT, lease_token="t", events=[turn_event_pb2.TurnEvent(sequence=1)]
    )
    await call.write(good)
    await call.read()
    good.turn_id = "nonsense"
    await call.write(good)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_stream_ends_with_its_refusal(server: Served) -> None:
    call = server.log.AppendTurnEvents()
    await call.write(
        turn_log_service_pb2.AppendTurnEventsRequest(
            turn_id=TENANT, lease_token="tired", events=[turn_event_pb2.TurnEvent(sequence=1)]
        )
    )
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_call_joins_the_trace_of_its_caller(server: Served) -> None:
    trace.set_tracer_provider(TracerProvider())
    parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    await server.audit.ListRecords(pb.ListRecordsRequest(tenant_id=TENANT), metadata=(("traceparent", parent),))
    with telemetry.span("a caller in python"):
        await server.audit.ListRecords(pb.ListRecordsRequest(tenant_id=TENANT))
        ours = telemetry.trace_id()
    assert len(ours) == 32
    assert server.handler.traces == ["4bf92f3577b34da6a3ce929d0e0e4736", ours]


async def test_health_and_reflection_answer(server: Served) -> None:
    checks: Any = health_pb2_grpc.HealthStub(server.channel)
    health = await checks.Check(health_pb2.HealthCheckRequest(service=SERVICES[0]))
    assert health.status == health_pb2.HealthCheckResponse.SERVING
    reflection: Any = reflection_pb2_grpc.ServerReflectionStub(server.channel)  # type: ignore[arg-type]
    call = reflection.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
    listed = {service.name async for answer in call for service in answer.list_services_response.service}
    assert set(SERVICES) <= listed


def test_a_method_without_a_policy_stops_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    policy.require_policies(SERVICES)
    monkeypatch.setattr(policy, "OTHERS", {})
    name = external_auth_pb2.DESCRIPTOR.services_by_name["Authorization"].full_name
    with pytest.raises(ValueError, match=r"envoy.service.auth.v3.Authorization.Check has no policy"):
        policy.require_policies([name])
