"""Sessions and prompts, as a gRPC client sees them."""

import asyncio
from typing import Any

import grpc
import pytest
from orginabox.api.v1 import session_service_pb2 as pb
from orginabox.api.v1 import turn_pb2, turn_service_pb2

from services.kit.ids import OPERATOR, new_id
from services.kit.status import reason_of
from tests.contract.api.conftest import Rig


async def refused(call: object) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call  # type: ignore[misc]
    return caught.value.code(), reason_of(caught.value)


async def make_session(api: Rig, **fields: Any) -> str:
    answer = await api.sessions.CreateSession(pb.CreateSessionRequest(**fields), metadata=api.key)
    return str(answer.session_id)


async def test_a_session_is_made_read_renamed_and_deleted(api: Rig) -> None:
    session_id = await make_session(api, title="Ideas")
    got = await api.sessions.GetSession(pb.GetSessionRequest(session_id=session_id), metadata=api.key)
    assert (got.session.title, got.session.active_turn_id) == ("Ideas", "")
    renamed = await api.sessions.UpdateSession(
        pb.UpdateSessionRequest(session_id=session_id, title="Plans"), metadata=api.key
    )
    assert renamed.session.title == "Plans"
    await api.sessions.DeleteSession(pb.DeleteSessionRequest(session_id=session_id), metadata=api.key)
    call = api.sessions.GetSession(pb.GetSessionRequest(session_id=session_id), metadata=api.key)
    assert await refused(call) == (grpc.StatusCode.NOT_FOUND, "SESSION_NOT_FOUND")
    await api.until(lambda: len(api.peers.actions()) == 3)
    assert api.peers.actions() == ["agent.session_create", "agent.session_update", "agent.session_delete"]


async def test_the_sandbox_forgets_a_deleted_session_even_when_it_was_away(api: Rig) -> None:
    session_id = await make_session(api)
    api.peers.sandbox_away = True
    await api.sessions.DeleteSession(pb.DeleteSessionRequest(session_id=session_id), metadata=api.key)
    await asyncio.sleep(0.3)
    api.peers.sandbox_away = False
    await api.until(lambda: api.peers.forgotten == [session_id])


async def test_a_new_session_warms_its_owners_sandbox(api: Rig) -> None:
    session_id = await make_session(api)
    await api.until(lambda: api.peers.claimed == [str(OPERATOR)])
    assert api.peers.prepared == [session_id]


async def test_a_repeated_request_makes_one_session(api: Rig) -> None:
    request_id = str(new_id())
    first = await make_session(api, title="A", request_id=request_id)
    assert await make_session(api, title="A", request_id=request_id) == first
    call = api.sessions.CreateSession(pb.CreateSessionRequest(title="B", request_id=request_id), metadata=api.key)
    assert await refused(call) == (grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED")


async def test_sessions_are_listed_by_page_the_last_used_first(api: Rig) -> None:
    made = [await make_session(api, title=str(number)) for number in range(5)]
    await api.sessions.Prompt(pb.PromptRequest(session_id=made[0], text="hello"), metadata=api.key)
    seen, token = [], ""
    while True:
        page = await api.sessions.ListSessions(pb.ListSessionsRequest(page_size=2, page_token=token), metadata=api.key)
        seen += [session.session_id for session in page.sessions]
        if not (token := page.next_page_token):
            break
    assert seen == [made[0], *reversed(made[1:])]
    other = api.sessions.ListMessages(
        pb.ListMessagesRequest(
            session_id=made[0],
            page_token=(
                await api.sessions.ListSessions(pb.ListSessionsRequest(page_size=1), metadata=api.key)
            ).next_page_token,
        ),
        metadata=api.key,
    )
    assert await refused(other) == (grpc.StatusCode.INVALID_ARGUMENT, "PAGE_TOKEN_INVALID")


async def test_a_prompt_is_a_turn_a_job_and_a_record(api: Rig) -> None:
    session_id = await make_session(api)
    first = await api.sessions.Prompt(
        pb.PromptRequest(session_id=session_id, text="Count the files.\nAll of them."), metadata=api.key
    )
    second = await api.sessions.Prompt(pb.PromptRequest(session_id=session_id, text="And now?"), metadata=api.key)
    assert (first.position, second.position) == (0, 1)
    assert first.turn.state == turn_pb2.TURN_STATE_QUEUED
    await api.until(lambda: len(api.peers.jobs) == 2)
    assert [job.payload.decode() for job in api.peers.jobs] == [first.turn_id, second.turn_id]
    assert {job.key for job in api.peers.jobs} == {f"session:{session_id}"}
    got = await api.sessions.GetSession(pb.GetSessionRequest(session_id=session_id), metadata=api.key)
    assert (got.session.title, got.session.active_turn_id) == ("Count the files.", first.turn_id)
    turns = await api.turns.ListTurns(turn_service_pb2.ListTurnsRequest(session_id=session_id), metadata=api.key)
    assert [turn.text for turn in turns.turns] == ["And now?", "Count the files.\nAll of them."]
    call = api.sessions.DeleteSession(pb.DeleteSessionRequest(session_id=session_id), metadata=api.key)
    assert await refused(call) == (grpc.StatusCode.FAILED_PRECONDITION, "SESSION_BUSY")


async def test_a_repeated_prompt_is_said_once(api: Rig) -> None:
    session_id, request_id = await make_session(api), str(new_id())
    request = pb.PromptRequest(session_id=session_id, text="Once", request_id=request_id)
    first = await api.sessions.Prompt(request, metadata=api.key)
    assert (await api.sessions.Prompt(request, metadata=api.key)).turn_id == first.turn_id
    request.text = "Twice"
    assert await refused(api.sessions.Prompt(request, metadata=api.key)) == (
        grpc.StatusCode.ALREADY_EXISTS,
        "REQUEST_ID_REUSED",
    )


async def test_the_inbox_has_an_end(api: Rig) -> None:
    session_id = await make_session(api)
    for number in range(100):
        await api.sessions.Prompt(pb.PromptRequest(session_id=session_id, text=str(number)), metadata=api.key)
    call = api.sessions.Prompt(pb.PromptRequest(session_id=session_id, text="one more"), metadata=api.key)
    assert await refused(call) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "INBOX_FULL")


@pytest.mark.parametrize(
    ("request_fields", "field"),
    [
        ({"session_id": "nonsense", "text": "hi"}, "session_id"),
        ({"session_id": "00000000-0000-7000-8000-00000000dead", "text": ""}, "text"),
        ({"session_id": "00000000-0000-7000-8000-00000000dead", "text": "x" * 100_001}, "text"),
    ],
)
async def test_bad_input_names_its_field(api: Rig, request_fields: dict[str, Any], field: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await api.sessions.Prompt(pb.PromptRequest(**request_fields), metadata=api.key)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert (caught.value.details() or "").startswith(f"{field}: ")


async def test_only_the_key_opens_the_door(api: Rig) -> None:
    request = pb.ListSessionsRequest()
    for metadata in ((), (("authorization", "Bearer wrong"),), (("authorization", "Basic the-key"),)):
        assert await refused(api.sessions.ListSessions(request, metadata=metadata)) == (
            grpc.StatusCode.UNAUTHENTICATED,
            "UNAUTHENTICATED",
        )
