"""The stream of a reader who may not read any more ends within seconds, also when nothing happens in it."""

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from orginabox.api.v1 import (
    api_token_service_pb2,
    api_token_service_pb2_grpc,
    auth_service_pb2,
    auth_service_pb2_grpc,
    session_service_pb2,
    turn_service_pb2,
    user_pb2,
    user_service_pb2,
    user_service_pb2_grpc,
)
from orginabox.turn.v1 import turn_event_pb2

from services.kit import watch
from services.kit.status import reason_of
from tests.contract.api.conftest import Rig

PASSWORD = "wandering hedgehogs sing"
USER = "ada"


def suspend(users: Any, key: Any) -> Any:
    wanted = user_pb2.User(user_id=USER, status=user_pb2.USER_STATUS_SUSPENDED)
    return users.UpdateUser(user_service_pb2.UpdateUserRequest(user=wanted), metadata=key)


def take_role(users: Any, key: Any) -> Any:
    return users.UnassignRole(user_service_pb2.UnassignRoleRequest(user_id=USER, role_id="member"), metadata=key)


def end_sign_ins(users: Any, key: Any) -> Any:
    return users.RevokeSignIns(user_service_pb2.RevokeSignInsRequest(user_id=USER, api_tokens=True), metadata=key)


@pytest.mark.parametrize("by", ["sign-in", "API token"])
@pytest.mark.parametrize(
    ("change", "reason"),
    [(suspend, "USER_SUSPENDED"), (take_role, "PERMISSION_DENIED"), (end_sign_ins, "TOKEN_REVOKED")],
)
async def test_a_quiet_stream_ends_with_the_right_to_read_it(
    api: Rig, monkeypatch: pytest.MonkeyPatch, change: Callable[[Any, Any], Any], reason: str, by: str
) -> None:
    monkeypatch.setattr(watch, "EVERY_SECONDS", 0.2)
    users: Any = user_service_pb2_grpc.UserServiceStub(api.channel)
    auth: Any = auth_service_pb2_grpc.AuthServiceStub(api.channel)
    tokens: Any = api_token_service_pb2_grpc.ApiTokenServiceStub(api.channel)
    wanted = user_service_pb2.CreateUserRequest(handle=USER, password=PASSWORD, roles=["member"])
    await users.CreateUser(wanted, metadata=api.key)
    signed_in = await auth.SignIn(auth_service_pb2.SignInRequest(handle=USER, password=PASSWORD))
    theirs = (("authorization", f"Bearer {signed_in.tokens.access_token}"),)
    if by == "API token":
        asked = api_token_service_pb2.CreateApiTokenRequest(name="ci", scopes=["*"])
        theirs = (("authorization", f"Bearer {(await tokens.CreateApiToken(asked, metadata=theirs)).token}"),)
    session = await api.sessions.CreateSession(session_service_pb2.CreateSessionRequest(), metadata=theirs)
    said = session_service_pb2.PromptRequest(session_id=session.session_id, text="hello")
    turn_id = (await api.sessions.Prompt(said, metadata=theirs)).turn_id
    stream: Any = api.turns.StreamTurnEvents(turn_service_pb2.StreamTurnEventsRequest(turn_id=turn_id), metadata=theirs)
    reading = asyncio.create_task(_read(stream))
    await asyncio.sleep(0.6)
    assert not reading.done()

    await change(users, api.key)

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await asyncio.wait_for(reading, 5)
    assert reason_of(caught.value) == reason


async def _read(stream: Any) -> list[turn_event_pb2.TurnEvent]:
    return [event async for event in stream]
