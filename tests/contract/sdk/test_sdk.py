"""The Python SDK against the public services: deadlines, metadata, errors, streams that were cut."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import grpc
import pytest
from betterproto2 import which_one_of
from grpclib.metadata import Deadline
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from orginabox_sdk.orginabox.api.v1 import (
    CreateSessionRequest,
    DeleteSessionRequest,
    GetHealthRequest,
    GetSessionRequest,
    GetTurnRequest,
    ListMessagesRequest,
    ListSessionsRequest,
    PromptRequest,
    Role,
    StreamTurnEventsRequest,
)
from orginabox_sdk.orginabox.queue.v1 import EnqueueJobRequest, QueueServiceStub
from orginabox_sdk.orginabox.turn.v1 import (
    AppendTurnEventsRequest,
    TextDelta,
    ToolOutcome,
    TurnCompleted,
    TurnEvent,
    TurnLogServiceStub,
)

from gateways.sdk import (
    ApiError,
    Channel,
    Client,
    DeadlineExceeded,
    InvalidArgument,
    NotFound,
    Unauthenticated,
    Unavailable,
    is_terminal,
)
from gateways.sdk.channel import parse_target, with_request_id
from tests.fake_box.handlers import serve_openly
from tests.fake_box.state import FakeBox

KEY = "a-key"


@asynccontextmanager
async def box_at(address: str, box: FakeBox) -> AsyncIterator[None]:
    """Serve a fake box."""
    stop = asyncio.Event()
    server = asyncio.create_task(serve_openly(address, box, KEY, stop))
    try:
        yield
    finally:
        stop.set()
        await server


@pytest.fixture
def address(tmp_path: Path) -> str:
    """Where the box of the test listens."""
    return f"unix://{tmp_path}/s.sock"


@pytest.fixture
async def box(address: str) -> AsyncIterator[FakeBox]:
    """A box that runs."""
    made = FakeBox(checkpoint_seconds=0.05)
    async with box_at(address, made):
        yield made


@pytest.fixture
async def client(box: FakeBox, address: str) -> AsyncIterator[Client]:
    """A client of it."""
    async with Client(address, api_key=KEY) as made:
        yield made


async def new_session(client: Client) -> str:
    """A session to speak in."""
    return (await client.sessions.create_session(CreateSessionRequest())).session_id


async def say(client: Client, text: str) -> str:
    """Say something in a session of its own; the turn."""
    prompt = PromptRequest(session_id=await new_session(client), text=text)
    return (await client.sessions.prompt(prompt)).turn_id


def text_of(events: list[TurnEvent]) -> str:
    """What the agent said."""
    return "".join(event.text_delta.text for event in events if event.text_delta is not None)


async def test_asks_and_streams_the_answer(client: Client) -> None:
    session_id = await new_session(client)
    events = [event async for event in client.ask(session_id, "hello there")]
    assert text_of(events) == "You said: hello there"
    assert events[0].started is not None
    assert events[-1].completed is not None
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    said = (await client.sessions.list_messages(ListMessagesRequest(session_id=session_id))).messages
    assert [message.role for message in said] == [Role.USER, Role.ASSISTANT]


async def test_an_empty_answer_is_an_answer(client: Client) -> None:
    session_id = await new_session(client)
    await client.sessions.delete_session(DeleteSessionRequest(session_id=session_id))
    assert (await client.sessions.list_sessions(ListSessionsRequest())).sessions == []


async def test_maps_a_refusal(client: Client) -> None:
    session_id = "00000000-0000-7000-8000-00000000dead"
    with pytest.raises(NotFound) as caught:
        await client.sessions.get_session(GetSessionRequest(session_id=session_id))
    assert caught.value.code is grpc.StatusCode.NOT_FOUND
    assert caught.value.reason == "SESSION_NOT_FOUND"
    assert caught.value.metadata == {"sessionId": session_id}
    assert str(caught.value) == caught.value.message == "no session of yours has this id"
    assert not caught.value.passing


async def test_maps_a_refusal_of_a_stream(client: Client) -> None:
    with pytest.raises(NotFound) as caught:
        await anext(client.follow("00000000-0000-7000-8000-00000000dead"))
    assert caught.value.reason == "TURN_NOT_FOUND"


async def test_maps_a_broken_rule(client: Client) -> None:
    with pytest.raises(InvalidArgument) as caught:
        await client.sessions.get_session(GetSessionRequest(session_id="not an id"))
    assert caught.value.metadata["field"] == "session_id"


async def test_a_wrong_key_is_told(box: FakeBox, address: str) -> None:
    async with Client(address, api_key="wrong") as stranger:
        assert (await stranger.health.get_health()).ok
        with pytest.raises(Unauthenticated):
            await stranger.sessions.list_sessions(ListSessionsRequest())


async def test_a_box_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    async with Client(f"unix://{tmp_path}/nobody.sock") as lonely:
        with pytest.raises(Unavailable) as caught:
            await lonely.health.get_health()
    assert caught.value.reason == ""
    assert caught.value.passing


async def test_sends_key_metadata_and_deadline(client: Client, box: FakeBox) -> None:
    await client.sessions.list_sessions(ListSessionsRequest(), timeout=3, metadata={"X-Purpose": "a test"})
    seen = box.seen[-1]
    assert seen["authorization"] == f"Bearer {KEY}"
    assert seen["x-purpose"] == "a test"
    assert seen["user-agent"].startswith("orginabox-sdk")
    assert 0 < float(seen["left"]) < 3.5
    await client.sessions.list_sessions(ListSessionsRequest(), deadline=Deadline.from_timeout(2), timeout=9)
    assert 0 < float(box.seen[-1]["left"]) < 2.5


async def test_a_call_has_a_deadline_and_a_stream_has_none(client: Client, box: FakeBox) -> None:
    turn_id = await say(client, "hello")
    assert 9 < float(box.seen[-1]["left"]) < 30.5
    assert len([event async for event in client.follow(turn_id)]) > 3
    assert box.seen[-1]["left"] == ""


async def test_a_deadline_that_passes_is_told(client: Client) -> None:
    turn_id = await say(client, "wait")
    begun = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        async for _ in client.turns.stream_turn_events(StreamTurnEventsRequest(turn_id=turn_id), timeout=0.3):
            pass
    assert 0.2 < time.monotonic() - begun < 10


async def test_hands_the_trace_on(client: Client, box: FakeBox) -> None:
    with TracerProvider().get_tracer("test").start_as_current_span("outer") as span:
        await client.health.get_health(GetHealthRequest())
    assert f"{span.get_span_context().trace_id:032x}" in box.seen[-1]["traceparent"]
    assert not trace.get_current_span().get_span_context().is_valid


async def test_leaving_a_stream_cancels_it(client: Client, box: FakeBox) -> None:
    turn_id = await say(client, "wait")
    async with aclosing(client.follow(turn_id)) as events:
        assert (await anext(events)).started is not None
    turn = box.turn(turn_id)
    await asyncio.sleep(0.1)
    assert not turn.changed._waiters


async def test_a_cancelled_task_leaves_no_call_behind(client: Client) -> None:
    turn_id = await say(client, "wait")

    async def drain() -> None:
        async for _ in client.follow(turn_id):
            pass

    task = asyncio.create_task(drain())
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("how", ["cut", "hush"])
async def test_a_cut_stream_goes_on_with_every_event_once(client: Client, box: FakeBox, how: str) -> None:
    turn_id = await say(client, f"{how} 3 bash ls")
    links: list[bool] = []
    events = [event async for event in client.follow(turn_id, on_link=links.append)]
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert text_of(events) == "Let me look.Three lines."
    assert is_terminal(events[-1])
    assert len(box.turn(turn_id).streams) > 3
    assert links[:3] == [False, True, False]


async def test_follows_from_where_it_is_told(client: Client) -> None:
    turn_id = await say(client, "cut 2 hello there")
    whole = [event.sequence async for event in client.follow(turn_id)]
    assert [event.sequence async for event in client.follow(turn_id, from_sequence=4)] == whole[4:]


@pytest.mark.parametrize("beyond", [0, 2])
async def test_whoever_has_it_all_is_told_of_the_end(client: Client, beyond: int) -> None:
    """A log that lost its last words in a crash ends before what a reader has seen, who must not wait for ever."""
    turn_id = await say(client, "hello there")
    whole = [event async for event in client.follow(turn_id)]
    cursor = whole[-1].sequence + beyond
    async with asyncio.timeout(10):
        assert [event async for event in client.follow(turn_id, from_sequence=cursor)] == whole[-1:]


async def test_checkpoints_are_left_out(client: Client, box: FakeBox) -> None:
    turn_id = await say(client, "wait")

    async def later() -> None:
        await asyncio.sleep(0.3)
        box.turn(turn_id).abort.set()

    stopping = asyncio.create_task(later())
    events = [event async for event in client.follow(turn_id)]
    await stopping
    assert all(event.checkpoint is None for event in events)
    assert events[-1].aborted is not None


async def test_waits_for_a_box_that_restarts(address: str) -> None:
    box = FakeBox(checkpoint_seconds=0.1)
    links: list[bool] = []
    async with Client(address, api_key=KEY) as client:
        async with box_at(address, box):
            turn_id = await say(client, "slow 100")
            following = asyncio.create_task(_collect(client, turn_id, links))
            await asyncio.sleep(0.5)
        await asyncio.sleep(0.5)
        async with box_at(address, box):
            events = await asyncio.wait_for(following, 20)
    assert [event.sequence for event in events] == list(range(1, 104))
    assert text_of(events).split() == [f"word{number}" for number in range(100)]
    assert links == [False, True]


async def _collect(client: Client, turn_id: str, links: list[bool]) -> list[TurnEvent]:
    return [event async for event in client.follow(turn_id, on_link=links.append)]


async def test_patience_ends(client: Client, box: FakeBox) -> None:
    turn_id = await say(client, "cut 1 wait")
    box.turn(turn_id).text = "cut 0 wait"
    assert (await anext(client.follow(turn_id))).sequence == 1
    box.checkpoint_seconds = 60
    del box.sessions[box.turn(turn_id).session_id]
    with pytest.raises(ApiError):
        await anext(client.follow(turn_id, patience=0))


async def test_a_repeated_call_creates_once(client: Client, box: FakeBox) -> None:
    request = CreateSessionRequest(title="twice")
    first = await client.sessions.create_session(request)
    second = await client.sessions.create_session(request)
    assert first.session_id != second.session_id
    assert request.request_id == ""
    assert all(len(name) == 36 for name in box.requests)


def test_gives_a_request_id_only_where_there_is_none() -> None:
    assert with_request_id(CreateSessionRequest()).request_id != ""  # type: ignore[attr-defined]
    named = CreateSessionRequest(request_id="mine")
    assert with_request_id(named) is named
    plain = GetTurnRequest(turn_id="t")
    assert with_request_id(plain) is plain


async def test_any_generated_stub_runs_on_the_channel(box: FakeBox, address: str) -> None:
    channel = Channel(address, api_key=KEY)
    with pytest.raises(ApiError) as caught:
        await QueueServiceStub(channel).enqueue_job(EnqueueJobRequest())  # type: ignore[arg-type]
    assert caught.value.code is grpc.StatusCode.UNIMPLEMENTED

    async def endless() -> AsyncIterator[AppendTurnEventsRequest]:
        while True:
            yield AppendTurnEventsRequest(turn_id="t")
            await asyncio.sleep(0.01)

    with pytest.raises(ApiError) as caught:
        async for _ in TurnLogServiceStub(channel).append_turn_events(endless()):  # type: ignore[arg-type]
            pass
    assert caught.value.code is grpc.StatusCode.UNIMPLEMENTED
    await channel.close()


def test_what_a_client_does_not_know_does_no_harm() -> None:
    assert str(ToolOutcome(9)) == "UNKNOWN(9)"
    newer = TurnEvent.parse(bytes(TurnEvent(sequence=3)) + b"\xf2\x01\x02\x08\x01")
    assert newer.sequence == 3
    assert not is_terminal(newer)


def test_an_event_without_a_field_is_still_an_event() -> None:
    event = TurnEvent.parse(bytes(TurnEvent(sequence=1, completed=TurnCompleted())))
    assert event.completed is not None
    assert not event.completed
    assert is_terminal(event)


def test_two_of_a_oneof_are_found_out_when_it_is_read() -> None:
    event = TurnEvent(text_delta=TextDelta(text="a"))
    event.completed = TurnCompleted()
    with pytest.raises(RuntimeError, match="more than one"):
        which_one_of(event, "event")


def test_reads_a_target() -> None:
    assert parse_target("http://127.0.0.1:8787") == ("127.0.0.1:8787", False)
    assert parse_target("http://box/") == ("box:80", False)
    assert parse_target("https://box.example") == ("box.example:443", True)
    assert parse_target("https://[::1]:9") == ("[::1]:9", True)
    assert parse_target("127.0.0.1:8787") == ("127.0.0.1:8787", False)
    assert parse_target("unix:///run/x.sock") == ("unix:///run/x.sock", False)
    for wrong in ("ftp://box", "http://box/v1", "http://user@box", "http://"):
        with pytest.raises(ValueError, match="not an address"):
            parse_target(wrong)
