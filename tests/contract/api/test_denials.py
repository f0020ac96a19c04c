"""Who is refused is on record: strangers with their address, services by their name, and a flood as a count."""

import grpc
import pytest
from orginabox.api.v1 import session_service_pb2
from orginabox.audit.v1 import record_pb2
from orginabox.turn.v1 import turn_log_service_pb2, turn_log_service_pb2_grpc

from services.kit.ids import new_id
from tests.allowed import AllowedChannel
from tests.contract.api.conftest import Rig


def denials(rig: Rig) -> list[record_pb2.Record]:
    """The refusals that have reached the audit log."""
    return [record for call in rig.peers.records for record in call.records if record.action == "auth.denied"]


async def test_a_stranger_is_on_record_with_their_address_once_a_minute(api: Rig) -> None:
    metadata = (("authorization", "Bearer not-the-key"), ("x-forwarded-for", "203.0.113.7"), ("user-agent", "curl/8"))
    for _ in range(20):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await api.sessions.ListSessions(session_service_pb2.ListSessionsRequest(), metadata=metadata)
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    await api.until(lambda: bool(denials(api)))
    (record,) = denials(api)
    assert (record.actor, record.target) == ("anonymous", "method:orginabox.api.v1.SessionService/ListSessions")
    assert (record.ip_address, record.channel) == ("203.0.113.7", "grpc")
    assert "not-the-key" not in str(record)


async def test_a_service_that_calls_what_it_may_not_is_on_record_by_its_name(api: Rig) -> None:
    assert isinstance(api.channel, AllowedChannel)
    log = turn_log_service_pb2_grpc.TurnLogServiceStub(api.channel.as_service("sandbox"))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await log.OpenTurn(turn_log_service_pb2.OpenTurnRequest(turn_id=str(new_id()), attempt=1, lease_token="t"))
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
    await api.until(lambda: bool(denials(api)))
    assert denials(api)[0].actor == "service:sandbox"
