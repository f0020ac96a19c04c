"""The log of a turn: written by a worker, read by clients, fenced, resumable, and without a gap."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import psycopg
import pytest
from orginabox.api.v1 import session_pb2, turn_pb2, turn_service_pb2
from orginabox.api.v1 import session_service_pb2 as pb
from orginabox.errors.v1 import error_reason_pb2
from orginabox.queue.v1 import job_pb2
from orginabox.turn.v1 import turn_event_pb2, turn_log_service_pb2

from services.api import reaper
from services.kit.status import reason_of
from tests.contract.api.conftest import Rig
from tests.postgres import as_administrator


async def make_turn(api: Rig, text: str = "hello") -> str:
    session = await api.sessions.CreateSession(pb.CreateSessionRequest(), metadata=api.key)
    prompted = await api.sessions.Prompt(pb.PromptRequest(session_id=session.session_id, text=text), metadata=api.key)
    return str(prompted.turn_id)


async def open_turn(
    api: Rig, turn_id: str, attempt: int = 1, token: str = "t1"
) -> turn_log_service_pb2.OpenTurnResponse:
    return await api.log.OpenTurn(
        turn_log_service_pb2.OpenTurnRequest(turn_id=turn_id, attempt=attempt, lease_token=token)
    )


def delta(sequence: int, text: str = "x") -> turn_event_pb2.TurnEvent:
    return turn_event_pb2.TurnEvent(sequence=sequence, text_delta=turn_event_pb2.TextDelta(part_id="p", text=text))


def completed(sequence: int) -> turn_event_pb2.TurnEvent:
    return turn_event_pb2.TurnEvent(sequence=sequence, completed=turn_event_pb2.TurnCompleted())


async def append(api: Rig, turn_id: str, *events: turn_event_pb2.TurnEvent, token: str = "t1") -> list[int]:
    async def requests() -> AsyncIterator[turn_log_service_pb2.AppendTurnEventsRequest]:
        for event in events:
            yield turn_log_service_pb2.AppendTurnEventsRequest(turn_id=turn_id, lease_token=token, events=[event])

    return [answer.durable_sequence async for answer in api.log.AppendTurnEvents(requests())]


async def next_answer(call: Any) -> turn_log_service_pb2.AppendTurnEventsResponse:
    answer = await call.read()
    assert isinstance(answer, turn_log_service_pb2.AppendTurnEventsResponse)
    return answer


async def read(api: Rig, turn_id: str, after: int = 0, last_event_id: str = "") -> list[turn_event_pb2.TurnEvent]:
    metadata = (*api.key, ("last-event-id", last_event_id)) if last_event_id else api.key
    request = turn_service_pb2.StreamTurnEventsRequest(turn_id=turn_id, from_sequence=after)
    return [event async for event in api.turns.StreamTurnEvents(request, metadata=metadata)]


def numbers(events: list[turn_event_pb2.TurnEvent]) -> list[int]:
    return [event.sequence for event in events]


async def test_a_reader_sees_each_event_live_and_the_same_again_later(api: Rig) -> None:
    turn_id = await make_turn(api)
    assert (await open_turn(api, turn_id)).text == "hello"
    live = asyncio.create_task(read(api, turn_id))
    durable = await append(api, turn_id, *(delta(n, f"{n} ") for n in range(1, 51)), completed(51))
    assert durable[-1] == 51
    events = await live
    assert numbers(events) == list(range(1, 52))
    assert events == await read(api, turn_id)
    turn = (await api.turns.GetTurn(turn_service_pb2.GetTurnRequest(turn_id=turn_id), metadata=api.key)).turn
    assert (turn.state, turn.last_sequence) == (turn_pb2.TURN_STATE_COMPLETED, 51)


async def test_a_cut_reader_goes_on_after_what_it_has(api: Rig) -> None:
    turn_id = await make_turn(api)
    await open_turn(api, turn_id)
    await append(api, turn_id, *(delta(n) for n in range(1, 10)), completed(10))
    assert numbers(await read(api, turn_id, after=4)) == [5, 6, 7, 8, 9, 10]
    assert numbers(await read(api, turn_id, last_event_id="7")) == [8, 9, 10]
    assert numbers(await read(api, turn_id, after=8, last_event_id="7")) == [9, 10]
    # Whoever has it all still gets an end, and so does whoever has numbers that never were.
    assert numbers(await read(api, turn_id, after=10)) == [10]
    assert numbers(await read(api, turn_id, after=99)) == [10]
    assert numbers(await read(api, turn_id, last_event_id="nonsense")) == list(range(1, 11))


async def test_events_sent_again_are_left_out_and_gaps_are_refused(api: Rig) -> None:
    turn_id = await make_turn(api)
    await open_turn(api, turn_id)
    await append(api, turn_id, delta(1), delta(2), delta(3))
    assert (await open_turn(api, turn_id)).last_sequence == 3
    await append(api, turn_id, delta(2), delta(3), delta(4))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await append(api, turn_id, delta(6))
    assert reason_of(caught.value) == "SEQUENCE_GAP"
    await append(api, turn_id, completed(5))
    assert numbers(await read(api, turn_id)) == [1, 2, 3, 4, 5]


async def test_a_later_attempt_takes_the_log_over(api: Rig) -> None:
    turn_id = await make_turn(api)
    await open_turn(api, turn_id, 1, "old")
    await append(api, turn_id, delta(1), token="old")
    assert (await open_turn(api, turn_id, 2, "new")).last_sequence == 1
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await append(api, turn_id, delta(2, "stale"), token="old")
    assert reason_of(caught.value) == "LEASE_LOST"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await open_turn(api, turn_id, 1, "old")
    assert reason_of(caught.value) == "LEASE_LOST"
    await append(api, turn_id, delta(2, "fresh"), completed(3), token="new")
    assert [event.text_delta.text for event in await read(api, turn_id)] == ["x", "fresh", ""]


async def test_a_stream_that_is_open_when_the_lease_goes_is_cut(api: Rig) -> None:
    turn_id = await make_turn(api)
    await open_turn(api, turn_id, 1, "old")
    call = api.log.AppendTurnEvents()
    await call.write(
        turn_log_service_pb2.AppendTurnEventsRequest(turn_id=turn_id, lease_token="old", events=[delta(1)])
    )
    assert (await next_answer(call)).durable_sequence == 1
    await open_turn(api, turn_id, 2, "new")
    await call.write(
        turn_log_service_pb2.AppendTurnEventsRequest(turn_id=turn_id, lease_token="old", events=[delta(2)])
    )
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    assert reason_of(caught.value) == "LEASE_LOST"


async def test_a_waiting_turn_is_aborted_at_once(api: Rig) -> None:
    turn_id = await make_turn(api)
    waiting = asyncio.create_task(read(api, turn_id))
    await asyncio.sleep(0.1)
    answer = await api.turns.AbortTurn(turn_service_pb2.AbortTurnRequest(turn_id=turn_id), metadata=api.key)
    assert answer.turn.state == turn_pb2.TURN_STATE_ABORTED
    assert [event.WhichOneof("event") for event in await waiting] == ["aborted"]
    assert (await open_turn(api, turn_id)).ended
    again = await api.turns.AbortTurn(turn_service_pb2.AbortTurnRequest(turn_id=turn_id), metadata=api.key)
    assert again.turn == answer.turn


async def test_a_running_turn_is_aborted_by_its_sandbox_and_its_worker_is_told(api: Rig) -> None:
    turn_id = await make_turn(api)
    await open_turn(api, turn_id)
    await api.turns.AbortTurn(turn_service_pb2.AbortTurnRequest(turn_id=turn_id), metadata=api.key)
    assert api.peers.aborted == [turn_id]
    call = api.log.AppendTurnEvents()
    await call.write(turn_log_service_pb2.AppendTurnEventsRequest(turn_id=turn_id, lease_token="t1", events=[delta(1)]))
    assert (await next_answer(call)).abort_requested
    call.cancel()


async def test_a_permission_is_answered_and_put_on_record_first(api: Rig) -> None:
    turn_id = await make_turn(api)
    await open_turn(api, turn_id)
    request = turn_service_pb2.ReplyPermissionRequest(
        turn_id=turn_id, permission_id="per_1", reply=turn_event_pb2.PERMISSION_REPLY_ONCE
    )
    await api.turns.ReplyPermission(request, metadata=api.key)
    assert [reply.permission_id for reply in api.peers.replies] == ["per_1"]
    await api.until(lambda: "tool.permission_grant" in api.peers.actions())
    request.permission_id = "per_2"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await api.turns.ReplyPermission(request, metadata=api.key)
    assert reason_of(caught.value) == "PERMISSION_NOT_FOUND"


async def test_the_history_is_made_of_prompts_and_answers(api: Rig) -> None:
    turn_id = await make_turn(api, "Where am I?")
    await open_turn(api, turn_id)
    tool = turn_event_pb2.ToolStarted(call_id="c", tool="bash")
    tool.input.update({"command": "pwd"})
    await append(
        api,
        turn_id,
        delta(1, "Let me "),
        delta(2, "look."),
        turn_event_pb2.TurnEvent(sequence=3, tool_started=tool),
        turn_event_pb2.TurnEvent(
            sequence=4,
            tool_finished=turn_event_pb2.ToolFinished(
                call_id="c", tool="bash", outcome=turn_event_pb2.TOOL_OUTCOME_COMPLETED, output="/workspace"
            ),
        ),
        turn_event_pb2.TurnEvent(
            sequence=5, text_delta=turn_event_pb2.TextDelta(part_id="q", text="In the workspace.")
        ),
        completed(6),
    )
    turn = (await api.turns.GetTurn(turn_service_pb2.GetTurnRequest(turn_id=turn_id), metadata=api.key)).turn
    for _ in range(2):  # the second time it comes from what the first one kept
        history = await api.sessions.ListMessages(pb.ListMessagesRequest(session_id=turn.session_id), metadata=api.key)
        assert [message.role for message in history.messages] == [session_pb2.ROLE_USER, session_pb2.ROLE_ASSISTANT]
        parts = history.messages[1].parts
        assert [part.text or part.tool_call.output for part in parts] == [
            "Let me look.",
            "/workspace",
            "In the workspace.",
        ]
        assert parts[1].tool_call.input["command"] == "pwd"


async def test_a_turn_whose_job_died_is_ended(api: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reaper, "SWEEP_SECONDS", 0.2)
    turn_id = await make_turn(api)
    api.peers.job_state = job_pb2.JOB_STATE_DEAD
    events = await asyncio.wait_for(read(api, turn_id), 20)
    assert events[-1].failed.reason == error_reason_pb2.ERROR_REASON_ATTEMPTS_EXHAUSTED


async def test_somebody_elses_turn_is_not_found(api: Rig) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await read(api, "00000000-0000-7000-8000-00000000dead")
    assert (caught.value.code(), reason_of(caught.value)) == (grpc.StatusCode.NOT_FOUND, "TURN_NOT_FOUND")


async def test_one_refused_record_holds_up_no_other(api: Rig) -> None:
    api.peers.refuses_target = "session:"
    await make_turn(api)
    await api.until(lambda: "agent.prompt" in api.peers.actions())
    assert "agent.session_create" not in api.peers.actions()


async def test_a_log_that_is_no_longer_kept_still_has_an_end_and_its_answer(api: Rig) -> None:
    turn_id = await make_turn(api)
    await open_turn(api, turn_id)
    await append(api, turn_id, delta(1, "Gone "), delta(2, "but said."), completed(3))
    turn = (await api.turns.GetTurn(turn_service_pb2.GetTurnRequest(turn_id=turn_id), metadata=api.key)).turn
    with psycopg.connect(as_administrator(api.settings.database_url), autocommit=True) as connection:
        for _ in range(200):
            if connection.execute("SELECT compacted FROM api.turn").fetchone() == (True,):
                break
            await asyncio.sleep(0.05)
        connection.execute("DELETE FROM api.turn_event")
    events = await read(api, turn_id)
    assert [(event.sequence, event.WhichOneof("event")) for event in events] == [(3, "completed")]
    assert events[0].create_time == turn.end_time
    history = await api.sessions.ListMessages(pb.ListMessagesRequest(session_id=turn.session_id), metadata=api.key)
    assert history.messages[1].parts[0].text == "Gone but said."
